"""Rules of somebody else, each with what it does to a host on which sipfw is applied.

`T` stands for iptables of the host's flavour. A rule that is inserted stands before sipfw's jump,
one that is appended behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a rule does to what the policy gives and takes."""

    # A trusted peer or an admin loses something, and nothing needs to be guessed.
    TAKES = "takes"
    # Strangers alone lose something.
    STRANGERS = "strangers"
    # It rests on something that no listing shows.
    UNSURE = "unsure"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Case:
    """One host: the shell commands that load the rules, and about what packets they are.

    `lost` names what no longer arrives: sip, answers, media, ssh.
    """

    name: str
    kind: Kind
    commands: str
    lost: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name


def takes(name: str, lost: str, commands: str) -> Case:
    return Case(name, Kind.TAKES, commands, frozenset(lost.split()))


def unsure(name: str, commands: str, lost: str = "") -> Case:
    return Case(name, Kind.UNSURE, commands, frozenset(lost.split()))


def harmless(name: str, commands: str) -> Case:
    return Case(name, Kind.NOTHING, commands)


# Without the answers nobody knows that a question arrived.
SIP = "sip answers"
UDP = "sip answers media"
ON_SIP = "-p udp --dport 5060"
MORE = "udp dport 53 drop"


def bad(kind: str, member: str, rule: str) -> str:
    """Return the commands for a rule that asks a set, as `-I INPUT` or `-A INPUT ... `."""
    made = f"ipset create bad {kind}; ipset add bad {member}"
    return f"{made}; T {rule.format(set='-m set', bad='--match-set bad src')} -j DROP"


