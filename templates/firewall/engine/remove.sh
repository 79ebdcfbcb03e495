# ---- remove: what carries our mark, and nothing else

remove() {
	begin
	if [ -d "$state" ]; then one_at_a_time; fi
	refuse_pending
	if [ -z "$(ipv6_trouble)" ]; then families='4 6'; fi
	look
	warn_other_side
	trap '' HUP INT QUIT TERM PIPE TSTP
	for family in $families; do
		merge remove "$family" /dev/null >"$tmp/load$family"
		[ -s "$tmp/load$family" ] || continue
		lost_with "$family"
		if ! restore "$family" --noflush <"$tmp/load$family"; then
			explain "IPv$family" "$tmp/load$family"
			give_up "our IPv$family rules are still there"
		fi
	done
	destroy_sets
	restore_sysctls "$state/sysctl.before"
	remove_sysctl_file
	rm -rf "$state/pending" "$state"/change.*
	rm -f "$state/previous.v4" "$state/previous.v6" "$state/previous.ipset" "$state/sysctl.before" \
		"$state/firewall.sh" "$state/watchdog.log" "$state/lock"
	for file in "$state/adopted.v4" "$state/adopted.v6"; do
		[ ! -e "$file" ] || say "rules that --adopt replaced are still in $file"
	done
	rmdir "$state" "${state%/*}" 2>/dev/null
	[ "$problems" = 0 ] || give_up "some of it is still there"
	say "removed"
}

# Rules that others put into our chains, or jumps of theirs to them, cannot outlive the chains.
lost_with() {
	awk '/^-D / && !/ --comment "?sipfw:/ { print "also removed, it jumps to a chain of ours: " substr($0, 4) }' "$tmp/load$1" |
		while IFS= read -r line; do say "IPv$1: $line"; done
	awk '
	side == "labels" { mixed[$1, $2] = $3 == "mixed"; next }
	$1 == "R" && $4 == "-" && mixed[$2, $3] {
		sub(/^R [^ ]+ [^ ]+ [^ ]+ [^ ]+ /, ""); print "also removed, it stood in a chain of ours: " $0
	}' side=labels "$tmp/labels$1" side=have "$tmp/have$1" |
		while IFS= read -r line; do say "IPv$1: $line"; done
}

warn_other_side() {
	command -v "iptables-$other-save" >/dev/null 2>&1 || return 0
	"iptables-$other-save" 2>/dev/null | grep -q 'sipfw:' || return 0
	problem "there are rules of ours in the $other flavour too; run: IPTABLES=iptables-$other firewall.sh remove"
}
