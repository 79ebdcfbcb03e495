"""What the rules of others take away of what a ruleset gives, rule by rule, and what opens it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.host.proc_net import way_to, ways_out
from sipfw.kernel.detect import printable
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.listening import listeners
from sipfw.monitor.doctor.stricter import nft, xtables
from sipfw.monitor.doctor.stricter.grants import grants, split
from sipfw.monitor.doctor.stricter.ways import ends
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sipfw.monitor.doctor.rules import HostRules
    from sipfw.monitor.doctor.stricter.conditions import Grant
    from sipfw.monitor.doctor.stricter.ways import HookChains
    from sipfw.ruleset.model import Ruleset

# Rules of others times packets: half a second and a bit.
_MOST_STEPS = 400_000
_SHOWN_RULE = 160
_SHOWN_SOURCES = 4
_NAMES = {Family.IP: "IPv4", Family.IP6: "IPv6"}


@dataclass(frozen=True, slots=True)
class Loss:
    """One rule or policy of somebody else, and what of ours ends there.

    `rule` is None for the policy. `sure` is False where another rule, which nobody here
    understands, may let it through before. `behind` says that our jump stands in front. `ours`
    says that the rules in force accept it: it is lost only once this ruleset is live. `peers` says
    that it is not strangers alone who lose.
    """

    way: HookChains
    rule: str | None
    place: int | None
    lost: tuple[Grant, ...]
    sure: bool
    behind: bool
    ours: bool
    peers: bool

    @property
    def text(self) -> str:
        """Name the rule, and what it takes; what others wrote must not steer a terminal."""
        what = f"the policy DROP of {self.way.where}"
        if self.rule is not None:
            shown = self.rule if len(self.rule) <= _SHOWN_RULE else f"{self.rule[:_SHOWN_RULE]}..."
            what = f"`{shown}` of {self.way.where}"
        does = "drops" if self.sure else "drops, unless a rule before it lets it through,"
        lost = ", ".join(titles(self.lost))
        return printable(f"{' '.join(what.split())} {does} what the policy admits: {lost}")


def losses(rules: HostRules, ruleset: Ruleset, proc: Path) -> list[Loss]:
    """Walk what the ruleset gives through the rules of others; sipfw's own are passed over."""
    ways = [way for listing in rules.xtables for way in xtables.ways(listing)]
    ways += nft.ways(rules.nft, rules.xtables)
    ways = [way for way in ways if _may_drop(way)]
    if not ways:
        return []
    listed = sum(len(chain) for way in ways for chain in way.chains.values())
    listening = {item.port for item in listeners(proc) if item.proto == "tcp"}
    wanted = grants(
        ruleset, listening=listening, most_sources=max(1, min(64, _MOST_STEPS // (8 * listed + 1)))
    )
    outside = ways_out(proc)
    placed = [replace(item, interfaces=_interfaces(item, outside, proc)) for item in wanted]
    borders = _borders(ways)
    return [loss for way in ways for loss in _losses(way, list(split(placed, borders)))]


def _interfaces(grant: Grant, outside: frozenset[str], proc: Path) -> frozenset[str]:
    if grant.source is None:
        return outside
    way = way_to(grant.source[0], proc)
    return frozenset() if way is None else frozenset({way})


def _may_drop(way: HookChains) -> bool:
    """Pass over the many hooks that drop nothing."""
    return way.drops or any(
        step.rule.denies and not step.rule.ours for chain in way.chains.values() for step in chain
    )


def _borders(ways: Sequence[HookChains]) -> frozenset[int]:
    found = {
        edge
        for way in ways
        for chain in way.chains.values()
        for step in chain
        for asked in step.rule.asks.ports_of()
        for item in asked.fitting
        for edge in (item.first, item.last + 1)
    }
    return frozenset(found)


def _losses(way: HookChains, wanted: Sequence[Grant]) -> Iterator[Loss]:
    jump = way.jump_place()
    found: dict[tuple[int | None, str | None, bool, bool], list[Grant]] = {}
    for grant in wanted:
        if grant.family not in way.families:
            continue
        default = ends(way, grant)[0]
        if default.accepted:
            continue
        sure = not any(end.accepted for end in ends(way, grant, guess=True))
        rule = None if default.rule is None else default.rule.line
        key = (default.place, rule, sure, _accepted_by_us(way, grant))
        found.setdefault(key, []).append(grant)
    for (place, rule, sure, ours), lost in found.items():
        behind = jump is None or place is None or place > jump
        peers = any(item.source is not None for item in lost)
        yield Loss(way, rule, place, tuple(_merged(lost)), sure, behind, ours, peers)


def _accepted_by_us(way: HookChains, grant: Grant) -> bool:
    """Tell whether the rules of an older sipfw, now in force, accept it."""
    if way.jump_place() is None:
        return False
    return any(
        end.accepted and end.rule is not None and end.rule.ours
        for end in ends(way, grant, ours=True, guess=True)
    )


def _merged(lost: Sequence[Grant]) -> Iterator[Grant]:
    """Join pieces of one range, and leave out peers where everybody loses the same."""
    everybody = {(item.family, item.proto, item.ports) for item in lost if item.source is None}
    kept = [
        item
        for item in lost
        if item.source is None or (item.family, item.proto, item.ports) not in everybody
    ]
    last: Grant | None = None
    for item in kept:
        if (
            last is not None
            and replace(item, ports=last.ports) == last
            and last.ports.last + 1 == item.ports.first
        ):
            last = replace(last, ports=PortRange(last.ports.first, item.ports.last))
            continue
        if last is not None:
            yield last
        last = item
    if last is not None:
        yield last


def titles(lost: Sequence[Grant]) -> list[str]:
    """Say what is lost, one text for each service and port."""
    grouped: dict[tuple[str, str], list[Grant]] = {}
    for item in lost:
        grouped.setdefault((item.what, str(item.ports)), []).append(item)
    return [f"{what} to {ports}{_whose(found)}" for (what, ports), found in grouped.items()]


def _whose(found: Sequence[Grant]) -> str:
    sources = [str(item.source) for item in found if item.source is not None]
    if not sources:
        families = {item.family for item in found}
        return "" if len(families) > 1 else f" ({_NAMES[families.pop()]})"
    more = len(sources) - _SHOWN_SOURCES
    names = ", ".join(short(text) for text in sources[:_SHOWN_SOURCES])
    return f" from {names}{f' and {more} more' if more > 0 else ''}"


def short(network: str) -> str:
    """Write one address without its length."""
    return network.removesuffix("/32").removesuffix("/128")
