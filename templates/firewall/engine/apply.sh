# ---- apply

# apply <adopt|> <seconds until the old firewall comes back|>
apply() {
	begin
	refuse_pending
	[ -z "$2" ] || require_watchable
	survey "$1"
	one_at_a_time
	refuse_pending
	# The checks take a moment; what follows must start from what is there now.
	look
	look_sets
	if [ -z "$1" ]; then refuse_conflicts; fi
	[ "$problems" = 0 ] || give_up "nothing was changed"
	plan_sets
	plan_rules
	see_it_through
	remember || give_up "cannot write to $state; nothing was changed"
	[ -z "$2" ] || arm "$2" || give_up "no watchdog could be started; nothing was changed"
	if ! build_sets; then
		[ -z "$2" ] || close_change
		give_up "the sets cannot be made; nothing was changed"
	fi
	if ! swap_sets || ! load_rules; then
		go_back
	fi
	wanted_sets static | set_headers >"$tmp/sets.keep"
	wanted_sets dynamic | set_headers >>"$tmp/sets.keep"
	destroy_sets "$tmp/sets.keep"
	set_sysctls
	if [ -n "$2" ]; then
		await_confirmation "$2"
	else
		sysctls >"$tmp/sysctl.conf"
		keep "$0" "$tmp/sysctl.conf"
	fi
	let_go
	end_on_signals
	[ -z "$(static_sets)$(dynamic_sets)" ] || name_saved_files
	say "loaded; see it with: firewall.sh status"
	[ -z "$2" ] || say "in $2 s the firewall of before comes back, unless you run: firewall.sh confirm"
}

one_at_a_time() {
	locked=yes
	if ! mkdir -p "$state" || ! chmod 700 "$state"; then give_up "cannot make $state"; fi
	command -v flock >/dev/null 2>&1 || return 0
	exec 9>"$state/lock"
	flock -n 9 || give_up "another firewall.sh is at work (it holds $state/lock)"
}

# A dying SSH session must not leave a change half done; PIPE is for `| tee`. A session that hangs,
# or a terminal after Ctrl-S, would stop us at the next message: those wait for let_go.
see_it_through() {
	trap '' HUP INT QUIT TERM PIPE TSTP
	exec 8>&2 2>"$tmp/messages"
	held=yes
}

# The lock goes first: from here on the terminal may keep us waiting.
let_go() {
	[ -n "$held" ] || return 0
	held=
	exec 2>&8 8>&- 9>&-
	cat "$tmp/messages" >&2
}

# The state before, on disk: for us if loading fails, for the operator if we get killed.
remember() {
	save_sets >"$tmp/previous.ipset" || return 1
	install_file 600 "$state/previous.ipset" <"$tmp/previous.ipset" || return 1
	for family in $families; do
		install_file 600 "$state/previous.v$family" <"$tmp/save$family" || return 1
		conflicts "$family" >"$tmp/conflicts"
		[ -s "$tmp/conflicts" ] || continue
		# The next run overwrites previous.*; what somebody wrote by hand must outlive that.
		install_file 600 "$state/adopted.v$family" <"$tmp/save$family" || return 1
		say "the IPv$family rules as they were are kept in $state/adopted.v$family"
	done
}

# What load_rules will load; going back starts from the same files.
plan_rules() {
	for family in $families; do
		rules "$family" >"$tmp/rules"
		cp "$tmp/labels$family" "$tmp/labels$family.before"
		merge apply "$family" "$tmp/rules" >"$tmp/load$family"
	done
}

load_rules() {
	for family in $families; do
		if ! restore "$family" --noflush <"$tmp/load$family"; then
			explain "IPv$family" "$tmp/load$family"
			return 1
		fi
	done
	# A restore that reports success but left something out has been seen.
	for family in $families; do
		save "$family" | facts >"$tmp/now"
		differences "$family" "$tmp/now" >"$tmp/differences"
		[ -s "$tmp/differences" ] || continue
		while read -r line; do say "IPv$family, read back: $line"; done <"$tmp/differences"
		return 1
	done
}
