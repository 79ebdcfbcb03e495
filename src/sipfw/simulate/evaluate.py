"""The walk itself: chains in the order of the hooks, rules in the order of the chain.

What `Done` and `Accept` mean is in docs/decisions/0002: both end our chains of one hook, and the
packet goes on to the next hook. Only a drop ends the walk.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias, assert_never

from sipfw.ruleset.match import CtState, Direction, PayloadContains
from sipfw.ruleset.model import Base, Hook, Priority
from sipfw.ruleset.rule import (
    Accept,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Goto,
    Jump,
    Log,
    NoTrack,
    Record,
    Reset,
    Return,
    UpdateSet,
)
from sipfw.ruleset.source import source_text
from sipfw.simulate.conditions import Scene, ask, element_key
from sipfw.simulate.match_result import MatchResult
from sipfw.simulate.state import Limit, LiveState
from sipfw.simulate.trace import Assumption, Stage, Step, Trace, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.ruleset.model import Chain, Ruleset
    from sipfw.ruleset.rule import Rule
    from sipfw.simulate.packet import Packet
    from sipfw.simulate.state import Key

# Rules that search a text which is not in a payload: by the payload, then by id().
Misses: TypeAlias = "dict[bytes, dict[int, Step]]"

# Priorities stand in the order in which the kernel calls them.
# A packet for a switch behind this host passes FORWARD and not INPUT. Who asks about it seldom
# knows which, and both judge the same packets alike.
INCOMING = tuple(
    Base(hook, when) for hook in (Hook.PREROUTING, Hook.FORWARD, Hook.INPUT) for when in Priority
)
OUTGOING = tuple(Base(Hook.OUTPUT, when) for when in Priority)


def evaluate(
    ruleset: Ruleset,
    packet: Packet,
    live: LiveState | None = None,
    *,
    assume: Limit = Limit.WITHIN,
    path: Sequence[Base] = INCOMING,
    otherwise: frozenset[Assumption] = frozenset(),
    misses: Misses | None = None,
) -> Trace:
    """Walk a packet through the hooks of `path`.

    Limits that `live` does not know count as `assume`. Whatever was not known is in the trace's
    assumptions. Of those in `otherwise` the opposite is assumed, and they are not in the trace.

    `misses` is for many walks of one packet: a policy may search thousands of texts, and whether
    they are in a payload does not change. Give the same mapping to walks of the same rules.
    """
    if assume is Limit.UNKNOWN:
        raise ValueError("an unknown limit cannot be assumed to be unknown")
    known = {} if misses is None else misses.setdefault(packet.payload or b"", {})
    state = live or LiveState()
    return _Walk(ruleset, packet, state, assume, otherwise=otherwise, misses=known).along(path)


class _End(Enum):
    """How a chain was left."""

    FELL_OFF = auto()
    DONE = auto()
    ACCEPTED = auto()
    DROPPED = auto()
    RESET = auto()


class _Walk:
    def __init__(
        self,
        ruleset: Ruleset,
        packet: Packet,
        live: LiveState,
        assume: Limit,
        *,
        otherwise: frozenset[Assumption],
        misses: dict[int, Step],
    ) -> None:
        self._ruleset = ruleset
        self._packet = packet
        self._live = live
        self._assume = assume
        self._otherwise = otherwise
        self._misses = misses
        self._written: dict[tuple[str, Key], bool] = {}
        self._assumptions: list[Assumption] = []
        self._changes: list[str] = []
        self._untracked = packet.state is CtState.UNTRACKED
        self._steps: list[Step] = []
        self._decider: Rule | None = None

    def along(self, path: Sequence[Base]) -> Trace:
        used = {chain.base for chain in self._ruleset.chains}
        stages, verdict = [], Verdict.PASSED
        for base in path:
            if base not in used:
                continue
            end = self._hook(base)
            stages.append(Stage(base, tuple(self._steps), self._decider))
            if end in {_End.DROPPED, _End.RESET}:
                verdict = Verdict.RESET if end is _End.RESET else Verdict.DROPPED
                break
            if end is _End.ACCEPTED and base.priority is Priority.FILTER:
                verdict = Verdict.ACCEPTED
        return Trace(
            self._packet,
            tuple(stages),
            verdict,
            tuple(dict.fromkeys(self._assumptions)),
            tuple(self._changes),
        )

    def _hook(self, base: Base) -> _End:
        self._steps, self._decider = [], None
        end = _End.FELL_OFF
        for chain in self._ruleset.chains:
            if chain.base == base:
                end = self._chain(chain, base, ())
                if end is not _End.FELL_OFF:
                    break
        return end

    def _chain(self, chain: Chain, base: Base, above: tuple[str, ...]) -> _End:
        """Walk one chain. `above` are the chains that led here; the kernel refuses a circle."""
        if chain.name in above:
            raise ValueError(f"chain {chain.name} leads back to itself")
        family, scene = self._packet.family, self._scene(base)
        misses = self._misses
        for rule in chain.rules:
            if (miss := misses.get(id(rule))) is not None:
                self._steps.append(miss)
                continue
            if rule.family not in (None, family) or not self._matches(chain, rule, scene):
                continue
            action = rule.action
            match action:
                case Accept() | Done() | Drop() | Reset():
                    return self._decide(rule, action)
                case Return():
                    return _End.FELL_OFF
                case Jump():
                    end = self._chain(self._ruleset.chain(action.chain), base, (*above, chain.name))
                    if end is not _End.FELL_OFF:
                        return end
                    scene = self._scene(base)
                case Goto():
                    return self._chain(
                        self._ruleset.chain(action.chain), base, (*above, chain.name)
                    )
                case UpdateSet() | AddOnce() | DeleteFromSet():
                    self._write(action)
                case Record():
                    self._changes.append(f"notes {self._packet.source} in {action.list}")
                case NoTrack():
                    self._untracked = True
                    scene = self._scene(base)
                    self._changes.append("keeps the packet out of connection tracking")
                case Log():
                    self._changes.append(f"logs it as '{action.prefix.strip()}'")
                case _:
                    assert_never(action)
        return _End.FELL_OFF

    def _decide(self, rule: Rule, action: Accept | Done | Drop | Reset) -> _End:
        self._decider = rule
        match action:
            case Accept():
                return _End.ACCEPTED
            case Done():
                return _End.DONE
            case Drop():
                return _End.DROPPED
            case Reset():
                return _End.RESET
            case _:
                assert_never(action)

    def _scene(self, base: Base) -> Scene:
        return Scene(
            self._ruleset,
            self._packet,
            self._live,
            base,
            self._written,
            untracked=self._untracked,
            assume=self._assume,
        )

    def _matches(self, chain: Chain, rule: Rule, scene: Scene) -> bool:
        reasons: list[str] = []
        for match in rule.matches:
            answer = ask(match, rule.id, scene)
            # Whether a log line is written changes nothing for the packet.
            if answer.unless is not None and not isinstance(rule.action, Log):
                answer = self._assumed(rule, answer, answer.unless)
            if not answer.holds:
                step = Step(chain.name, rule, matched=False, why=answer.why)
                self._steps.append(step)
                if isinstance(match, PayloadContains) and self._packet.payload and not reasons:
                    # The step keeps its rule, so no other one gets the same id.
                    self._misses[id(rule)] = step
                return False
            reasons.append(answer.why)
        why = ", ".join(reasons) or "asks nothing"
        self._steps.append(Step(chain.name, rule, matched=True, why=why))
        return True

    def _assumed(self, rule: Rule, answer: MatchResult, unless: str) -> MatchResult:
        assumption = Assumption(rule.id, unless)
        if assumption in self._otherwise:
            return MatchResult(not answer.holds, f"assumed: {unless}")
        self._assumptions.append(assumption)
        return answer

    def _write(self, action: UpdateSet | AddOnce | DeleteFromSet) -> None:
        address = self._packet.address(action.direction)
        adds = not isinstance(action, DeleteFromSet)
        if address is None:
            end = "source" if action.direction is Direction.SOURCE else "destination"
            who = f"the {end}, which is not known,"
        else:
            item = self._ruleset.set(action.set)
            who = source_text(address, item.prefix)
            key = element_key(item, address, action.direction, self._packet)
            self._written[action.set, key] = adds
        self._changes.append(
            f"adds {who} to {action.set}" if adds else f"takes {who} out of {action.set}"
        )
