"""What a ruleset lets in, as packets that can be walked through the rules of others."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.deploy.lockout.openings import names_of_containers
from sipfw.lower.xtables import Family
from sipfw.monitor.host_path.fit import Grant
from sipfw.ruleset.match import InSet, L4Proto, PortRange, Ports
from sipfw.ruleset.model import Layer, Priority, SetKind
from sipfw.ruleset.rule import Accept, Done, Drop

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sipfw.monitor.host_path.fit import Network
    from sipfw.ruleset.model import AddressSet, Ruleset
    from sipfw.ruleset.rule import Rule

_TITLES = {
    "host.sip-udp": "SIP over UDP",
    "host.sip-tcp": "SIP over TCP",
    "host.media": "RTP",
    "media.guard": "RTP",
    "host.ssh": "ssh",
    "host.web": "the web interface",
}
_OF_UDP = frozenset({names.SET_TRUSTED_UDP})
_OF_TCP = frozenset({names.SET_TRUSTED_TCP, names.SET_TRUSTED_TLS, names.SET_TRUSTED_TLS_PORTS})
_OF_BOTH = frozenset({names.SET_TRUSTED, names.SET_TRUSTED_TIERS, names.SET_TRUSTED_PORTS})
_JUDGED = "media.guard"
_DENIED = "limits.unknown_sources"
# A range that rules of others cut into more pieces is looked at as a whole.
_MOST_PIECES = 64


def grants(ruleset: Ruleset, *, listening: Collection[int], most_sources: int = 64) -> list[Grant]:
    """Return what others should not take away: SIP, media, ssh and the ports that are opened.

    `listening` are the TCP ports that somebody listens on: nothing is lost where nobody does. Of
    the sources of one rule at most so many are looked at.
    """
    found: list[Grant] = []
    for rule in _admitting(ruleset):
        for ports in (item for item in rule.matches if isinstance(item, Ports)):
            tcp = ports.proto is L4Proto.TCP
            for sources in _sources(ruleset, rule, tcp=tcp, most=most_sources):
                found += [
                    Grant(_title(rule), family, ports.proto, item, network)
                    for item in ports.ranges
                    if not tcp or any(item.first <= port <= item.last for port in listening)
                    for family, network in sources
                ]
    return found


def _title(rule: Rule) -> str:
    base = next((text for name, text in _TITLES.items() if rule.id.startswith(name)), None)
    return base or rule.origin.field


def _admitting(ruleset: Ruleset) -> Iterator[Rule]:
    """Yield the rules of the host layer that let a port in; SIP of a container is not INPUT's."""
    forwarded = bool(names_of_containers(ruleset))
    for chain in ruleset.chains:
        if chain.layer is not Layer.HOST or chain.priority is not Priority.FILTER:
            continue
        for rule in chain.rules:
            admits = isinstance(rule.action, Done | Accept) and rule.id.startswith("host.")
            # It leads to a judgement that trusted peers pass.
            admits = admits or (rule.id == _JUDGED and not forwarded)
            if admits and rule.id != "host.dhcp6" and not (forwarded and "sip-" in rule.id):
                yield rule


def _sources(
    ruleset: Ruleset, rule: Rule, *, tcp: bool, most: int
) -> Iterator[list[tuple[Family, Network | None]]]:
    """Yield who may use a rule's ports: everybody, or the members of a set, and the peers."""
    asked = [item.set for item in rule.matches if isinstance(item, InSet)]
    is_sip = rule.id.startswith("host.sip-")
    of_peers = is_sip or rule.id.startswith(("host.media", _JUDGED))
    if not asked and rule.id != _JUDGED and not (is_sip and _denied(ruleset)):
        yield [(family, None) for family in Family]
    for item in ruleset.sets:
        if item.name in asked or (of_peers and _is_of_peers(item, tcp=tcp)):
            yield [
                (Family.IP if network.version == 4 else Family.IP6, network)
                for network in _networks(item)[:most]
            ]


def _denied(ruleset: Ruleset) -> bool:
    return any(
        rule.origin.field == _DENIED and isinstance(rule.action, Drop)
        for chain in ruleset.chains
        for rule in chain.rules
    )


def _is_of_peers(item: AddressSet, *, tcp: bool) -> bool:
    return item.name in _OF_BOTH | (_OF_TCP if tcp else _OF_UDP)


def members_of_peers(ruleset: Ruleset) -> list[Network]:
    """Return the networks of trusted peers, over any transport."""
    return [
        network
        for item in ruleset.sets
        if item.name in _OF_BOTH | _OF_TCP | _OF_UDP
        for network in _networks(item)
    ]


def _networks(item: AddressSet) -> list[Network]:
    if item.kind is SetKind.PEER_ENDPOINT:
        return list(dict.fromkeys(endpoint.network for endpoint in item.endpoints))
    return list(item.networks)


def split_sources(found: Iterable[Grant], asked: Collection[object]) -> Iterator[Grant]:
    """Yield each grant, and before it one for each network inside its own that a rule names."""
    for grant in found:
        source = grant.source
        if source is not None and source.prefixlen < source.max_prefixlen:
            inside = [
                network
                for network in asked
                if isinstance(network, type(source)) and network != source
                if network.subnet_of(source)  # type: ignore[arg-type]  # of the same version
            ]
            yield from (replace(grant, source=item) for item in inside[:_MOST_PIECES])
        yield grant


def split(found: Iterable[Grant], borders: Collection[int]) -> Iterator[Grant]:
    """Cut ranges of ports at `borders`, where a piece begins: others may have opened a part."""
    for grant in found:
        inner = sorted(port for port in borders if grant.ports.first < port <= grant.ports.last)
        if len(inner) > _MOST_PIECES:
            inner = []
        edges = [grant.ports.first, *inner, grant.ports.last + 1]
        for first, behind in pairwise(edges):
            yield replace(grant, ports=PortRange(first, behind - 1))
