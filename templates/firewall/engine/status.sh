# ---- status: read only

status() {
	begin
	if [ -z "$(ipv6_trouble)" ]; then families='4 6'; fi
	look
	look_sets
	for family in $families; do
		echo "IPv$family ($(if [ "$family" = 4 ]; then echo "$IPTABLES"; else echo "$IP6TABLES"; fi), $flavour flavour)"
		status_jumps "$family"
		status_chains "$family"
	done
	status_sets
	status_kernel
	if find_change && ! is_void; then echo "pending: $(pending_text)"; fi
	for family in $families; do
		differences "$family" "$tmp/have$family" | sed "s/^/IPv$family, /"
	done >"$tmp/differences"
	plan_sets
	awk '$1 == "new" { print "set " $2 " is missing" } $1 == "clash" { print "set " $2 " is of another type" }' \
		"$tmp/sets.plan" >>"$tmp/differences"
	wanted_sets static | awk '
	FILENAME != "-" { have[$2] = $1; next }
	$1 == "create" { name[++n] = $2 }
	$1 == "add" { want[$2]++ }
	END {
		for (i = 1; i <= n; i++) if (name[i] in have && have[name[i]] != want[name[i]] + 0)
			printf "set %s: %d elements instead of %d\n", name[i], have[name[i]], want[name[i]]
	}' "$tmp/sets.sizes" - >>"$tmp/differences"
	while read -r line; do problem "$line"; done <"$tmp/differences"
	[ "$problems" = 0 ] || exit 1
}

# Where our jumps stand, and what a packet meets before them.
status_jumps() {
	awk '
	side == "want" { if ($1 == "J") { jump[$2, $3] = $4; order[++n] = $2 " " $3 } next }
	$1 == "R" && ($2, $3) in jump && !found[$2, $3] {
		if ($4 == jump[$2, $3]) { found[$2, $3] = 1; next }
		line = $0; sub(/^R [^ ]+ [^ ]+ [^ ]+ [^ ]+ /, "", line)
		before[$2, $3] = before[$2, $3] "      before it: " line "\n"
	}
	END {
		for (i = 1; i <= n; i++) {
			split(order[i], at, " ")
			there = found[at[1], at[2]]
			printf "  jump from %s %s: %s\n", at[1], at[2], there ? "there" : "MISSING"
			if (there) printf "%s", before[at[1], at[2]]
		}
	}' side=want "$tmp/want$1" side=have "$tmp/have$1"
}

# Counters by rule id: our comments say more in less width; `iptables -t TABLE -L CHAIN -n -v -x` shows the same with every option.
status_chains() {
	awk '
	side == "want" { if ($1 == "C") { order[++n] = $2 " " $3; known[$2, $3] = 1 } next }
	/^\*/ { table = substr($1, 2) }
	/^\[/ && (table, $3) in known {
		split(substr($1, 2), number, /[]:]/)
		plain = $0
		gsub(/"([^"\\]|\\.)*"/, "\"\"", plain)
		target = ""
		if (match(plain, / -[jg] [^ ]+/)) target = substr(plain, RSTART + 4, RLENGTH - 4)
		id = "(not ours)"
		if (match($0, /sipfw:[^# "]+/)) id = substr($0, RSTART + 6, RLENGTH - 6)
		text[table, $3] = text[table, $3] sprintf("  %12s %14s  %-18s %s\n", number[1], number[2], target, id)
	}
	END {
		for (i = 1; i <= n; i++) {
			split(order[i], at, " ")
			printf "\n  %s %s\n  %12s %14s  %-18s %s\n", at[1], at[2], "packets", "bytes", "target", "rule"
			printf "%s", text[at[1], at[2]]
		}
		print ""
	}' side=want "$tmp/want$1" side=save "$tmp/save$1"
}

status_sets() {
	: >"$tmp/sets.sizes"
	[ -s "$tmp/sets" ] || return 0
	echo "sets"
	while read -r name kind header; do
		size=$(ipset save "$name" </dev/null | grep -c '^add ')
		echo "$size $name" >>"$tmp/sets.sizes"
		printf '  %8s elements  %-31s %s %s\n' "$size" "$name" "$kind" "$header"
	done <"$tmp/sets"
	echo
}

status_kernel() {
	echo "kernel"
	count=$(cat /proc/sys/net/netfilter/nf_conntrack_count 2>/dev/null) || count=
	max=$(cat /proc/sys/net/netfilter/nf_conntrack_max 2>/dev/null) || max=
	echo "  connections tracked: ${count:-unknown} of at most ${max:-unknown}"
	sysctl_values | while read -r name value; do
		now=$(cat "$(proc_path "$name")" 2>/dev/null) || now=unknown
		[ "$now" = "$value" ] && note= || note=" (the policy says $value)"
		echo "  $name = $now$note"
	done
}
