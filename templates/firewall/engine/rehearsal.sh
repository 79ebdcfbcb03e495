# ---- rehearsal: does this kernel take all of it?

# The program that tries; it runs in a scratch namespace, where it can do no harm. Without one,
# it only puts each probe into a chain that nothing calls.
write_rehearsal() {
	cat >"$tmp/rehearse" <<'REHEARSE'
# rehearse <full|probe> <directory> <iptables-restore> <ip6tables-restore> [<seconds to wait>]
mode=$1 dir=$2 restore4=$3 restore6=$4 wait=${5:-}

load() {
	"$@" ${wait:+-w "$wait"} --noflush 2>"$dir/error"
}

first_complaint() {
	sed -n '/[^ ]/{p;q;}' "$dir/error"
}

probe_all() {
	while read -r family table what rule; do
		case $family in
		ip) restorer=$restore4 ;;
		*) restorer=$restore6 ;;
		esac
		[ -n "$restorer" ] || continue
		printf '*%s\n:SIPFW_PROBE - [0:0]\n-A SIPFW_PROBE %s\nCOMMIT\n' "$table" "$rule" |
			load "$restorer" && continue
		echo "not available for $family: $what ($(first_complaint))"
	done <"$dir/probes"
}

probe_sets() {
	while read -r line; do
		echo "$line" | ipset restore 2>"$dir/error" && continue
		echo "not available: $line ($(first_complaint))"
	done <"$dir/probe.sets"
}

if [ "$mode" = probe ]; then
	probe_sets
	probe_all
	exit
fi
if [ -s "$dir/all.sets" ] && ! ipset restore <"$dir/all.sets" 2>"$dir/error"; then
	echo "the sets do not load: $(first_complaint)"
	probe_sets
	exit
fi
for family in 4 6; do
	if [ "$family" = 4 ]; then restorer=$restore4; else restorer=$restore6; fi
	[ -n "$restorer" ] || continue
	load "$restorer" <"$dir/all.rules$family" && continue
	echo "the IPv$family rules do not load: $(first_complaint)"
	number=$(sed -n 's/.*line:\{0,1\} \([0-9][0-9]*\).*/\1/p' "$dir/error" | sed -n 1p)
	[ -z "$number" ] || echo "    line $number: $(sed -n "${number}p" "$dir/all.rules$family")"
	failed=yes
done
[ -z "${failed:-}" ] || { probe_sets; probe_all; }
REHEARSE
}

# One empty set of each kind and family, and those that the probes name: sipfw-probe4 and -probe6.
probe_sets() {
	{ wanted_sets static; wanted_sets dynamic; } | awk '
	$1 == "create" && !named[$5]++ {
		print "create sipfw-probe" ($5 == "inet" ? 4 : 6) " hash:ip family " $5 " timeout 60 counters"
	}
	$1 == "create" && !seen[$3, $5]++ { print "create sipfw-probe-" ++n, $3, "family", $5 }'
}

rehearse() {
	write_rehearsal
	probes >"$tmp/probes"
	probe_sets >"$tmp/probe.sets"
	{ wanted_sets static; wanted_sets dynamic; } >"$tmp/all.sets"
	rules4 >"$tmp/all.rules4"
	rules6 >"$tmp/all.rules6"
	set -- "$tmp" "$IPTABLES-restore" ""
	[ "$families" = 4 ] || set -- "$tmp" "$IPTABLES-restore" "$IP6TABLES-restore"
	if can_scratch; then
		in_scratch sh "$tmp/rehearse" full "$@" "$restore_wait" >"$tmp/complaints"
	else
		say "no scratch namespace here (unshare -n), so only the kernel's abilities are tried"
		probing=yes
		sh "$tmp/rehearse" probe "$@" "$restore_wait" >"$tmp/complaints"
		probe_live_end
	fi
	while read -r line; do problem "$line"; done <"$tmp/complaints"
	advice=$(advise <"$tmp/complaints")
	[ -z "$advice" ] || say "$advice"
}

# Take the probe chain and sets away again; also called when the script is interrupted.
probe_live_end() {
	probing=
	for family in $families; do
		awk -v family="$family" '$1 == (family == 4 ? "ip" : "ip6") && !seen[$2]++ { print "*" $2 "\n:SIPFW_PROBE - [0:0]\n-X SIPFW_PROBE\nCOMMIT" }' \
			"$tmp/probes" | restore "$family" --noflush
	done
	while read -r line; do
		name=${line#create }
		ipset destroy "${name%% *}" 2>/dev/null
	done <"$tmp/probe.sets"
}