IPTABLES = [
    takes("rejected before", SIP, f"T -I INPUT {ON_SIP} -j REJECT"),
    takes("dropped behind", SIP, f"T -A INPUT {ON_SIP} -j DROP"),
    takes("raw", SIP, f"T -t raw -I PREROUTING {ON_SIP} -j DROP"),
    takes("raw, behind", SIP, f"T -t raw -A PREROUTING {ON_SIP} -j DROP"),
    takes("mangle prerouting", SIP, f"T -t mangle -A PREROUTING {ON_SIP} -j DROP"),
    takes("mangle input", SIP, f"T -t mangle -A INPUT {ON_SIP} -j DROP"),
    takes("security", SIP, f"T -t security -A INPUT {ON_SIP} -j DROP"),
    takes("policy", f"{UDP} ssh", "T -P INPUT DROP"),
    takes("source", UDP, "T -A INPUT -s 203.0.113.0/24 -j DROP"),
    takes(
        "source range", UDP, "T -A INPUT -m iprange --src-range 203.0.113.9-203.0.113.11 -j DROP"
    ),
    takes("destination", UDP, "T -A INPUT -d 203.0.113.1 -p udp -j DROP"),
    takes("interface", UDP, "T -I INPUT -i carrier -p udp -j DROP"),
    takes("wildcard", UDP, "T -A INPUT -i car+ -p udp -j DROP"),
    takes("chain", SIP, f"T -N MORE; T -A MORE {ON_SIP} -j DROP; T -I INPUT -j MORE"),
    takes("goto", SIP, f"T -N MORE; T -A MORE {ON_SIP} -j REJECT; T -A INPUT -g MORE"),
    takes(
        "two chains",
        SIP,
        f"T -N A1; T -N A2; T -A A1 -j A2; T -A A2 {ON_SIP} -j DROP; T -A INPUT -j A1",
    ),
    takes(
        "two rules",
        SIP,
        f"T -I INPUT {ON_SIP} -j DROP; T -I INPUT -p udp --dport 5000:5100 -j DROP",
    ),
    takes("set", UDP, bad("hash:ip", "203.0.113.10", "-I INPUT {set} {bad}")),
    takes("set of networks", UDP, bad("hash:net", "203.0.113.0/25", "-A INPUT {set} {bad}")),
    takes("not in a set", f"{UDP} ssh", bad("hash:ip", "198.51.100.7", "-A INPUT {set} ! {bad}")),
    takes("local", SIP, f"T -A INPUT {ON_SIP} -m addrtype --dst-type LOCAL -j DROP"),
    takes("new", SIP, f"T -A INPUT {ON_SIP} -m conntrack --ctstate NEW -j DROP"),
    takes("all but", UDP, "T -A INPUT -p udp -m multiport ! --dports 53,123 -j DROP"),
    takes("media", "media", "T -A INPUT -p udp --dport 11000:13000 -j DROP"),
    takes("media, a part", "media", "T -A INPUT -p udp --dport 12000:12010 -j DROP"),
    takes("ssh", "ssh", "T -I INPUT -p tcp --dport 22 -j REJECT --reject-with tcp-reset"),
    takes("ssh of an admin", "ssh", "T -A INPUT -p tcp -s 192.0.2.100 --dport 22 -j DROP"),
    takes("syn", "ssh", "T -A INPUT -p tcp --syn -j DROP"),
    takes("output", "answers", "T -A OUTPUT -p udp --sport 5060 -j DROP"),
    takes("raw output", "answers", "T -t raw -A OUTPUT -d 203.0.113.0/24 -p udp -j DROP"),
    takes("postrouting", "answers", "T -t mangle -A POSTROUTING -o carrier -p udp -j DROP"),
    takes("redirect", SIP, f"T -t nat -A PREROUTING {ON_SIP} -j REDIRECT --to-ports 9999"),
    takes("dnat", SIP, f"T -t nat -A PREROUTING {ON_SIP} -j DNAT --to-destination 198.51.100.66"),
    Case(
        "returned for peers",
        Kind.STRANGERS,
        f"T -N MORE; T -A MORE -s 203.0.113.10 -j RETURN; T -A MORE {ON_SIP} -j DROP;"
        " T -I INPUT -j MORE",
    ),
    Case(
        "accepted for peers",
        Kind.STRANGERS,
        f"T -A INPUT -s 203.0.113.10 -j ACCEPT; T -A INPUT {ON_SIP} -j DROP",
    ),
    harmless("accepted behind", "T -A INPUT -j ACCEPT"),
    harmless("another port", "T -A INPUT -p udp --dport 53 -j DROP; T -A INPUT -p icmp -j DROP"),
    harmless("a blocked stranger", "T -I INPUT -s 198.51.100.0/24 -j DROP"),
    harmless("a set of strangers", bad("hash:net", "198.51.100.0/24", "-I INPUT {set} {bad}")),
    harmless("loopback", "T -I INPUT -i lo -p udp -j DROP"),
    harmless("other states", "T -A INPUT -m conntrack --ctstate INVALID -j DROP"),
    harmless("marked and logged", "T -t mangle -A PREROUTING -p udp -j MARK --set-mark 1"),
    harmless("not tracked", f"T -t raw -A PREROUTING {ON_SIP} -j CT --notrack"),
    harmless(
        "not tracked, so never new",
        f"T -t raw -A PREROUTING {ON_SIP} -j CT --notrack;"
        f" T -A INPUT {ON_SIP} -m conntrack --ctstate NEW -j DROP",
    ),
    harmless("another source port", "T -A INPUT -p udp --sport 53 --dport 53 -j DROP"),
    harmless("no way there", f"T -N MORE; T -A MORE {ON_SIP} -j DROP"),
    unsure("limit", f"T -A INPUT {ON_SIP} -m limit --limit 1/hour --limit-burst 1 -j DROP", SIP),
    unsure("quota", f"T -A INPUT {ON_SIP} -m quota --quota 9000 -j DROP", SIP),
    unsure(
        "time", f"T -A INPUT {ON_SIP} -m time --timestart 00:00 --timestop 23:59:59 -j DROP", SIP
    ),
    unsure("owner", "T -A OUTPUT -p udp --sport 5060 -m owner --uid-owner 0 -j DROP", "answers"),
    unsure("text", f"T -A INPUT {ON_SIP} -m string --algo bm --string nobody -j DROP"),
    harmless("mark", f"T -I INPUT {ON_SIP} -m mark --mark 7 -j DROP"),
    unsure(
        "above a rate",
        f"T -A INPUT {ON_SIP} -m hashlimit --hashlimit-above 9/s --hashlimit-name x -j DROP",
    ),
    unsure(
        "a set of ports",
        "ipset create bad hash:ip,port; T -A INPUT -m set --match-set bad src,dst -j DROP",
    ),
]


def hooked(
    hook: str, *rules: str, kind: str = "filter", more: str = "", family: str = "inet"
) -> str:
    """Return the command that loads a table with one base chain."""
    policy = "" if "policy" in hook else " policy accept;"
    lines = "; ".join(rules)
    chain = f"chain c {{ type {kind} hook {hook};{policy} {lines}; }};"
    return f"nft 'table {family} theirs {{ {more} {chain} }}'"


