"""What the rules of others take away of what a ruleset gives, rule by rule.

The one judgement behind `verify`, `doctor`, `diff` and the remarks of `apply`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.host.proc_net import way_to, ways_out
from sipfw.monitor.doctor.listening import listeners
from sipfw.monitor.doctor.stricter.grants import grants, split, split_sources
from sipfw.monitor.doctor.stricter.loss import Loss, merged
from sipfw.monitor.host_path.fit import ESTABLISHED
from sipfw.monitor.host_path.path import HostPath
from sipfw.monitor.host_path.ways import default_end, ends

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from sipfw.host.runner import Runner
    from sipfw.monitor.doctor.listening import Listener
    from sipfw.monitor.doctor.rules import HostRules
    from sipfw.monitor.host_path.fit import Grant
    from sipfw.monitor.host_path.path import Visit
    from sipfw.monitor.host_path.ways import End, HookChains, Step
    from sipfw.ruleset.model import Ruleset

# Rules of others times packets: half a second and a bit.
_MOST_STEPS = 400_000
# Each of them is a walk of its own, and nobody reads a longer list.
_MOST_IN_A_ROW = 16


@dataclass(frozen=True, slots=True)
class Losses:
    """`sure` are those that happen now, `doubtful` those that rest on what nobody can tell."""

    sure: tuple[Loss, ...] = ()
    doubtful: tuple[Loss, ...] = ()

    @property
    def cutting(self) -> tuple[Loss, ...]:
        """Those of trusted peers and admins, which happen now."""
        return tuple(item for item in self.sure if item.peers and item.sure)


def losses(
    rules: HostRules, ruleset: Ruleset, proc: Path, runner: Runner | None = None
) -> list[Loss]:
    """Return those that happen now; see `judged`."""
    return list(judged(rules, ruleset, proc, runner).sure)


def judged(rules: HostRules, ruleset: Ruleset, proc: Path, runner: Runner | None = None) -> Losses:
    """Walk what the ruleset gives through the rules of others; sipfw's own are passed over.

    With a `runner`, sets that rules name are looked into.
    """
    path = HostPath(rules, proc, runner)
    able = path.acting
    if not able:
        return Losses()
    heard = listeners(proc)
    wanted = _wanted(able, ruleset, path, heard, proc)
    seen: dict[int, list[Visit]] = {}
    for grant in wanted:
        for each in (grant, grant.answered()):
            for visit in path.travel(each, able):
                seen.setdefault(id(visit.way), []).append(visit)
    judge = _Judge(heard, proc)
    found = [loss for way in able for loss in judge.of(way, seen.get(id(way), ()))]
    doubts = [
        loss for way in able if way.may_drop for loss in judge.doubts(way, seen.get(id(way), ()))
    ]
    return Losses(tuple(found), tuple(doubts))


def _wanted(
    ways: Sequence[HookChains],
    ruleset: Ruleset,
    path: HostPath,
    heard: Collection[Listener],
    proc: Path,
) -> list[Grant]:
    # The hooks of one table have their chains in common.
    listed = sum(len(way.foreign) for way in {id(way.chains): way for way in ways}.values())
    listening = {item.port for item in heard if item.proto == "tcp"}
    most = max(1, min(64, _MOST_STEPS // (8 * listed + 1)))
    wanted = grants(ruleset, listening=listening, most_sources=most)
    outside = ways_out(proc)
    placed = [
        path.placed(item, _interfaces(item, outside, proc))
        for item in split_sources(wanted, _networks(ways))
    ]
    found = list(split(placed, _borders(ways)))
    if any(_cuts_open_connections(way) for way in ways):
        found += [
            replace(item, what=f"{item.what}, once it speaks", state=ESTABLISHED, opens=False)
            for item in found
        ]
    return found


def _interfaces(grant: Grant, outside: frozenset[str], proc: Path) -> frozenset[str]:
    if grant.source is None:
        return outside
    way = way_to(grant.source[0], proc)
    return frozenset() if way is None else frozenset({way})


def _cuts_open_connections(way: HookChains) -> bool:
    return any(
        step.rule.denies and any(ESTABLISHED in asked.values for asked in step.rule.asks.states)
        for step in way.foreign
    )


def _networks(ways: Iterable[HookChains]) -> frozenset[object]:
    return frozenset(
        network
        for way in ways
        for step in way.foreign
        for asked in step.rule.asks.sources
        for network in asked.values
    )


def _borders(ways: Sequence[HookChains]) -> frozenset[int]:
    found = {
        edge
        for way in ways
        for step in way.foreign
        for ranges in (
            *(asked.fitting for asked in step.rule.asks.ports),
            [item.of for item in step.rule.sent if item.of is not None],
        )
        for item in ranges
        for edge in (item.first, item.last + 1)
    }
    return frozenset(found)


class _Judge:
    """Says of each hook what is lost there."""

    def __init__(self, heard: Collection[Listener], proc: Path) -> None:
        self._heard = {(item.proto, item.port) for item in heard}
        self._proc = proc

    def of(self, way: HookChains, visits: Sequence[Visit]) -> Iterator[Loss]:
        """Yield what is lost, by the rule that takes it."""
        jump = way.jump_place()
        found: dict[tuple[End, bool, bool, bool], list[Visit]] = {}
        for visit in visits:
            end, grant = visit.end, visit.grant
            if end.accepted and not self._is_led_astray(visit):
                continue
            sure = end.accepted or not any(each.accepted for each in ends(way, grant, guess=True))
            for each in _one_after_another(visit, jump):
                key = each, sure, _accepted_by_us(way, visit), grant.answer
                found.setdefault(key, []).append(visit)
        for (end, sure, ours, _), lost in found.items():
            yield _loss(way, end, lost, jump, sure=sure, ours=ours)

    def doubts(self, way: HookChains, visits: Sequence[Visit]) -> Iterator[Loss]:
        """Yield what trusted peers may lose, where nobody can tell whether a rule fits."""
        jump = way.jump_place()
        found: dict[tuple[int | None, object, bool], list[Visit]] = {}
        when: dict[object, End] = {}
        for visit in visits:
            if not visit.end.accepted or visit.grant.source is None:
                continue
            for end in ends(way, visit.grant, guess=True):
                if not end.accepted and end.when:
                    found.setdefault((end.place, end.step, visit.grant.answer), []).append(visit)
                    when.setdefault(end.step, end)
        for (_, step, _), lost in found.items():
            end = when[step]
            yield _loss(way, end, lost, jump, sure=False, ours=False, when=end.when)

    def _is_led_astray(self, visit: Visit) -> bool:
        """Tell whether it goes where nobody waits for it, and somebody did where it was sent to."""
        grant, moved = visit.grant, visit.moved
        if visit.away is not None:
            # To a container or the like: that is another way to publish the switch.
            leaves = way_to(visit.away, self._proc) in ways_out(self._proc)
            return leaves and self._is_heard(grant)
        return moved is not None and self._is_heard(grant) and not self._is_heard(moved)

    def _is_heard(self, grant: Grant) -> bool:
        ports = range(grant.ports.first, grant.ports.last + 1)
        return any((grant.proto, port) in self._heard for port in ports)


def _one_after_another(visit: Visit, jump: int | None) -> Iterator[End]:
    """Yield where it ends, and where it would if that rule were gone.

    A rule before our jump has to go, and only then the next one is asked; behind it, what is
    accepted in front of the first is never asked again.
    """
    end: End = visit.end
    gone: list[Step] = []
    yield end
    while not end.accepted and end.step is not None and not _is_behind(end, jump):
        if len(gone) == _MOST_IN_A_ROW:
            return
        gone.append(end.step)
        end, _ = default_end(visit.way, visit.grant, gone)
        if not end.accepted:
            yield end


def _is_behind(end: End, jump: int | None) -> bool:
    return jump is None or end.place is None or end.place > jump


def _loss(
    way: HookChains,
    end: End,
    lost: Sequence[Visit],
    jump: int | None,
    *,
    sure: bool,
    ours: bool,
    when: tuple[str, ...] = (),
) -> Loss:
    behind = _is_behind(end, jump)
    taken = [visit.grant for visit in lost]
    peers = any(item.source is not None for item in taken)
    return Loss(way, end.step, end.place, tuple(merged(taken)), sure, behind, ours, peers, when)


def _accepted_by_us(way: HookChains, visit: Visit) -> bool:
    """Tell whether the rules of an older sipfw, now in force, accept it."""
    if way.jump_place() is None or visit.grant.answer:
        return False
    return any(
        end.accepted and end.rule is not None and end.rule.ours
        for end in ends(way, visit.grant, ours=True, guess=True)
    )
