# ---- sets: built under a temporary name and swapped in, so that rules see the old or the new

# wanted_sets <static|dynamic>: without comments, and without family inet6 where there is no IPv6.
wanted_sets() {
	"$1_sets" | awk -v families="$families" '
	/^#/ { next }
	$1 == "create" && / family inet6 / && families == "4" { skip[$2] = 1 }
	!($2 in skip)'
}

# What a header means: the kernel grows hashsize, and invents initval and bucketsize.
set_headers() {
	awk '
	function meaning(from,    i, text) {
		for (i = from; i <= NF; i++) {
			if ($i == "hashsize" || $i == "bucketsize" || $i == "initval") i++
			else text = text " " $i
		}
		return text
	}
	$1 == "Name:" { name = $2 }
	$1 == "Type:" { type = $2 }
	$1 == "Header:" { print name, type meaning(2) }
	$1 == "create" { print $2, $3 meaning(4) }'
}

# Sets of ours in the kernel, one header per line.
look_sets() {
	: >"$tmp/sets"
	[ "$have_ipset" = yes ] || return 0
	if ! ipset list -t >"$tmp/sets.list" 2>"$tmp/error"; then
		[ -z "$(static_sets)$(dynamic_sets)" ] && return 0
		problem "ipset: $(sed -n 1p "$tmp/error") (is ip_set in this kernel?)"
		return 0
	fi
	set_headers <"$tmp/sets.list" | grep '^sipfw-' >"$tmp/sets" || :
}

# plan_sets: for each wanted set one of
#   new NAME, swap NAME (replace it), keep NAME (same kind: its elements stay), clash NAME
plan_sets() {
	for kind in static dynamic; do wanted_sets "$kind" | set_headers | sed "s/^/$kind /"; done |
		awk '
		FILENAME != "-" { type[$1] = $2; family[$1] = $4; header[$1] = $0; next }
		{ kind = $1; sub(/^[a-z]+ /, "") }
		!($1 in header) { print "new", $1; next }
		$2 != type[$1] || $4 != family[$1] { print "clash", $1; next }
		kind == "dynamic" && $0 == header[$1] { print "keep", $1; next }
		{ print "swap", $1 }' "$tmp/sets" - >"$tmp/sets.plan"
}

save_sets() {
	while read -r name rest; do
		ipset save "$name" </dev/null || return 1
	done <"$tmp/sets"
}

# renamed <list>: of `ipset restore` text on stdin, the sets in the list, under temporary names;
# at most 31 characters fit.
renamed() {
	awk '
	FILENAME != "-" { chosen[$1] = 1; next }
	$2 in chosen { $2 = substr($2, 1, 29) "-n"; print }' "$1" -
}

# What a dynamic set of another size or timeout learned, as far as it fits the new one.
carried() {
	awk '
	FILENAME != "-" { for (i = 4; i < NF; i++) { if ($i == "maxelem") room[$1] = $(i + 1); if ($i == "timeout") longest[$1] = $(i + 1) } next }
	$1 == "add" && $2 in room && room[$2]-- > 0 {
		line = $1 " " $2 " " $3
		for (i = 4; i < NF; i++) if ($i == "timeout" && $2 in longest)
			line = line " timeout " ($(i + 1) < longest[$2] + 0 ? $(i + 1) : longest[$2])
		print line
	}' "$1" -
}

# Build what is new and every replacement. On failure nothing that rules use has changed.
build_sets() {
	awk '$1 == "swap" { print $2 }' "$tmp/sets.plan" >"$tmp/sets.swap"
	awk '$1 == "new" { print $2 }' "$tmp/sets.plan" >"$tmp/sets.new"
	wanted_sets dynamic | set_headers | awk 'FILENAME != "-" { swap[$1] = 1; next } $1 in swap' \
		"$tmp/sets.swap" - >"$tmp/sets.resized"
	{
		destroy_lines "$tmp/sets.swap"
		for kind in static dynamic; do
			wanted_sets "$kind" | awk 'FILENAME != "-" { new[$1] = 1; next } $2 in new' "$tmp/sets.new" -
			wanted_sets "$kind" | renamed "$tmp/sets.swap"
		done
		carried "$tmp/sets.resized" <"$tmp/previous.ipset" | renamed "$tmp/sets.swap"
	} >"$tmp/sets.build"
	ipset_restore "$tmp/sets.build" && return 0
	while read -r name; do ipset destroy "$name" 2>/dev/null; done <"$tmp/sets.new"
	drop_temporary
	return 1
}

