# ---- advice: what is missing, and the command that helps on this system

# advise: complaints about single probes on stdin; prints one line, or nothing.
advise() {
	# Of an extension that it has, the kernel says EINVAL where it refuses a value; ipset says it
	# of a kernel without sets.
	grep -v '^not available for ip.*Invalid argument' >"$tmp/advise"
	lacked=$(sed -n -e 's/^not available for ip.*: match:\([^, ]*\).*/\1/p' \
		-e 's/^not available for ip.*: target:\([^, ]*\).*/\1/p' "$tmp/advise" | sort -u | tr '\n' ' ')
	lacked=${lacked% }
	if grep -q '^not available: create ' "$tmp/advise"; then
		# Without sets, what asks them is not to blame.
		lacked="ip_set $(printf '%s\n' "$lacked" | tr ' ' '\n' | grep -v -i '^set$' | tr '\n' ' ')"
		lacked=${lacked% }
	fi
	[ -n "$lacked" ] || return 0
	if grep -q -i -e "couldn't load" -e 'unknown option' "$tmp/advise"; then
		echo "this host cannot run the rules: iptables has no extension $lacked; run: $(library_command)"
		return
	fi
	echo "this host cannot run the rules: the kernel lacks $(modules_of)$(why_missing); run: $(modules_command)"
}

modules_of() {
	for part in $lacked; do
		case $part in
		tcp | udp) echo xt_tcpudp ;;
		SET) echo xt_set ;;
		REJECT) echo ipt_REJECT ;;
		ip_set) echo ip_set ;;
		*) echo "xt_$part" ;;
		esac
	done | sort -u | tr '\n' ' ' | sed 's/ $//; s/ /, /g'
}

why_missing() {
	if [ "$lacked" = u32 ]; then
		echo ": RHEL, Alma and Rocky 9 and later are built without it, 8 keeps it in kernel-modules-extra"
	elif [ "$(cat /proc/sys/kernel/modules_disabled 2>/dev/null)" = 1 ]; then
		echo ": kernel.modules_disabled=1 forbids to load any until the next boot"
	else
		echo ": RHEL, Alma and Rocky 10 keep it in kernel-modules-extra"
	fi
}

# os_release <field>, without quotes; the file is read and never run.
os_release() {
	sed -n "s/^$1=[\"']\{0,1\}\([A-Za-z0-9._ -]*\).*/\1/p" /etc/os-release 2>/dev/null | sed -n 1p
}

modules_command() {
	modules=$(modules_of | tr -d ,)
	for name in $modules; do
		# What the kernel has was kept out by a rule of modprobe's, or by the kernel itself.
		modprobe -n "$name" >/dev/null 2>&1 || modules=
	done
	if [ -n "$modules" ] && [ "$(cat /proc/sys/kernel/modules_disabled 2>/dev/null)" = 1 ]; then
		echo "echo $modules | xargs -n 1 >/etc/modules-load.d/sipfw.conf && reboot"
		return
	fi
	major=$(os_release VERSION_ID | sed 's/[^0-9].*//')
	again="sipfw render --no-u32 on another machine gives a script for this one"
	case " $(os_release ID) $(os_release ID_LIKE) " in
	*" openwrt "*) command="opkg install $(openwrt_packages)" ;;
	*" rhel "* | *" centos "* | *" fedora "* | *" rocky "* | *" almalinux "*)
		command="dnf install kernel-modules-extra-\$(uname -r)"
		[ "${major:-0}" -lt 1 ] || [ "$major" -gt 7 ] || command="yum install kernel && reboot"
		[ "$lacked" != u32 ] || [ "${major:-0}" -lt 9 ] || command=$again
		;;
	*" ubuntu "*) command="apt install linux-modules-extra-\$(uname -r)" ;;
	*" alpine "*) command="apk add linux-lts && reboot" ;;
	*" suse "* | *" opensuse "* | *" sles "*) command="zypper install kernel-default && reboot" ;;
	*" debian "*) command="apt install linux-image-\$(dpkg --print-architecture) && reboot" ;;
	*) command="boot a kernel that has it" ;;
	esac
	[ -z "$modules" ] || command="modprobe -a $modules"
	case " $lacked " in
	*" u32 "*) [ "$command" = "$again" ] || command="$command (or: $again)" ;;
	" ip_set ") command="$command (or: sipfw render --no-ipset on another machine)" ;;
	esac
	echo "$command"
}

openwrt_packages() {
	for name in $(modules_of | tr -d ,); do
		case $name in
		xt_u32 | xt_hashlimit) echo "kmod-ipt-${name#xt_}" ;;
		xt_string | xt_bpf) echo kmod-ipt-filter ;;
		xt_length) echo kmod-ipt-ipopt ;;
		xt_conntrack | xt_CT) echo kmod-ipt-conntrack ;;
		xt_connlimit | xt_recent) echo kmod-ipt-conntrack-extra ;;
		xt_NFLOG) echo kmod-ipt-nflog ;;
		xt_set | ip_set) echo kmod-ipt-ipset ;;
		*) echo kmod-ipt-core ;;
		esac
	done | sort -u | tr '\n' ' ' | sed 's/ $//'
}

library_command() {
	case " $(os_release ID) $(os_release ID_LIKE) " in
	*" openwrt "*)
		for part in $lacked; do echo "iptables-mod-$part"; done | tr 'A-Z\n' 'a-z ' |
			sed 's/^/opkg install /; s/ $//'
		;;
	*" rhel "* | *" centos "* | *" fedora "* | *" rocky "* | *" almalinux "*)
		echo "dnf reinstall iptables-libs"
		;;
	*" alpine "*) echo "apk fix iptables" ;;
	*) echo "apt install --reinstall iptables" ;;
	esac
}
