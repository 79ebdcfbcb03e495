"""What the host part of a ruleset will close that is in use; said before it goes live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Location, Severity
from sipfw.monitor.doctor.findings import Diagnosis, DiagnosisState
from sipfw.monitor.doctor.in_use import UDP_SERVICES, in_use
from sipfw.monitor.doctor.record import applied_ruleset
from sipfw.ruleset.match import IP_PROTOCOLS, Direction, Interface, IpProtocol, Ports
from sipfw.ruleset.model import Layer, Priority
from sipfw.ruleset.rule import Accept, Done

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.monitor.doctor.host import HostView
    from sipfw.monitor.doctor.in_use import Use
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Rule

_GUARD = "host.drop"
_SHOWN = 12


def closed_protocols(host: HostView, ruleset: Ruleset) -> list[Diagnostic]:
    """Name the protocols, tunnels and ports in use that the ruleset drops, one line each.

    Ports that programs listen on are one line for UDP and one for TCP.
    """
    guard = _guard(ruleset)
    if guard is None:
        return []
    closed = list(_closed(ruleset, in_use(host.proc, host.runner)))
    place = Location(guard.origin.file, guard.origin.line)
    found = [
        Diagnostic(_protocol(item), "host.default_drop", place, Severity.WARNING)
        for item in closed
        if item.port is None or item.tunnel
    ]
    for proto in ("UDP", "TCP"):
        ports = [item for item in closed if item.protocol == proto and not item.tunnel]
        if ports:
            field = f"host.{proto.lower()}_ports"
            found.append(Diagnostic(_listening(proto, ports), field, place, Severity.NOTE))
    return found


def closed(host: HostView) -> Diagnosis:
    """Tell which protocols and tunnels the applied policy drops although they are in use."""
    name = "closed-protocols"
    ruleset = applied_ruleset(host)
    if ruleset is None or _guard(ruleset) is None:
        return Diagnosis(
            name, DiagnosisState.OK, "sipfw closes nothing but what its SIP layers drop"
        )
    found = [
        item
        for item in _closed(ruleset, in_use(host.proc, host.runner))
        if item.port is None or item.tunnel
    ]
    if not found:
        return Diagnosis(name, DiagnosisState.OK, "no protocol in use is closed")
    return Diagnosis(
        name, DiagnosisState.WARNING, "; ".join(_protocol(item) for item in found[:_SHOWN])
    )


def _guard(ruleset: Ruleset) -> Rule | None:
    return next((rule for rule in _host_rules(ruleset) if rule.id == _GUARD), None)


def _host_rules(ruleset: Ruleset) -> Iterator[Rule]:
    for chain in ruleset.chains:
        if chain.layer is Layer.HOST and chain.priority is Priority.FILTER:
            yield from chain.rules


def _closed(ruleset: Ruleset, uses: Sequence[Use]) -> Iterator[Use]:
    admitting = [rule for rule in _host_rules(ruleset) if isinstance(rule.action, Done | Accept)]
    inner = [
        match
        for rule in admitting
        for match in rule.matches
        if isinstance(match, Interface) and match.direction is Direction.SOURCE
    ]
    ports = [match for rule in admitting for match in rule.matches if isinstance(match, Ports)]
    protocols = {
        match.number
        for rule in admitting
        for match in rule.matches
        if isinstance(match, IpProtocol)
    }
    for item in uses:
        port = item.port
        if item.interface is not None and any(match.fits(item.interface) for match in inner):
            continue
        if item.number in protocols:
            continue
        if port is not None and any(
            match.proto == item.protocol.lower()
            and any(each.first <= port <= each.last for each in match.ranges)
            for match in ports
        ):
            continue
        yield item


def _protocol(item: Use) -> str:
    if item.port is None:
        through = f" through {item.interface}" if item.interface else ""
        what = f"{item.protocol}{'' if item.number is None else f', IP protocol {item.number},'}"
        return (
            f"{what} is in use ({item.evidence}) and will be dropped where it comes in{through} "
            f"unasked; {_opening(item)}name its interface in host.interfaces, or say "
            "host.default_drop: false"
        )
    service = UDP_SERVICES.get(item.port)
    tunnel = f"a tunnel of {item.evidence}" if service is None else f"{service}, {item.evidence}"
    return (
        f"{item.protocol} {item.port} is in use ({tunnel}) and will be dropped where the other end "
        f"speaks first; host.udp_ports: add {item.port}"
    )


def _opening(item: Use) -> str:
    name = next((name for name, number in IP_PROTOCOLS.items() if number == item.number), None)
    return "" if name is None else f"host.protocols: add {name}, "


def _listening(proto: str, ports: Sequence[Use]) -> str:
    named = [f"{item.port} ({item.evidence})" for item in ports]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return (
        f"{proto} {', '.join(named[:_SHOWN])}{more} will be closed to everybody who does not come "
        f"through host.interfaces; to keep one open: host.{proto.lower()}_ports: "
        f"add {ports[0].port}"
    )
