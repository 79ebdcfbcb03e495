# ---- going back: what an apply did is undone, and only that

go_back() {
	if bring_back; then
		close_change
		say "loading failed; the previous firewall is back"
		exit 5
	fi
	say "loading failed, and so did going back; the previous state is in $state/previous.*"
	exit 6
}

# From save*, labels*.before, load*, previous.ipset and sets.plan in $tmp. It may start anywhere in
# an apply that was cut off, and again after it failed.
bring_back() {
	back=yes
	make_lost_sets || back=no
	for family in $families; do
		put_back "$family" || back=no
	done
	undo_sets || back=no
	[ "$back" = yes ]
}

# Rules of others are not written again, because a full restore would set their counters back and,
# in the nf_tables flavour, replace rules made with nft by what iptables takes them for.
put_back() {
	save "$1" >"$tmp/now" || return 1
	changed_tables "$1" >"$tmp/changed"
	[ -s "$tmp/changed" ] || return 0
	facts <"$tmp/now" | awk 'FILENAME != "-" { changed[$1] = 1; next } $2 in changed' \
		"$tmp/changed" - >"$tmp/have$1"
	before "$1" >"$tmp/rules"
	facts <"$tmp/rules" >"$tmp/want$1"
	labels "$tmp/want$1" "$tmp/have$1" | made_by_load "$1" >"$tmp/labels$1"
	merge apply "$1" "$tmp/rules" >"$tmp/back"
	if ! restore "$1" -c --noflush <"$tmp/back"; then
		explain "going back" "$tmp/back"
		return 1
	fi
	save "$1" >"$tmp/now" && [ -z "$(changed_tables "$1")" ]
}

# Tables where our chains, those that we replaced or the rules that we took away elsewhere are not
# as they were. The order of chains means nothing, and others may have changed theirs since.
changed_tables() {
	awk '
	side == "labels" { if ($3 != "other") ours[$1, $2] = 1; next }
	/^\*/ { table = substr($1, 2) }
	side == "load" && /^:/ { ours[table, substr($1, 2)] = 1 }
	side == "load" && $1 == "-D" { sub(/^-D/, "-A"); deleted[table, $0] = 1 }
	side == "load" { next }
	{ sub(/\[[0-9]+:[0-9]+\] ?/, "") }
	/^:/ || /^-A / {
		chain = ($1 == "-A") ? $2 : substr($1, 2)
		if (!((table, chain) in ours) && !((table, $0) in deleted) && !/ --comment "?sipfw:/) next
		rules[side, table, chain] = rules[side, table, chain] $0 "\n"
		if (!seen[table, chain]++) { t[++n] = table; c[n] = chain }
	}
	END {
		for (i = 1; i <= n; i++)
			if (rules["before", t[i], c[i]] != rules["now", t[i], c[i]] && !told[t[i]]++) print t[i]
	}' side=labels "$tmp/labels$1.before" side=load "$tmp/load$1" side=before "$tmp/save$1" side=now "$tmp/now"
}

# before <family>: of the changed tables, our chains and those that we replaced, as they were, and
# the rules that we took away elsewhere: each behind the rule of others that it stood behind.
before() {
	awk '
	function behind(t, c, k) {
		for (; k > 0; k--) if ((t, c, was[t, c, k]) in at) return at[t, c, was[t, c, k]]
		return 0
	}
	side == "changed" { changed[$1] = 1; next }
	side == "labels" { if ($3 != "other") ours[$1, $2] = 1; next }
	/^\*/ { table = substr($1, 2) }
	side == "load" {
		if (/^:/) made[table, substr($1, 2)] = 1
		if ($1 == "-D") { sub(/^-D/, "-A"); deleted[table, $0]++ }
		next
	}
	side == "now" {
		if ($1 != "R" || $4 != "-" || (($2, $5) in made && !(($2, $5) in ours))) next
		t = $2; c = $3
		sub(/^R [^ ]+ [^ ]+ [^ ]+ [^ ]+ /, "")
		there[t, $0]++
		at[t, c, $0 SUBSEP (++times["now", t, c, $0])] = ++size[t, c]
		next
	}
	!(table in changed) { next }
	/^\*/ { print; later = "" }
	/^:/ && (table, substr($1, 2)) in ours { print $1, $2, "[0:0]" }
	/^\[/ {
		if ((table, $3) in ours) { print; next }
		c = $3; rule = $0; sub(/^\[[0-9]+:[0-9]+\] /, "", rule)
		if (rule ~ / --comment "?sipfw:/ || ((table, rule) in deleted && there[table, rule]-- <= 0)) {
			sub(/^-A [^ ]+/, "", rule)
			later = later $1 " -I " c " " behind(table, c, others[table, c]) + ++own[table, c] rule "\n"
			next
		}
		was[table, c, ++others[table, c]] = rule SUBSEP (++times["was", table, c, rule])
	}
	/^COMMIT/ { printf "%s", later; print }
	' side=changed "$tmp/changed" side=labels "$tmp/labels$1.before" side=load "$tmp/load$1" \
		side=now "$tmp/have$1" side=save "$tmp/save$1"
}

# made_by_load <family>, labels on stdin: a chain that the load made goes away even if it is empty
# or others have put rules into it.
made_by_load() {
	awk '
	side == "load" { if (/^\*/) table = substr($1, 2); if (/^:/) made[table, substr($1, 2)] = 1; next }
	side == "before" { there[$1, $2] = 1; next }
	$3 == "other" && ($1, $2) in made && !(($1, $2) in there) { $3 = "mixed" }
	{ print }' side=load "$tmp/load$1" side=before "$tmp/labels$1.before" side=labels -
}
