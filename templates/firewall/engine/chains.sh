# ---- chains: which are ours, and what has to be done about the others

rules() {
	case $1 in
	4) rules4 ;;
	6) rules6 ;;
	esac
}

# facts: a listing of iptables-save, or our own rules, as one line per chain and rule:
#   C <table> <chain> <builtin|user>
#   R <table> <chain> <our comment or -> <target or -> <rule as printed>
#   J ...                                             the same for an -I line of ours
facts() {
	awk '
	{ sub(/^\[[0-9]+:[0-9]+\] /, "") }
	/^\*/ { table = substr($1, 2) }
	/^:/ { print "C", table, substr($1, 2), ($2 == "-" ? "user" : "builtin") }
	/^-[AI] / {
		# A quoted text may contain what looks like an option.
		plain = $0
		gsub(/"([^"\\]|\\.)*"/, "\"\"", plain)
		target = mark = "-"
		if (match(plain, / -[jg] [^ ]+/)) target = substr(plain, RSTART + 4, RLENGTH - 4)
		# Quoted or not depends on the version.
		if (match($0, / --comment "sipfw:[^" ]+"/)) mark = substr($0, RSTART + 12, RLENGTH - 13)
		else if (match(plain, / --comment sipfw:[^ ]+/)) mark = substr(plain, RSTART + 11, RLENGTH - 11)
		print ($1 == "-I" ? "J" : "R"), table, $2, mark, target, $0
	}'
}

# labels <our facts> <facts of the kernel>: every user chain where we could have one, as
#   ours      in this script: every rule carries our mark, or it is empty
#   obsolete  every rule carries our mark, but this script has no such chain
#   foreign   one of our names, in any table, without a rule of ours
#   mixed     one of our names, with rules of ours and of others
#   other     none of our business
labels() {
	awk '
	side == "want" {
		if ($1 == "C" && $4 == "user") { ours[$2, $3] = 1; named[$3] = 1 }
		next
	}
	$2 != "raw" && $2 != "mangle" && $2 != "filter" { next }
	$1 == "C" && $4 == "user" { table[++n] = $2; chain[n] = $3 }
	$1 == "R" { rules[$2, $3]++; if ($4 != "-") marked[$2, $3]++ }
	END {
		for (i = 1; i <= n; i++) {
			t = table[i]; c = chain[i]
			total = rules[t, c] + 0; good = marked[t, c] + 0
			label = "other"
			if (total == good && (t, c) in ours) label = "ours"
			else if (total == good && total) label = "obsolete"
			else if (total && c in named) label = good ? "mixed" : "foreign"
			print t, c, label
		}
	}' side=want "$1" side=have "$2"
}

# Look at the kernel: save4 have4 labels4 and want4 in $tmp, for each family.
look() {
	for family in $families; do
		rules "$family" | facts >"$tmp/want$family"
		save "$family" >"$tmp/save$family" || give_up "cannot list the IPv$family rules: $(sed -n 1p "$tmp/error")"
		if grep "incompatible, use 'nft'" "$tmp/save$family" >&2; then
			give_up "an IPv$family table holds rules made with nft, which iptables can neither show nor restore"
		fi
		facts <"$tmp/save$family" >"$tmp/have$family"
		labels "$tmp/want$family" "$tmp/have$family" >"$tmp/labels$family"
	done
}

# conflicts <family>: rules of others that loading would destroy.
conflicts() {
	awk '
	side == "labels" { label[$1, $2] = $3; next }
	$1 != "R" || $4 != "-" { next }
	label[$2, $3] == "foreign" || label[$2, $3] == "mixed" {
		if (!seen[$2, $3]++) printf "table %s, chain %s has rules that are not ours:\n", $2, $3
		if (++shown[$2, $3] == 4) print "    ..."
		if (shown[$2, $3] > 3) next
		line = $0; sub(/^R [^ ]+ [^ ]+ [^ ]+ [^ ]+ /, "", line); print "    " line
		next
	}
	label[$2, $5] == "obsolete" {
		printf "table %s, chain %s jumps to our old chain %s\n", $2, $3, $5
	}' side=labels "$tmp/labels$1" side=have "$tmp/have$1"
}

