"""Two rulesets that are quick to load and differ in everything that can: rules, sets, settings."""

from __future__ import annotations

from ipaddress import ip_network

from sipfw.deploy.generations import Content
from sipfw.ruleset.match import (
    InSet,
    L4Proto,
    PayloadContains,
    PortRange,
    Ports,
    Rate,
    RateWithin,
    TimeUnit,
)
from sipfw.ruleset.model import (
    AddressSet,
    Base,
    Chain,
    Hook,
    Layer,
    Priority,
    Ruleset,
    SetKind,
    Sysctl,
)
from sipfw.ruleset.rule import Accept, Action, Done, Drop, Goto, Origin, Rule, UpdateSet

SETTING = "net.netfilter.nf_conntrack_udp_timeout_stream"
_ORIGIN = Origin("limits", "policy.yaml", 3)


def _rule(rule_id: str, action: Action, *matches: object) -> Rule:
    return Rule(rule_id, matches, action, f"test: {rule_id}", _ORIGIN)  # type: ignore[arg-type]


def _chain(name: str, *rules: Rule, hook: Hook | None = None, late: bool = False) -> Chain:
    priority = Priority.FILTER if late else Priority.RAW
    base = None if hook is None else Base(hook, priority)
    return Chain(name, Layer.ENTRY, "a chain of a test", rules, priority, base)


def small_ruleset(which: str) -> Ruleset:
    """Return ruleset "x" or "y"."""
    first = which == "x"
    sip = Ports(L4Proto.UDP, (PortRange(5060, 5060 if first else 5069),))
    word = b"friendly-scanner" if first else b"sipvicious"
    judged = [
        _rule("known", Done(), InSet("trusted")),
        _rule("cap", Drop(), RateWithin(Rate(9 if first else 8, TimeUnit.SECOND), 50)),
        _rule("mark", UpdateSet("banned"), RateWithin(Rate(5, TimeUnit.SECOND), 5)),
        _rule("word", Drop(), PayloadContains(word)),
    ]
    return Ruleset(
        (
            _chain("SIPFW_PREROUTING", _rule("entry", Goto("SIP_ONE"), sip), hook=Hook.PREROUTING),
            _chain("SIP_ONE", *(judged if first else judged[::-1])),
            _chain("SIPFW_INPUT", _rule("late", Accept() if first else Done(), sip),
                   hook=Hook.INPUT, late=True),
        ),
        (
            AddressSet(
                "trusted", SetKind.NETWORK, "a set", _ORIGIN,
                networks=(ip_network("203.0.113.0/24" if first else "198.51.100.0/25"),
                          ip_network("2001:db8:5::/64" if first else "2001:db8:6::/64")),
            ),
            AddressSet("banned", SetKind.HOST, "a set", _ORIGIN, timeout=600 if first else 900),
        ),
        (Sysctl(SETTING, 77 if first else 88, _ORIGIN),),
    )  # fmt: skip


def small_content(which: str, backend: str) -> Content:
    return Content(small_ruleset(which), backend, ipset=True, source=which, policy="{}")
