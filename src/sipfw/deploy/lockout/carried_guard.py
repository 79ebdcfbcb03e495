"""Would that get in again which carries a login: the outside of a tunnel, a proxy's front."""

from __future__ import annotations

from enum import IntEnum
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from sipfw.deploy.lockout.kernel_tunnels import PROTOCOLS
from sipfw.deploy.lockout.refusals import about, admin_sets, by_sip, cause, decider_of, worst
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import IP_PROTOCOLS, CtState
from sipfw.simulate.packet import Packet, TcpFlag

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sipfw.deploy.lockout.carried import Carrier, Passage
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.model import Ruleset
    from sipfw.simulate.trace import Trace

# Somebody whom no policy names, in networks that nobody has (RFC 2544, RFC 3849).
_STRANGERS = {4: ("198.18.0.1", "198.19.255.254"), 6: ("2001:db8:ffff::1", "2001:db8:fffe::1")}


class Fate(IntEnum):
    """What becomes of one way in; the worst last."""

    OPEN = 0
    KEPT = 1
    NOT_AGAIN = 2
    CUT = 3


_WORDS = {
    Fate.KEPT: "lasts only while this host itself keeps it open",
    Fate.NOT_AGAIN: "could not come back once connection tracking has forgotten it",
    Fate.CUT: "would be cut off",
}


def judge_passage(
    ruleset: Ruleset,
    passage: Passage,
    admin_ports: Collection[int],
    outside: Collection[str],
) -> Iterator[Diagnostic]:
    """Yield an error where none of its ways stays open, a warning where one is doubtful.

    `admin_ports` are those that admin networks reach by TCP, `outside` the interfaces that lead to
    the Internet.
    """
    who = f"the {passage.session.service} client {passage.session.client}"
    if not passage.ways:
        yield Diagnostic(
            f"{who} ({passage.session.found}) comes through {passage.name}, and what carries that "
            "cannot be seen from here; make sure that the policy lets it in"
        )
        return
    fates = [(*_fate(ruleset, way), way) for way in passage.ways]
    best, (fate, trace, way) = min(fates, key=_badness)[0], max(fates, key=_badness)
    if fate is Fate.OPEN or (best is Fate.OPEN and fate is Fate.KEPT):
        return
    several = " or ".join(dict.fromkeys(_text(item) for _, _, item in fates if item != way))
    # Which of several ways this login comes by, nobody can tell.
    doubt = f", if it does not come by {several}" if several and best < fate else ""
    rule = decider_of(trace)
    yield about(
        cause(ruleset, way.port, trace),
        f"{who} ({passage.session.found}) comes through {passage.name}, and what carries that, "
        f"{_text(way)}{_from(way)}, {_WORDS[fate]}{doubt}: {rule.id} drops it; "
        f"{_remedy(ruleset, way, trace, admin_ports, outside)}",
        Severity.ERROR if best > Fate.KEPT else Severity.WARNING,
    )


def _badness(item: tuple[Fate, Trace, Carrier]) -> Fate:
    return item[0]


def _fate(ruleset: Ruleset, way: Carrier) -> tuple[Fate, Trace]:
    entry = worst(ruleset, _packet(ruleset, way, CtState.NEW))
    if not entry.dropped:
        return Fate.OPEN, entry
    if not way.mirrored:
        # Connection tracking calls a flow established when it has seen an answer: here never.
        return Fate.CUT, entry
    answer = worst(ruleset, _packet(ruleset, way, CtState.ESTABLISHED))
    if answer.dropped:
        return Fate.CUT, answer
    if way.dialled:
        return Fate.OPEN, answer
    return (Fate.KEPT if way.kept_open else Fate.NOT_AGAIN), entry


def _packet(ruleset: Ruleset, way: Carrier, state: CtState) -> Packet:
    """Make a packet from outside; what a tunnel carries is unknown, and its sender may be too."""
    version = 4 if way.own is None else way.own.version
    source = way.far or _stranger(ruleset, version)
    opens = way.protocol is IpProto.TCP and state is CtState.NEW
    own = way.own if way.own is not None and way.own.version == source.version else None
    return Packet(
        source,
        own,
        way.protocol,
        None,
        way.port,
        flags=frozenset({TcpFlag.SYN if opens else TcpFlag.ACK}),
        protocol_number=way.number if way.protocol is IpProto.OTHER else None,
        in_interface=way.interface,
        payload=b"" if opens else None,
        state=state,
    )


def _stranger(ruleset: Ruleset, version: int) -> IpAddress:
    candidates = [ip_address(text) for text in _STRANGERS[version]]
    networks = [network for item in ruleset.sets for network in item.networks]
    strangers = [
        address for address in candidates if not any(address in network for network in networks)
    ]
    return (strangers or candidates)[0]


def _text(way: Carrier) -> str:
    if way.protocol is not IpProto.OTHER:
        return f"{way.protocol.upper()} port {way.port}"
    name = PROTOCOLS.get(way.number)
    return f"IP protocol {way.number}{f' ({name})' if name else ''}"


def _from(way: Carrier) -> str:
    return "" if way.far is None else f" from {way.far}"


def _remedy(
    ruleset: Ruleset,
    way: Carrier,
    trace: Trace,
    admin_ports: Collection[int],
    outside: Collection[str],
) -> str:
    """Return the policy lines that let it in."""
    if way.protocol is IpProto.OTHER:
        name = next((name for name, n in IP_PROTOCOLS.items() if n == way.number), None)
        whole = "host.default_drop: false" if name is None else f"host.protocols: add {name}"
        if way.interface is None or way.interface in outside:
            return whole
        return f"host.interfaces: add {way.interface} or {whole}"
    if by_sip(ruleset, trace):
        return f"signalling: take {way.port} out, it is used for this"
    everybody = f"host.{way.protocol}_ports: add {way.port}"
    if way.protocol is IpProto.UDP or way.far is None:
        return everybody
    lines = []
    if not any(way.far in network for item in admin_sets(ruleset) for network in item.networks):
        lines.append(f"admin.networks: add {ip_network(way.far)}")
    if way.port not in admin_ports:
        lines.append(f"admin.web_ports: add {way.port}")
    return ", or ".join(filter(None, [" and ".join(lines), everybody]))
