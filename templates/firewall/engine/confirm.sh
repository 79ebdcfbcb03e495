# ---- confirm: a change that nobody confirms goes away by itself
#
# Such a change is a folder of its own with all that going back needs, and $state/pending, which
# names it. Who links `yes` or `no` to `verdict` first decides; who removes `pending` ends it.

# Time is what the kernel has run: a clock that is set does not move it.
uptime_seconds() {
	read -r up _ </proc/uptime && echo "${up%%.*}"
}

seconds_left() {
	until=$(cat "$change/deadline" 2>/dev/null) || until=0
	echo $((until - $(uptime_seconds)))
}

# set_deadline <seconds>
set_deadline() {
	# The kernel's second may be nearly over.
	echo $(($(uptime_seconds) + $1 + 1)) | install_file 600 "$change/deadline"
}

# A process by its number and start; nothing for one that is dead.
identity() {
	awk '{ pid = $1; sub(/.*\) /, ""); if ($1 != "Z" && $1 != "X") print pid, $20 }' "/proc/$1/stat" 2>/dev/null
}

# is_alive <file with an identity>
is_alive() {
	read -r pid start 2>/dev/null <"$1" || return 1
	[ "$(identity "$pid")" = "$pid $start" ]
}

# Rules live no longer than this.
where() {
	cat /proc/sys/kernel/random/boot_id
	# Kernels before 3.8 have no such link.
	readlink /proc/self/ns/net 2>/dev/null || :
}

find_change() {
	name=$(cat "$state/pending" 2>/dev/null) || return 1
	case $name in
	*/*) return 1 ;;
	change.?*) change=$state/$name ;;
	*) return 1 ;;
	esac
}

is_current() {
	[ "$(cat "$state/pending" 2>/dev/null)" = "${change##*/}" ]
}

# Nothing to wait for: the host was restarted, or the apply got killed before it changed anything.
is_void() {
	[ ! -d "$change" ] || [ ! -e "$change/watchdog" ] && return 0
	is_alive "$change/watchdog" && return 1
	[ "$(where)" != "$(cat "$change/where" 2>/dev/null)" ]
}

refuse_pending() {
	find_change || return 0
	if is_void; then
		[ -z "$locked" ] || close_change
		return 0
	fi
	say "$(pending_text); keep it with: firewall.sh confirm; go back now with: firewall.sh rollback"
	give_up "nothing was changed"
}

pending_text() {
	left=$(seconds_left)
	if [ ! -e "$change/applied" ]; then
		echo "a change is being loaded, or its load was cut off"
	elif ! is_alive "$change/watchdog"; then
		echo "a change waits for its confirmation, but its watchdog is dead"
	elif [ "$left" -le 0 ]; then
		echo "a change was not confirmed and is being taken back"
	else
		echo "a change waits for its confirmation, $left s are left"
	fi
}

close_change() {
	[ -n "$change" ] || return 0
	if is_current; then rm -f "$state/pending"; fi
	rm -rf "$change"
	change=
}

# own_text <path>: is it this script? `sh -s` has no text to be read again.
own_text() {
	[ -f "$1" ] && sed -n 2p "$1" | grep -q '^# A SIP firewall for iptables .*, written by sipfw'
}

require_watchable() {
	own_text "$0" || problem "--confirm runs a second copy of this script, so save it as a file and run it as: sh ./firewall.sh"
	command -v flock >/dev/null 2>&1 || problem "--confirm needs flock: not found in PATH=$PATH"
	[ -n "$(uptime_seconds 2>/dev/null)" ] || problem "--confirm needs /proc/uptime"
	[ "$problems" = 0 ] || give_up "nothing was changed"
}

# arm <seconds>: from here on the change is taken back, whatever becomes of us.
arm() {
	# What a power failure left, a `pending` without a name in it, too.
	rm -rf "$state/pending" "$state"/change.*
	change=$(mktemp -d "$state/change.XXXXXX") || return 1
	if describe_change "$1" && ln "$change/name" "$state/pending" && start_watchdog; then return 0; fi
	close_change
	return 1
}

