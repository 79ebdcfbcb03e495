# ---- the host: tools, flavour of iptables, IPv6

cleanup() {
	[ -z "$probing" ] || probe_live_end
	let_go
	rm -rf "$tmp"
}

begin() {
	begin_in "${TMPDIR:-/tmp}"
	end_on_signals
	find_tools
	find_flavour
}

# begin_in <folder for a temporary directory>
begin_in() {
	[ "$(id -u)" = 0 ] || give_up "not root: netfilter can be seen and changed by root only"
	command -v mktemp >/dev/null 2>&1 || give_up "mktemp not found in PATH=$PATH"
	probing=
	held=
	change=
	tmp=$(mktemp -d "$1/sipfw.XXXXXX") || give_up "cannot make a temporary directory"
	trap cleanup EXIT
}

# A shell that dies from a signal skips the EXIT trap; exiting by ourselves runs it.
end_on_signals() {
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 131' QUIT
	trap 'exit 143' TERM
	trap 'exit 141' PIPE
	trap - TSTP
}

find_tools() {
	IPTABLES=${IPTABLES:-iptables}
	# The sibling of the chosen command: both families must go to the same kernel interface.
	: "${IP6TABLES:=$(printf '%s\n' "$IPTABLES" | sed 's/iptables\([^/]*\)$/ip6tables\1/')}"
	for tool in awk sed grep sort "$IPTABLES" "$IPTABLES-save" "$IPTABLES-restore"; do
		command -v "$tool" >/dev/null 2>&1 || problem "$tool: not found in PATH=$PATH"
	done
	# A program that is there but does not run would make every comparison below come out empty.
	if [ "$(echo 'a b' | awk '{ print $2 }' | sed 's/b/c/' | sort | grep c)" != c ]; then
		problem "one of awk, sed, sort and grep does not work"
	fi
	have_ipset=yes
	command -v ipset >/dev/null 2>&1 || have_ipset=no
	if [ "$have_ipset" = no ] && [ -n "$(static_sets)$(dynamic_sets)" ]; then
		problem "ipset: not found in PATH=$PATH; install it, or render with --no-ipset"
	fi
	[ "$problems" = 0 ] || give_up "nothing was changed"
	# iptables-restore of CentOS 7's first releases (1.4.21) takes neither lock nor -w; legacy 1.8
	# without -w waits for ever. The nf_tables flavour needs no lock.
	restore_wait=
	if "$IPTABLES-restore" --help 2>&1 | grep -q -e --wait; then restore_wait=10; fi
	list_wait=
	if "$IPTABLES" --help 2>&1 | grep -q -e '--wait.*\[.*seconds'; then list_wait=10; fi
}

flavour_of() {
	case $("$1" -V 2>/dev/null) in
	*nf_tables*) echo nft ;;
	*) echo legacy ;;
	esac
}

find_flavour() {
	flavour=$(flavour_of "$IPTABLES")
	other=legacy
	[ "$flavour" = legacy ] && other=nft
	families=4
	command -v "$IP6TABLES" >/dev/null 2>&1 || return 0
	[ "$(flavour_of "$IP6TABLES")" = "$flavour" ] ||
		give_up "$IPTABLES is $flavour but $IP6TABLES is not; set IPTABLES and IP6TABLES to one flavour"
}

# The kernel runs rules of both flavours, but each tool shows its own only: rules split over both
# are a firewall that nobody sees whole.
refuse_split() {
	[ -n "$(command -v iptables-nft)$(command -v iptables-legacy)" ] || return 0
	for program in iptables ip6tables; do
		command -v "$program-$other-save" >/dev/null 2>&1 || continue
		count=$("$program-$other-save" 2>/dev/null |
			awk '/^-A / || (/^:/ && $2 != "ACCEPT") { n++ } END { print n + 0 }')
		[ "$count" = 0 ] && continue
		problem "$IPTABLES is the $flavour flavour, but $program-$other-save shows $count rules and chains"
		say "    both are in force at once; look with: $IPTABLES-save; $program-$other-save"
		say "    keep to one: IPTABLES=iptables-$other firewall.sh apply, or empty the other side first"
	done
}

# Run something in a network namespace that ends with it; with a lock file of its own, because
# the real one is shared by all namespaces.
in_scratch() {
	XTABLES_LOCKFILE=$tmp/xtables.lock unshare -n "$@"
}

can_scratch() {
	command -v unshare >/dev/null 2>&1 && in_scratch true 2>/dev/null
}

ipv6_trouble() {
	for tool in "$IP6TABLES" "$IP6TABLES-save" "$IP6TABLES-restore"; do
		if ! command -v "$tool" >/dev/null 2>&1; then
			echo "$tool is not installed"
			return
		fi
	done
	# Listing makes the table if it is not there yet, so rather do it elsewhere.
	if can_scratch; then
		in_scratch "$IP6TABLES" -n -L INPUT >/dev/null 2>"$tmp/error" && return
	else
		"$IP6TABLES" ${list_wait:+-w "$list_wait"} -n -L INPUT >/dev/null 2>"$tmp/error" && return
	fi
	echo "$IP6TABLES cannot list its rules ($(sed -n 1p "$tmp/error"))"
}

find_ipv6() {
	trouble=$(ipv6_trouble)
	if [ -z "$trouble" ]; then
		families='4 6'
		return
	fi
	interfaces=$(awk '$6 != "lo" { print $6 }' /proc/net/if_inet6 2>/dev/null | sort -u | tr '\n' ' ')
	if [ -n "$interfaces" ]; then
		problem "$trouble, but there are IPv6 addresses on: $interfaces"
		say "    the host would be open over IPv6; install ip6tables or disable IPv6 there"
	else
		say "$trouble; no interface has an IPv6 address, so IPv4 only"
	fi
}

save() {
	case $1 in
	4) "$IPTABLES-save" -c ;;
	6) "$IP6TABLES-save" -c ;;
	esac 2>"$tmp/error"
}

# restore <family> <options...>, text on stdin
restore() {
	case $1 in
	4) restorer=$IPTABLES-restore ;;
	*) restorer=$IP6TABLES-restore ;;
	esac
	shift
	"$restorer" ${restore_wait:+-w "$restore_wait"} "$@" 2>"$tmp/error"
}

# Say what a tool complained about, with the line of the input that it names.
explain() {
	if grep -q 'xtables lock' "$tmp/error"; then
		say "$1: another program holds the xtables lock (waited ${restore_wait:-0} s); try again later"
		return
	fi
	[ -s "$tmp/error" ] || say "$1: refused without a reason"
	while read -r line; do say "$1: $line"; done <"$tmp/error"
	number=$(sed -n 's/.*line:\{0,1\} \([0-9][0-9]*\).*/\1/p' "$tmp/error" | sed -n 1p)
	[ -z "$number" ] || say "    line $number: $(sed -n "${number}p" "$2")"
}
