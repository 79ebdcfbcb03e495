# ---- kernel settings

sysctl_values() {
	sysctls | sed -n 's/^\([a-z0-9_.]*\) = \([0-9]*\)$/\1 \2/p'
}

proc_path() {
	echo "/proc/sys/$(echo "$1" | tr . /)"
}

# sysctl_set <name> <value>: through /proc, because sysctl(8) is not everywhere.
sysctl_set() {
	{ echo "$2" >"$(proc_path "$1")"; } 2>/dev/null && return
	say "warning: $1 cannot be set to $2 here (no such setting yet, or a namespace of its own)"
}

set_sysctls() {
	touch "$state/sysctl.before"
	sysctl_values | while read -r name value; do
		now=$(cat "$(proc_path "$name")" 2>/dev/null) || now=
		# The first run saw the original; later ones see what we set.
		if [ -n "$now" ] && ! grep -q "^$name " "$state/sysctl.before"; then
			echo "$name $now" >>"$state/sysctl.before"
		fi
		[ "$now" = "$value" ] || sysctl_set "$name" "$value"
	done
}

# keep_sysctls <text>: for the next start of the host.
keep_sysctls() {
	if ! grep -q '^[^#]' "$1"; then
		remove_sysctl_file
	elif [ -e "$sysctl_file" ] && ! own_sysctl_file; then
		say "warning: $sysctl_file was not written by sipfw and stays; settings will not survive a reboot"
	else
		(umask 022 && mkdir -p "${sysctl_file%/*}") && install_file 644 "$sysctl_file" <"$1"
	fi
}

own_sysctl_file() {
	sed -n 1p "$sysctl_file" | grep -q 'Written by sipfw'
}

remove_sysctl_file() {
	[ -e "$sysctl_file" ] || return 0
	own_sysctl_file && rm -f "$sysctl_file"
}

# restore_sysctls <file of names and values>
restore_sysctls() {
	[ -e "$1" ] || return 0
	while read -r name value; do
		[ "$(cat "$(proc_path "$name")" 2>/dev/null)" = "$value" ] || sysctl_set "$name" "$value"
	done <"$1"
}

# install_file <mode> <path>, contents on stdin: the whole file or the old one, never a part.
install_file() {
	cat >"$2.new" && chmod "$1" "$2.new" && mv -f "$2.new" "$2"
}