# describe_change <seconds>
describe_change() {
	cat "$0" >"$change/firewall.sh" &&
		echo "${change##*/}" >"$change/name" &&
		echo yes >"$change/yes" && echo no >"$change/no" &&
		absolute "$IPTABLES" >"$change/tools" && absolute "$IP6TABLES" >>"$change/tools" &&
		echo "$families" >"$change/families" &&
		where >"$change/where" &&
		identity $$ >"$change/applying" &&
		uptime_seconds >"$change/began" &&
		echo "$1" >"$change/seconds" &&
		# A load takes seconds; one that takes minutes longer has hung.
		set_deadline $(($1 + 120)) &&
		sysctls >"$change/sysctl.conf" &&
		sysctl_values | while read -r key _; do
			value=$(cat "$(proc_path "$key")" 2>/dev/null) && echo "$key $value"
		done >"$change/sysctl.now" &&
		{ [ ! -e "$state/sysctl.before" ] || cp "$state/sysctl.before" "$change"; } &&
		cp "$tmp/previous.ipset" "$tmp/sets.plan" "$change" || return 1
	for family in $families; do
		cp "$tmp/save$family" "$tmp/load$family" "$tmp/labels$family.before" "$change" || return 1
	done
}

absolute() {
	case $1 in
	/*) echo "$1" ;;
	*/*) echo "$PWD/$1" ;;
	*) echo "$1" ;;
	esac
}

# In a session of its own where there is setsid; elsewhere deaf to HUP must do.
start_watchdog() {
	session=
	if command -v setsid >/dev/null 2>&1; then session=setsid; fi
	(
		# What is ignored when a shell starts cannot be trapped there.
		trap - TERM
		exec ${session:+"$session"} sh "$change/firewall.sh" watch-change "${change##*/}" \
			</dev/null >/dev/null 2>&1 8>&- 9>&-
	)
	# setsid may have returned at once.
	for _ in 1 2 3 4 5; do
		if is_alive "$change/watchdog"; then return 0; fi
		sleep 1
	done
	return 1
}

# await_confirmation <seconds>: all of it is loaded.
await_confirmation() {
	set_deadline "$1"
	: >"$change/applied"
}

# watch_change <name of the change>: returns when the watchdog is on its own.
watch_change() {
	find_change && [ "$name" = "$1" ] || exit 1
	trap '' HUP INT QUIT PIPE TSTP
	keep_watch </dev/null >/dev/null 2>"$state/watchdog.log" &
	identity $! | install_file 600 "$change/watchdog"
}

keep_watch() {
	hurry=
	# The end of a session or of the host: go back now, there may be no later.
	trap 'hurry=yes' TERM
	pause=1
	attempts=0
	while is_current && [ "$attempts" -lt 40 ]; do
		if is_due && lock_state; then
			# A load that has ended meanwhile has a deadline of its own.
			if is_current && is_due; then
				if take_back; then break; fi
				attempts=$((attempts + 1))
				[ "$pause" -ge 30 ] || pause=$((pause * 2))
			fi
			unlock_state
		fi
		sleep "$pause"
	done
}

# Without `applied` the lock decides: it is free when the apply is dead.
is_due() {
	[ -e "$change/applied" ] || end_what_hangs
	[ ! -e "$change/applied" ] || [ -e "$change/verdict" ] || [ -n "$hurry" ] || [ "$(seconds_left)" -le 0 ]
}

end_what_hangs() {
	[ "$(seconds_left)" -le 0 ] || return 0
	if is_alive "$change/applying"; then kill -9 "$pid"; fi
}

take_back() {
	reason="it was not confirmed within $(cat "$change/seconds") s"
	[ -e "$change/applied" ] || reason="its load was cut off"
	decide no
	went_back=no
	[ "$(cat "$change/verdict")" = yes ] || went_back=yes
	if ! settle; then
		report "the change cannot be taken back yet: $(tail -n 1 "$state/watchdog.log")"
		return 1
	fi
	[ "$went_back" = no ] || report "the change was taken back: $reason"
	close_change
}

report() {
	say "$1"
	command -v logger >/dev/null 2>&1 && logger -t sipfw -p daemon.warning -- "$1"
	return 0
}

