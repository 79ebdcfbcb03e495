"""What leads past the layers: port moves, and ports on which the switch listens besides.

Asked by `apply` before anything changes, by `doctor`, and by `verify` each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.host.own_addresses import own_addresses
from sipfw.host.proc_net import way_to, ways_out
from sipfw.monitor.doctor.findings import CannotTellError, Diagnosis, DiagnosisState
from sipfw.monitor.doctor.host import HostView
from sipfw.monitor.doctor.listeners import unlisted_listeners
from sipfw.monitor.doctor.moves_programs import moves_of_ipvs, moves_of_proxies
from sipfw.monitor.doctor.moves_rules import moves_of_iptables, moves_of_nft
from sipfw.monitor.doctor.port_moves import WayPast, single_ports, ways_past
from sipfw.monitor.doctor.ports import shipped_doors
from sipfw.monitor.doctor.stricter.openings import forgetting
from sipfw.monitor.host_path.removal import removal_of
from sipfw.ruleset.doors import doors_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sipfw.monitor.doctor.port_moves import PortMove
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.source import Door

NAME = "port-moves"
_SHOWN = 3


def find_ways(host: HostView, doors: Collection[Door]) -> list[WayPast]:
    """Return what leads past `doors` to one of them. CannotTellError where it cannot be seen."""
    return [way for way in ways_past(list(_moves(host)), doors) if _comes_here(host, way)]


def _moves(host: HostView) -> Iterator[PortMove]:
    for listing in host.rules.xtables:
        yield from moves_of_iptables(listing)
    yield from moves_of_nft(host.rules.nft, host.members_of)
    yield from moves_of_ipvs(host.proc)
    yield from moves_of_proxies(host.proc)


def _comes_here(host: HostView, way: WayPast) -> bool:
    """Tell whether the packets stay on this host or behind it; a router's customers are theirs."""
    address = way.move.address
    if address is None or address.is_loopback or address in own_addresses(host.proc):
        return True
    return way_to(address, host.proc) not in ways_out(host.proc)


def port_moves(host: HostView) -> Diagnosis:
    """Tell whether packets for another port reach the switch unjudged."""
    doors = _doors(host)
    ways = find_ways(host, doors)
    if ways:
        first, *others = ways
        sentence = f"{first.sentence}{_more(len(others))}; {first.advice}"
        return Diagnosis(NAME, DiagnosisState.PROBLEM, sentence, _mending(host, ways))
    heard = unlisted_listeners(host.proc, doors)
    if heard:
        return Diagnosis(
            NAME, DiagnosisState.WARNING, "; ".join(item.sentence for item in heard[:_SHOWN])
        )
    return Diagnosis(NAME, DiagnosisState.OK, "no other port leads to a SIP port of the policy")


def _mending(host: HostView, ways: Collection[WayPast]) -> str | None:
    """Return what takes the rules out, the last of a chain first, and ends what they have led."""
    rules = {way.move.rule for way in ways if way.move.rule is not None}
    last_first = sorted(rules, key=lambda rule: rule[3], reverse=True)
    words = [removal_of(rule, host.runner) for rule in last_first]
    for way in ways:
        words += [forgetting(way.proto, port) for port in single_ports(way.ports)]
    return " && ".join(dict.fromkeys(word for word in words if word)) or None


def _doors(host: HostView) -> Collection[Door]:
    applied = host.applied
    return applied.expectation.doors if applied and applied.expectation.doors else shipped_doors()


def before_apply(host: HostView, ruleset: Ruleset) -> list[Diagnostic]:
    """Return a warning for each way past the layers that this ruleset would leave open."""
    if not host.is_root:
        return []
    doors = doors_of(ruleset)
    try:
        texts = [f"{way.sentence}; {way.advice}" for way in find_ways(host, doors)]
    except CannotTellError as error:
        texts = [f"cannot tell whether a rule leads other ports to SIP: {error}"]
    texts += [item.sentence for item in unlisted_listeners(host.proc, doors)]
    return [Diagnostic(text, "signalling", severity=Severity.WARNING) for text in texts]


def problems(doors: Collection[Door], host: HostView | None = None) -> tuple[str, ...]:
    """Return what degrades a firewall that is live."""
    try:
        ways = find_ways(host or HostView(), doors or shipped_doors())
    except (CannotTellError, BackendError) as error:
        return (f"cannot tell whether a rule leads other ports to SIP: {error}",)
    return tuple(f"{way.sentence}; {way.advice}" for way in ways)


def _more(number: int) -> str:
    return f" and {number} more" if number else ""