# merge <apply|remove> <family> <rules>: the text for ONE run of iptables-restore --noflush.
# There, `:CHAIN -` makes a chain or empties ours; rules of others are only named to delete those
# that jump to chains which go away.
merge() {
	awk -v mode="$1" '
	function edit(t,    i) {
		for (i = 1; i <= deletions; i++) if (at[i] == t) print deletion[i]
		# Chains that go away may jump to each other: empty all of them first.
		for (i = 1; i <= n; i++) if (table[i] == t && gone[t, chain[i]]) print "-F " chain[i]
		for (i = 1; i <= n; i++) if (table[i] == t && gone[t, chain[i]]) print "-X " chain[i]
		edited[t] = 1
	}
	side == "labels" {
		table[++n] = $1; chain[n] = $2
		taken = $3 == "mixed" || ($3 == "foreign" && mode == "apply")
		lost[$1, $2] = taken
		stays = (mode == "apply" && ($1, $2) in ours)
		empty[$1, $2] = stays && (taken || $3 == "ours")
		gone[$1, $2] = !stays && (taken || $3 == "obsolete" || $3 == "ours")
		if (gone[$1, $2]) todo[$1] = 1
		next
	}
	side == "want" {
		if ($1 == "C") ours[$2, $3] = 1
		if ($1 == "J") jump[$2, $3, $4] = 1
		next
	}
	side == "have" {
		if ($1 != "R" || gone[$2, $3] || empty[$2, $3]) next
		if ($2 != "raw" && $2 != "mangle" && $2 != "filter") next
		if ($4 == "-") { if (!gone[$2, $5] && !lost[$2, $5]) next }
		else if (mode == "apply" && ($2, $3, $4) in jump && !kept[$2, $3, $4]++) next
		line = $0; sub(/^R [^ ]+ [^ ]+ [^ ]+ [^ ]+ -A/, "-D", line)
		at[++deletions] = $2; deletion[deletions] = line; todo[$2] = 1
		next
	}
	/^\*/ { now = substr($1, 2); print; next }
	!/^:/ && !edited[now] { edit(now) }
	/^(\[[0-9]+:[0-9]+\] )?-I / {
		hook = ($1 == "-I") ? $2 : $3
		if (match($0, / --comment "?sipfw:[^" ]+/)) {
			mark = substr($0, RSTART, RLENGTH)
			if (kept[now, hook, substr(mark, index(mark, "sipfw:"))]) next
		}
	}
	{ print }
	END {
		split("raw mangle filter", all, " ")
		for (k = 1; k <= 3; k++) if (todo[all[k]] && !edited[all[k]]) {
			print "*" all[k]; edit(all[k]); print "COMMIT"
		}
	}' side=want "$tmp/want$2" side=labels "$tmp/labels$2" side=have "$tmp/have$2" side=rules "$3"
}

# differences <family> <facts of the kernel>: compare the order of our comments, chain by chain.
differences() {
	awk '
	side == "want" {
		if ($1 == "C") { table[++n] = $2; chain[n] = $3 }
		if ($1 == "R") want[$2, $3, ++wanted[$2, $3]] = $4
		if ($1 == "J") { jt[++jumps] = $2; jc[jumps] = $3; jm[jumps] = $4 }
		next
	}
	$1 == "C" { there[$2, $3] = 1 }
	$1 == "R" { have[$2, $3, ++total[$2, $3]] = $4; if ($4 != "-") count[$2, $3, $4]++ }
	END {
		for (i = 1; i <= jumps; i++) {
			times = count[jt[i], jc[i], jm[i]] + 0
			if (times != 1) printf "table %s: the jump from %s is there %d times\n", jt[i], jc[i], times
		}
		for (i = 1; i <= n; i++) {
			t = table[i]; c = chain[i]
			if (!((t, c) in there)) { printf "table %s: chain %s is missing\n", t, c; continue }
			for (r = 1; r <= wanted[t, c] || r <= total[t, c]; r++) {
				expected = r <= wanted[t, c] ? want[t, c, r] : "no rule"
				found = r <= total[t, c] ? have[t, c, r] : "no rule"
				if (found == "-") found = "a rule without our mark"
				if (expected == found) continue
				printf "table %s: chain %s differs at rule %d: %s instead of %s\n", t, c, r, found, expected
				break
			}
		}
	}' side=want "$tmp/want$1" side=have "$2"
}
