# ---- main

wrong_usage() {
	say "$*"
	exit 2
}

# The watchdog of a change is a copy of this script.
if [ "${1:-}" = watch-change ]; then
	watch_change "${2:-}"
	exit
fi

command=
adopt=
seconds=
while [ $# -gt 0 ]; do
	case $1 in
	--adopt) adopt=yes ;;
	--confirm | --confirm=*)
		[ "$1" != --confirm ] || shift
		seconds=${1-}
		seconds=${seconds#--confirm=}
		case $seconds in
		'' | 0* | *[!0-9]* | ??????*) wrong_usage "--confirm takes a number of seconds, 1 to 86400" ;;
		esac
		[ "$seconds" -le 86400 ] || wrong_usage "--confirm takes a number of seconds, 1 to 86400"
		;;
	-h | --help) command=help ;;
	-*)
		say "unknown option $1"
		usage >&2
		exit 2
		;;
	*)
		[ -z "$command" ] || wrong_usage "one command at a time: $command or $1"
		command=$1
		;;
	esac
	[ $# = 0 ] || shift
done
command=${command:-apply}

case $command in
apply | boot-line) ;;
*) [ -z "$adopt" ] || wrong_usage "--adopt goes with apply and boot-line only" ;;
esac
[ -z "$seconds" ] || [ "$command" = apply ] || wrong_usage "--confirm goes with apply only"

case $command in
help) usage ;;
check | confirm | rollback | status | remove) "$command" ;;
apply) apply "$adopt" "$seconds" ;;
boot-line) boot_line "$adopt" ;;
sets) make_sets ;;
*)
	say "unknown command $command"
	usage >&2
	exit 2
	;;
esac
