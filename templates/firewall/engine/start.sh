# ---- start: usage, settings, and how it speaks

usage() {
	cat <<'USAGE'
usage: firewall.sh [check | apply [--adopt] [--confirm SECONDS] | confirm | rollback |
                    status | remove | boot-line [--adopt] | sets | help]

  check      say whether this host can take the firewall; changes nothing
  apply      load it, all or nothing (the default); a second run changes nothing
             more
  confirm    keep what was applied with --confirm
  rollback   go back at once to what was there before an apply --confirm
  status     counters, sets and differences; changes nothing
  remove     take away everything of ours and nothing else
  boot-line  print the line for /etc/rc.local, for hosts without systemd; it loads
             at boot what was applied or confirmed last
  sets       make the missing sets and nothing else; run it at boot before a program
             loads saved rules that name them (iptables-persistent, iptables.service)

  --adopt  also replace chains of the same names that were not made by sipfw,
           and remove the rules that jump to them
  --confirm SECONDS
           put the firewall of before back after so long, unless you run
           firewall.sh confirm; it comes back even if your session is cut off
           or the script is killed

environment:
  IPTABLES, IP6TABLES   commands to use, e.g. IPTABLES=iptables-legacy; their
                        -save and -restore siblings must exist
  SIPFW_ROOT            prefix of all files written (default: none)

exit status:
  0  done, or clean
  1  status found a difference; confirm or rollback found nothing to do
  2  wrong usage
  4  this host cannot take it as it is; nothing was changed
  5  loading failed; the previous firewall is back
  6  loading failed and so did going back; the message says where the copy is
USAGE
}

# No `set -e`: every failure below has an answer of its own, and a message that cannot be
# printed (the terminal died with the SSH session) must not stop a load halfway.
set -u
umask 077
# iptables' and awk's output is read below, so it must not be translated.
LC_ALL=C
export LC_ALL
# cron starts with /usr/bin:/bin, where no iptables is.
case $PATH in
*sbin*) ;;
*) PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin ;;
esac

state=${SIPFW_ROOT:-}/var/lib/sipfw/script
sysctl_file=${SIPFW_ROOT:-}/etc/sysctl.d/60-sipfw.conf
problems=0
locked=

say() {
	printf 'firewall.sh: %s\n' "$*" >&2 || :
}

problem() {
	say "$*"
	problems=$((problems + 1))
}

give_up() {
	say "$*"
	exit 4
}
