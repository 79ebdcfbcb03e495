"""A scratch namespace with the iptables backend in it, and the plans that its tests apply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.legacy import IptablesBackend
from sipfw.lower.xtables import (
    Family,
    XChain,
    XJump,
    XMatch,
    XParam,
    XPlan,
    XRule,
    XSet,
    XTable,
    XTarget,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scratch_namespace import NamespaceRunner, Trouble

GUIDE_SCRIPT = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:SIP_TRUSTED - [0:0]
:SIP_SCANNER_BLOCK - [0:0]
:SIP_RATE_LIMIT - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p udp -m udp --dport 5060 -j SIP_TRUSTED
-A INPUT -p udp -m udp --dport 5060 -j SIP_SCANNER_BLOCK
-A INPUT -p udp -m udp --dport 5060 -g SIP_RATE_LIMIT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -j DROP
-A SIP_TRUSTED -s 203.0.113.10/32 -j ACCEPT
-A SIP_SCANNER_BLOCK -m string --string "friendly-scanner" --algo bm --to 65535 -j DROP
-A SIP_SCANNER_BLOCK -m string --string "OPTIONS sip:" --algo bm --to 65535 -j DROP
-A SIP_RATE_LIMIT -m recent --set --name SIP --mask 255.255.255.255 --rsource
-A SIP_RATE_LIMIT -m recent --update --seconds 60 --hitcount 20 --name SIP --rsource -j DROP
-A SIP_RATE_LIMIT -p udp -m udp --dport 5060 -j ACCEPT
COMMIT
"""

FOREIGN = """\
*raw
:PREROUTING ACCEPT [11:1111]
:OUTPUT ACCEPT [12:1212]
:ADMIN - [0:0]
[1:101] -A PREROUTING -s 198.51.100.1/32 -j ADMIN
[2:202] -A PREROUTING -p udp -m udp --dport 9 -m comment --comment "it\\'s a \\"test\\"" -j DROP
[3:303] -A ADMIN -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [5:55]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
[7:707] -A FORWARD -j DOCKER-USER
[8:808] -A DOCKER-USER -m addrtype --dst-type LOCAL -j RETURN
COMMIT
"""


@dataclass
class Bench:
    """The namespace with a backend in it, and the few questions that tests ask."""

    run: NamespaceRunner
    backend: IptablesBackend

    def saved(self, family: Family = Family.IP, *, counters: bool = True) -> list[str]:
        program = "iptables-legacy-save" if family is Family.IP else "ip6tables-legacy-save"
        text = self.run.ok(program, *(["-c"] if counters else []))
        return [line for line in text.splitlines() if not line.startswith("#")]

    def state(self) -> tuple[list[str], list[str], list[str]]:
        return self.saved(), self.saved(Family.IP6), self.set_lines()

    def set_lines(self) -> list[str]:
        # initval is a hash seed that every creation draws anew.
        lines = self.run.ok("ipset", "save").splitlines()
        return sorted(line.partition(" initval")[0] for line in lines)

    def load(self, text: str) -> None:
        self.run.ok("iptables-legacy-restore", "-c", stdin=text)

    def backend_with(self, trouble: Trouble) -> IptablesBackend:
        return IptablesBackend(replace(self.run, trouble=trouble))


def param(name: str, *values: str) -> XParam:
    return XParam(name, values)


def rule(name: str, *matches: XMatch, target: str = "DROP", proto: str | None = "udp") -> XRule:
    digest = f"{abs(hash((name, matches, target))) % 16**8:08x}"
    return XRule(f"sipfw:{name}#{digest}", proto, matches=matches, target=XTarget(target))


def in_set(name: str) -> XMatch:
    return XMatch("set", (param("match-set", name, "src"),))


PORT = XMatch("udp", (param("dport", "5060"),))
RECENT_TOO_HIGH = XMatch(
    "recent", (param("update"), param("seconds", "60"), param("hitcount", "70000"))
)


def table(family: Family, *, name: str = "raw", extra: Sequence[XRule] = ()) -> XTable:
    suffix = "4" if family is Family.IP else "6"
    hook = "PREROUTING" if name == "raw" else "INPUT"
    scanner = XMatch("string", (param("algo", "kmp"), param("icase"), param("string", "sipcli")))
    return XTable(
        name,
        family,
        (
            XChain("SIP", (rule("sip.trusted", target="SIP_TRUSTED"), rule("sip.end"))),
            XChain("SIP_TRUSTED", (rule("trusted", in_set(f"sipfw-peers{suffix}")),)),
            XChain("SIP_SCANNER_BLOCK", (rule("scanner.ua", scanner), *extra)),
        ),
        (XJump(hook, rule("jump", PORT, target="SIP")),),
    )


def sets(count: int = 3) -> tuple[XSet, ...]:
    v4 = tuple(f"203.0.113.{n}" for n in range(count))
    return (
        XSet("sipfw-peers4", "hash:net", ("family", "inet"), v4, static=True),
        XSet("sipfw-peers6", "hash:net", ("family", "inet6"), ("2001:db8::/64",), static=True),
        XSet("sipfw-banned4", "hash:ip", ("family", "inet", "timeout", "600"), (), static=False),
    )


PLAN = XPlan(sets(), (table(Family.IP), table(Family.IP6)))


def with_extra(*extra: XRule, family: Family = Family.IP6) -> XPlan:
    tables = tuple(
        table(item.family, extra=extra if item.family is family else ()) for item in PLAN.tables
    )
    return XPlan(sets(2), tables)


def foreign_only(lines: list[str]) -> list[str]:
    return [line for line in lines if "sipfw:" not in line and ":SIP" not in line]