INPUT = "input priority 5"
DROP = "udp dport 5060 drop"
NFT = [
    takes("nft input", SIP, hooked(INPUT, DROP)),
    takes("nft before all", SIP, hooked("prerouting priority -450", DROP, family="ip")),
    takes("nft by name", SIP, hooked("prerouting priority mangle - 7", DROP)),
    takes("nft reject", SIP, hooked(INPUT, "udp dport 5060 reject")),
    takes(
        "nft policy", f"{UDP} ssh", hooked(f"{INPUT}; policy drop", "ct state established accept")
    ),
    takes("nft ingress", SIP, hooked('ingress device "carrier" priority 0', DROP, family="netdev")),
    takes("nft source", UDP, hooked(INPUT, "ip saddr 203.0.113.8-203.0.113.12 drop")),
    takes("nft destination", UDP, hooked(INPUT, "ip daddr 203.0.113.1 meta l4proto udp drop")),
    takes(
        "nft set",
        UDP,
        hooked(
            INPUT,
            "ip saddr @bad drop",
            more="set bad { type ipv4_addr; flags interval; elements = { 203.0.113.0/28 }; };",
        ),
    ),
    takes("nft map", SIP, hooked(INPUT, "udp dport vmap { 53 : accept, 5060 : drop }")),
    takes("nft marked first", SIP, hooked(INPUT, "udp dport 5060 meta mark set 1 counter drop")),
    takes("nft new", SIP, hooked(INPUT, "udp dport 5060 ct state new drop")),
    takes("nft ssh", "ssh", hooked(INPUT, "tcp dport 22 reject with tcp reset")),
    takes("nft media", "media", hooked(INPUT, "udp dport 12000-12999 drop")),
    takes("nft output", "answers", hooked("output priority 0", "udp sport 5060 drop")),
    takes(
        "nft postrouting",
        "answers",
        hooked("postrouting priority 0", 'oifname "carrier" udp sport 5060 drop'),
    ),
    takes(
        "nft redirect",
        SIP,
        hooked("prerouting priority -100", "udp dport 5060 redirect to :9999", kind="nat"),
    ),
    harmless("nft accepted first", hooked("input priority -10", "accept")),
    harmless(
        "nft another port", hooked(INPUT, "udp dport 53 drop", "udp sport 53 udp dport 53 drop")
    ),
    harmless("nft not tracked", hooked("prerouting priority -300", "udp dport 5060 notrack")),
    unsure(
        "nft limit", hooked(INPUT, "udp dport 5060 limit rate 1/hour burst 1 packets drop"), SIP
    ),
    unsure("nft quota", hooked(INPUT, "udp dport 5060 quota 9000 bytes drop"), SIP),
    harmless("nft mark", hooked(INPUT, "udp dport 5060 meta mark 0x7 drop")),
    unsure("nft length", hooked(INPUT, "udp dport 5060 meta length > 9000 drop")),
]


@dataclass(frozen=True, slots=True)
class Gift:
    """Rules that give strangers what the policy takes: an OPTIONS comes to `port`.

    `check` is the one of `doctor` that says it. Where it is not `everywhere`, what another table
    accepts does not keep a packet from a table of our own.
    """

    name: str
    port: int
    check: str
    commands: str
    everywhere: bool = False
    nft: bool = False

    def __str__(self) -> str:
        return self.name


GIFTS = [
    Gift("raw accepted", 5060, "live", "T -t raw -I PREROUTING -p udp -j ACCEPT"),
    Gift("returned", 5060, "live", "T -t raw -I PREROUTING -s 198.51.100.0/24 -j RETURN"),
    Gift("closed port", 7777, "live", "T -I INPUT -p udp --dport 7777 -j ACCEPT"),
    Gift(
        "redirect",
        7070,
        "port-moves",
        "T -t nat -A PREROUTING -p udp --dport 7070 -j REDIRECT --to-ports 5060",
        everywhere=True,
    ),
    Gift(
        "nft redirect",
        7070,
        "port-moves",
        hooked("prerouting priority -100", "udp dport 7070 redirect to :5060", kind="nat"),
        everywhere=True,
        nft=True,
    ),
]