# decide <yes|no>: only the first decision counts.
decide() {
	ln "$change/$1" "$change/verdict" 2>/dev/null
	[ "$(cat "$change/verdict" 2>/dev/null)" = "$1" ]
}

# Do what was decided. It may be done again after a part of it.
settle() {
	if [ "$(cat "$change/verdict")" = yes ]; then
		keep "$change/firewall.sh" "$change/sysctl.conf"
	else
		(undo)
	fi
}

# In a shell of its own: it has its own temporary files, and may give up.
undo() {
	from=$change
	trap '' TERM
	begin_in "$from"
	{ read -r IPTABLES && read -r IP6TABLES; } <"$from/tools"
	find_tools
	find_flavour
	families=$(cat "$from/families")
	for family in $families; do
		cp "$from/save$family" "$from/load$family" "$from/labels$family.before" "$tmp" || exit 6
	done
	cp "$from/sets.plan" "$tmp" || exit 6
	aged $(($(uptime_seconds) - $(cat "$from/began"))) <"$from/previous.ipset" >"$tmp/previous.ipset"
	bring_back || exit 6
	restore_sysctls "$from/sysctl.now"
	if [ -e "$from/sysctl.before" ]; then
		install_file 600 "$state/sysctl.before" <"$from/sysctl.before"
	else
		rm -f "$state/sysctl.before"
	fi
	exit 0
}

# aged <seconds>: elements of `ipset save` on stdin as they would be by now.
aged() {
	awk -v age="$1" '
	$1 == "add" {
		for (i = 4; i < NF; i++) if ($i == "timeout" && $(i + 1) > 0) {
			left = $(i + 1) - age
			if (left <= 0) next
			$(i + 1) = left
		}
	}
	{ print }'
}

# keep <script> <kernel settings>: what the next start of the host finds.
keep() {
	keep_sysctls "$2"
	if own_text "$1"; then
		install_file 600 "$state/firewall.sh" <"$1"
	elif [ -e "$state/firewall.sh" ]; then
		say "warning: $state/firewall.sh, for the start of the host, is still the one of before; apply from a file to renew it"
	fi
}

lock_state() {
	exec 9>"$state/lock"
	flock -n 9 && return 0
	unlock_state
	return 1
}

unlock_state() {
	exec 9>&-
}

# For confirm and rollback: the change that waits, with nobody else at it.
take_change() {
	find_change || no_change
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		if lock_state; then
			find_change || no_change
			see_it_through
			return 0
		fi
		sleep 1
	done
	give_up "another firewall.sh is at work (it holds $state/lock); try again"
}

no_change() {
	say "no change waits for a confirmation"
	[ ! -s "$state/watchdog.log" ] || say "the last one: $(tail -n 1 "$state/watchdog.log" | sed 's/^firewall.sh: //')"
	exit 1
}

confirm() {
	begin
	take_change
	if [ ! -e "$change/applied" ]; then
		say "the change was cut off while it was loaded; go back with: firewall.sh rollback"
		exit 1
	fi
	if ! decide yes; then
		say "too late: the change is being taken back; finish that with: firewall.sh rollback"
		exit 1
	fi
	settle
	close_change
	let_go
	say "confirmed: the firewall stays"
}

rollback() {
	begin
	take_change
	if ! decide no; then
		say "the change is confirmed already"
		exit 1
	fi
	if ! settle; then
		say "going back failed; try again, or look at $change"
		exit 6
	fi
	close_change
	let_go
	say "the firewall of before is back"
}

# boot_line <adopt|>
boot_line() {
	echo "[ ! -f $state/firewall.sh ] || ${SIPFW_ROOT:+SIPFW_ROOT=$SIPFW_ROOT }${IPTABLES:+IPTABLES=$IPTABLES }${IP6TABLES:+IP6TABLES=$IP6TABLES }sh $state/firewall.sh apply${1:+ --adopt}"
	say "add this line to /etc/rc.local (executable, and above any exit 0), or to a start script of"
	say "runlevels 2 to 5; it loads what was applied or confirmed last, never what still waits"
}
