"""The posture of the worst hour: a ruleset in which only trusted peers and admins get in.

The ruleset stays what it is, sets and all, so that going back loses nobody who has logged in and
no ban. What strangers would have met stands behind rules that drop them.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.manual import PEERS
from sipfw.ruleset.match import Address, InSet, L4Proto, PortRange, Ports
from sipfw.ruleset.rule import Done, Drop, Family, Origin, Rule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sipfw.policy.model import Policy
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.match import Match
    from sipfw.ruleset.model import Chain, Ruleset

_ORIGIN = Origin("panic", "sipfw panic on")
_PREFIX = "panic."
_SUMMARY = "panic: only trusted peers and admins get in; end it: sipfw panic off"
_KNOWN = PEERS | {names.SET_GUESTS}
_SIP = {
    names.TRUSTED: "sip",
    names.ENCRYPTED: "encrypted",
    names.STREAM: "stream",
    names.STREAM_ENCRYPTED: "stream-encrypted",
}


def in_panic(ruleset: Ruleset) -> bool:
    """Tell whether a ruleset has the posture."""
    return any(is_of_panic(rule.id) for chain in ruleset.chains for rule in chain.rules)


def is_of_panic(rule_id: str) -> bool:
    """Tell whether a rule is one of the posture's."""
    return rule_id.startswith(_PREFIX)


def panicked(
    ruleset: Ruleset, policy: Policy, sessions: Collection[tuple[IpAddress, int]]
) -> Ruleset:
    """Return the ruleset with the posture.

    SIP is dropped behind the rules of peers and guests. Where the policy guards the host, so are
    the ports that it opens to everybody, but for the admin networks and the `sessions`: clients
    that are logged in now, with the port of this host. Media stays as the policy has it, since it
    is the peers' calls.
    """
    host = list(_host(policy, sessions))
    chains = [
        _with_wall(chain, _SIP[chain.name])
        if chain.name in _SIP
        else replace(chain, rules=(*host, *chain.rules))
        if chain.name == names.HOST
        else chain
        for chain in ruleset.chains
    ]
    return replace(ruleset, chains=tuple(chains))


def _with_wall(chain: Chain, name: str) -> Chain:
    """Drop what comes behind the last rule for those who are trusted."""
    places = [n for n, rule in enumerate(chain.rules, 1) if _is_for_known(rule)]
    place = max(places, default=0)
    wall = Rule(f"{_PREFIX}{name}", (), Drop(), _SUMMARY, _ORIGIN)
    return replace(chain, rules=(*chain.rules[:place], wall, *chain.rules[place:]))


def _is_for_known(rule: Rule) -> bool:
    return any(isinstance(match, InSet) and match.set in _KNOWN for match in rule.matches)


def _host(policy: Policy, sessions: Collection[tuple[IpAddress, int]]) -> Iterator[Rule]:
    """Yield what stands before the host's own rules: established connections are among those."""
    for number, (client, port) in enumerate(sorted(sessions, key=str), start=1):
        network = ip_network(client)
        matches = (Address(network), Ports(L4Proto.TCP, (PortRange(port, port),)))
        family = Family.IP if network.version == 4 else Family.IP6
        summary = "logged in when the panic began"
        yield Rule(f"{_PREFIX}session-{number}", matches, Done(), summary, _ORIGIN, family)
    for proto, ranges in (
        (L4Proto.TCP, policy.host.tcp_ports),
        (L4Proto.UDP, policy.host.udp_ports),
    ):
        if not ranges:
            continue
        ports: Match = Ports(proto, tuple(ranges))
        admins = (InSet(names.SET_ADMIN), ports)
        yield Rule(f"{_PREFIX}admin-{proto}", admins, Done(), "an admin network", _ORIGIN)
        yield Rule(f"{_PREFIX}open-{proto}", (ports,), Drop(), _SUMMARY, _ORIGIN)
