# ---- check: everything that could make loading fail or destroy something, before anything changes

# survey <adopt|>: leaves what it saw in $tmp; ends the script with status 4 if there is a problem.
survey() {
	refuse_split
	find_ipv6
	look
	look_sets
	plan_sets
	while read -r fate name; do
		[ "$fate" != clash ] || problem "set $name exists but is of another type; run: firewall.sh remove"
	done <"$tmp/sets.plan"
	if [ -z "$1" ]; then
		refuse_conflicts
	fi
	rehearse
	[ "$problems" = 0 ] || give_up "nothing was changed"
	name_stricter
}

# Rules of others stay as strict as they are. An older firewall.sh accepted SIP in front of them.
name_stricter() {
	for family in $families; do
		awk '
			/^\*/ { filter = $0 == "*filter" }
			!filter { next }
			{ sub(/^\[[0-9:]*\] /, "") }
			/^:INPUT / && $2 != "ACCEPT" { found = "the policy " $2 }
			/^-A INPUT -j (DROP|REJECT)( |$)/ { found = "`" $0 "`" }
			/^-A SIP/ && /sipfw:/ && / -j ACCEPT$/ { older = 1 }
			END {
				if (found == "") exit
				print "IPv" family ": " found " drops what your own rules do not accept, SIP included;"
				print "    sipfw opens nothing: see that they accept the SIP and RTP ports"
				if (older) print "    the firewall in force still accepts SIP itself: with this one that ends"
			}' family="$family" "$tmp/save$family" >"$tmp/stricter"
		while IFS= read -r line; do say "$line"; done <"$tmp/stricter"
	done
}

refuse_conflicts() {
	for family in $families; do
		conflicts "$family" >"$tmp/conflicts"
		[ -s "$tmp/conflicts" ] || continue
		problem "IPv$family: rules that were not made by sipfw stand in the way:"
		while IFS= read -r line; do say "    $line"; done <"$tmp/conflicts"
		say "    firewall.sh apply --adopt replaces these chains and removes the rules that jump to them;"
		say "    every other rule stays"
	done
}

check() {
	begin
	survey ''
	say "this host can take the firewall ($IPTABLES, $flavour flavour, IPv$(echo "$families" | sed 's/ / and IPv/'))"
}