# A run that was killed may have left temporary sets.
destroy_lines() {
	awk 'FILENAME == ARGV[1] { live[$1] = 1; next }
	{ name = substr($1, 1, 29) "-n"; if (name in live) print "destroy " name }' "$tmp/sets" "$1"
}

drop_temporary() {
	while read -r name; do
		ipset destroy "$(printf '%.29s' "$name")-n" 2>/dev/null
	done <"$tmp/sets.swap"
}

# For a boot: one missing set, and iptables-restore loads nothing of a saved file that names it,
# not the rules of others either. What is there stays as it is.
make_sets() {
	begin
	if [ -e /proc/net/if_inet6 ]; then families='4 6'; fi
	one_at_a_time
	look_sets
	[ "$problems" = 0 ] || give_up "nothing was changed"
	plan_sets
	grep '^new ' "$tmp/sets.plan" >"$tmp/sets.missing" || :
	mv "$tmp/sets.missing" "$tmp/sets.plan"
	: >"$tmp/previous.ipset"
	build_sets || give_up "the sets cannot be made"
	say "made $(awk 'END { print NR }' "$tmp/sets.plan") sets"
}

# name_saved_files: where a program saved our rules with those of the host.
name_saved_files() {
	for file in /etc/iptables/rules.v4 /etc/iptables/rules.v6 /etc/sysconfig/iptables \
		/etc/sysconfig/ip6tables /etc/iptables.rules /etc/iptables.up.rules; do
		file=${SIPFW_ROOT:-}$file
		if [ ! -f "$file" ] || ! grep -q -e '-set sipfw-' "$file" 2>/dev/null; then continue; fi
		say "$file holds rules of this firewall, and none of it loads without their sets;"
		say "    whatever loads it at boot must run this before: sh $state/firewall.sh sets"
	done
}

swap_sets() {
	awk '{ new = substr($1, 1, 29) "-n"; print "swap " new " " $1; print "destroy " new }' \
		"$tmp/sets.swap" >"$tmp/sets.swapping"
	ipset_restore "$tmp/sets.swapping"
}

ipset_restore() {
	[ -s "$1" ] || return 0
	ipset restore <"$1" 2>"$tmp/error" && return 0
	explain "ipset restore" "$1"
	return 1
}

# Sets of before that an apply, or somebody since, has destroyed: old rules need them.
make_lost_sets() {
	look_sets
	awk 'FILENAME != "-" { live[$1] = 1; next } !($2 in live)' \
		"$tmp/sets" - <"$tmp/previous.ipset" >"$tmp/sets.build"
	ipset_restore "$tmp/sets.build"
}

# The way back, when the rules that use the new sets are gone. A set that the apply left alone
# stays alone, with what it has learned since.
undo_sets() {
	awk '$1 == "swap" { print $2 }' "$tmp/sets.plan" >"$tmp/sets.swap"
	drop_temporary
	renamed "$tmp/sets.swap" <"$tmp/previous.ipset" >"$tmp/sets.build"
	ipset_restore "$tmp/sets.build" && swap_sets || return 1
	look_sets
	awk 'FILENAME != "-" { live[$1] = 1; next } $1 == "new" && $2 in live { print $2 }' \
		"$tmp/sets" - <"$tmp/sets.plan" >"$tmp/sets.new"
	while read -r name; do
		ipset destroy "$name" 2>"$tmp/error" || { explain "ipset" /dev/null; return 1; }
	done <"$tmp/sets.new"
}

# destroy_sets [<headers of the sets to keep>]
destroy_sets() {
	look_sets
	awk 'FILENAME == ARGV[1] { keep[$1] = 1; next } !($1 in keep) { print $1 }' \
		"${1:-/dev/null}" "$tmp/sets" >"$tmp/sets.obsolete"
	while read -r name; do
		ipset destroy "$name" 2>"$tmp/error" || problem "$(sed -n 1p "$tmp/error"): set $name stays"
	done <"$tmp/sets.obsolete"
}
