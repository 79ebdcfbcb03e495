"""What happens to a source right now, why, and what would change it.

Every answer is a walk through the applied ruleset with the kernel's state; "what would change it"
is the same walk in a world that differs in one thing, so it cannot be wrong where the walk is not.
What nobody can know is walked both ways.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.monitor.why.others import NOT_JUDGED, Course
from sipfw.monitor.why.packets import (
    REGISTER,
    USUAL_METHODS,
    Message,
    PacketTransport,
    asking,
    completed,
    is_media,
    messages,
    ways_to,
)
from sipfw.monitor.why.walks import walked
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import InSet
from sipfw.simulate.outcomes import Outcome
from sipfw.simulate.state import Limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.monitor.why.others import Others
    from sipfw.monitor.why.packets import PacketQuestion
    from sipfw.monitor.why.state import LimitReading, SourceState, World
    from sipfw.ruleset.addresses import IpAddress


# Two are filled by the packet path, one by hand.
_BANS = (names.SET_BANNED, names.SET_BANNED_TCP, names.SET_BLOCKED)

# What refuses logins for the length of `learning.window`, and then no longer.
_WINDOWS = (names.SET_SHUT, names.SET_NO_REGISTER, names.SET_BARRED)

# What a source or its phone has earned, and what was done for it by hand.
_MERITS = (
    names.SET_LEARNED,
    names.SET_REGISTERED,
    names.SET_CALLERS,
    names.SET_ASKED,
    names.SET_EXPECTED,
    names.SET_GUESTS,
)


class Effect(StrEnum):
    """What becomes of a packet once something has changed."""

    PASSES = "passes"
    DROPPED = "dropped"
    DEPENDS = "depends on what cannot be known"


class RemedyKind(StrEnum):
    """Something that may change."""

    BAN_ENDS = "ban-ends"
    WINDOW_ENDS = "window-ends"
    SUCCESS = "success"
    TRUST = "trust"
    ADMIN = "admin"
    SPOKEN = "spoken"
    MEDIA = "media"
    LEAVES_SET = "leaves-set"
    SLOWER = "slower"
    FORGOTTEN = "forgotten"
    BANNED = "banned"
    FASTER = "faster"
    METHOD = "method"
    TRANSPORT = "transport"


# Sets of the policy that let a source in.
_ENTRANCES = {
    names.SET_TRUSTED: RemedyKind.TRUST,
    names.SET_ADMIN: RemedyKind.ADMIN,
    names.SET_MEDIA: RemedyKind.MEDIA,
}


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing that would change the answer.

    `effect` is what the answer would be, `name` the set, method or transport; `readings` are the
    limits that it is about; `seconds` tell when it comes by itself, None where it does not or
    where nobody knows.
    """

    kind: RemedyKind
    name: str = ""
    readings: tuple[LimitReading, ...] = ()
    seconds: float | None = None
    effect: Effect = Effect.DEPENDS


@dataclass(frozen=True, slots=True)
class Case:
    """What happens to some messages alike: the first outcome is the assumed one.

    `question` is completed: it says over which transport and to which port.
    `course` is their way through the rules of others.
    """

    titles: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    changes: tuple[Remedy, ...]
    question: PacketQuestion
    course: Course = NOT_JUDGED

    @property
    def effect(self) -> Effect:
        """Return what happens, over all outcomes and by the rules of others."""
        ours = _effect(self.outcomes)
        if self.course.end is not None:
            return Effect.DROPPED
        return Effect.DEPENDS if self.course.possible and ours is Effect.PASSES else ours

    @property
    def ends_elsewhere(self) -> bool:
        """Whether it is a rule of others that ends what sipfw lets through."""
        return self.course.end is not None and not self.outcomes[0].trace.dropped


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer. `question` is completed; of two transports it has the likelier."""

    question: PacketQuestion
    cases: tuple[Case, ...]


def explain(
    question: PacketQuestion, source: SourceState, others: Others | None = None
) -> Explanation:
    """Answer. Raises BackendError where the firewall knows no SIP over the transport.

    `others` are the rules of others on this host, None where they are not judged.
    """
    ways = ways_to(question, source.world.ruleset)
    answers = [
        _Explainer(replace(question, transport=way), source, others).answer() for way in ways
    ]
    cases = tuple(case for answer in answers for case in answer.cases)
    return Explanation(answers[0].question, cases)


_Alike = tuple[list[str], Message, tuple[Outcome, ...], tuple[Remedy, ...]]


class _Explainer:
    """Walks; what several messages ask alike is walked once."""

    def __init__(
        self, question: PacketQuestion, source: SourceState, others: Others | None
    ) -> None:
        self._named = question
        self._others = others
        self._source = source
        self._ruleset = source.world.ruleset
        self._question = completed(question, self._ruleset)
        self._arrivals: dict[tuple[PacketTransport, str], Effect | None] = {}

    def answer(self) -> Explanation:
        cases: dict[object, _Alike] = {}
        for message in messages(self._question, self._ruleset):
            ends = self._ends(message, self._source.world)
            course = self._course(message)
            same = (course, *((end.trace.verdict, end.trace.decider, end.when) for end in ends))
            # What ends the drop of a REGISTER may leave an OPTIONS dropped by another rule.
            changes = tuple(self._changes(message, ends)) if ends[0].trace.dropped else ()
            turns = tuple((item.kind, item.name, item.effect) for item in changes)
            titles, *_ = cases.setdefault(
                (message.opens, same, turns), ([], message, ends, changes)
            )
            titles.append(message.title)
            if (
                message.opens
                and Case((), ends, (), self._question, course).effect is Effect.DROPPED
            ):
                break
        answers = tuple(
            Case(
                tuple(titles),
                ends,
                changes or tuple(self._changes(message, ends)),
                self._question,
                self._course(message),
            )
            for titles, message, ends, changes in cases.values()
        )
        return Explanation(self._question, answers)

    def _course(self, message: Message) -> Course:
        if self._others is None:
            return NOT_JUDGED
        course = self._others.course(message.packet)
        port = message.packet.destination_port
        # A switch opens a port of RTP for a call, and closes it behind that.
        rtp = message.packet.protocol is IpProto.UDP and is_media(self._ruleset, port)
        return replace(course, unheard=None) if rtp else course

    def _ends(self, message: Message, world: World) -> tuple[Outcome, ...]:
        return walked(message.packet, world, self._course(message))

    def _arrive(self, asked: PacketQuestion, world: World) -> Effect:
        """Return what becomes of several messages that need each other."""
        ends = [self._ends(item, world) for item in messages(asked, world.ruleset)]
        if any(item[0].trace.dropped for item in ends):
            return Effect.DROPPED
        depends = any(_effect(item) is Effect.DEPENDS for item in ends)
        return Effect.DEPENDS if depends else Effect.PASSES

    def _changes(self, message: Message, ends: tuple[Outcome, ...]) -> Iterator[Remedy]:
        """Return what would turn the assumed end round, by walking again."""
        dropped = ends[0].trace.dropped
        for change, world in self._candidates(ends):
            # The rules' own ban lets a trickle past the block lists; nobody would ask for it.
            if dropped and change.kind is RemedyKind.BANNED:
                continue
            others = self._ends(message, world)
            if others[0].trace.dropped != dropped:
                yield replace(change, effect=_effect(others))
        for change in self._other_messages(message):
            if (change.effect is Effect.DROPPED) != dropped:
                yield change

    def _candidates(self, ends: tuple[Outcome, ...]) -> Iterator[tuple[Remedy, World]]:
        yield from self._of_learned_sets()
        yield from self._of_static_sets(ends)
        yield from self._of_limits(ends)

    def _of_learned_sets(self) -> Iterator[tuple[Remedy, World]]:
        world, address, sets = self._source.world, self._source.address, self._source.sets
        for kind, wanted in ((RemedyKind.BAN_ENDS, _BANS), (RemedyKind.WINDOW_ENDS, _WINDOWS)):
            held = [name for name in wanted if self._holds(name)]
            if held:
                change = Remedy(kind, " and ".join(held), seconds=self._left(held))
                yield change, _without(world, held, address)
        learned = sets.get(names.SET_LEARNED)
        if learned is not None and not (learned.present and self._holds(names.SET_REGISTERED)):
            ways = self._ways_to_log_in()
            if ways:
                yield Remedy(RemedyKind.SUCCESS), self._after_success(ways)
        expected = sets.get(names.SET_EXPECTED)
        if expected is not None and not expected.present:
            spoken = world.with_member(names.SET_EXPECTED, address, present=True)
            yield Remedy(RemedyKind.SPOKEN), spoken
        banned = sets.get(names.SET_BANNED)
        if banned is not None and banned.present is False:
            yield Remedy(RemedyKind.BANNED, names.SET_BANNED), self._after_ban()
        for name in _MERITS:
            if self._holds(name):
                without = world.with_member(name, address, present=False)
                yield Remedy(RemedyKind.FORGOTTEN, name, seconds=self._left([name])), without

    def _holds(self, name: str) -> bool:
        """Tell whether a dynamic set has the source, or at least one of its ports."""
        held = self._source.sets.get(name)
        return held is not None and bool(held.present or self._source.doors(name))

    def _left(self, held: list[str]) -> float | None:
        """Return when the last of them ends; None where one stays."""
        ends = [
            each.left
            for name in held
            for each in (self._source.doors(name).values() or (self._source.sets[name],))
        ]
        known = [left for left in ends if left is not None]
        return max(known) if len(known) == len(ends) else None

    def _after_success(self, ways: tuple[PacketTransport, ...]) -> World:
        """Do as the chain SIP_LEARN does: only datagrams' own ban ends with a login."""
        address = self._source.address
        better = self._source.world.with_member(names.SET_LEARNED, address, present=True)
        if self._question.transport in ways and names.SET_REGISTERED in self._source.sets:
            better = better.with_member(names.SET_REGISTERED, address, present=True)
        if names.SET_BANNED in self._source.sets:
            better = better.with_member(names.SET_BANNED, address, present=False)
        return better

    def _after_ban(self) -> World:
        """Ban as streams do, whose ban is one for datagrams as well."""
        address, world = self._source.address, self._source.world
        for name in (names.SET_BANNED, names.SET_BANNED_TCP):
            if name in self._source.sets:
                world = world.with_member(name, address, present=True)
        return world

    def _ways_to_log_in(self) -> tuple[PacketTransport, ...]:
        """Return the transports over which a login can reach the switch, sooner or later."""
        limits = {reading.rule_id: Limit.WITHIN for reading in self._source.readings}
        world = self._source.world.with_limits(limits)
        patient = _without(world, [n for n in _WINDOWS if self._holds(n)], self._source.address)
        plain = (PacketTransport.UDP, PacketTransport.TCP)
        spoken = self._question.transport
        found = []
        for transport in (spoken,) if spoken in plain else plain:
            asked = asking(self._question, transport, REGISTER, self._ruleset)
            if asked is not None and self._arrive(asked, patient) is not Effect.DROPPED:
                found.append(transport)
        return tuple(found)

    def _of_static_sets(self, ends: tuple[Outcome, ...]) -> Iterator[tuple[Remedy, World]]:
        """Turn the source's place round in every set of the policy that was asked about it."""
        world = self._source.world
        asked = {
            match.set: None
            for end in ends
            for step in end.trace.steps
            for match in step.rule.matches
            if isinstance(match, InSet)
        }
        for name in asked:
            item = world.ruleset.set(name)
            inside = bool(item.networks or item.endpoints)
            if item.dynamic or not (inside or name in _ENTRANCES):
                continue
            kind = RemedyKind.LEAVES_SET if inside else _ENTRANCES[name]
            other = world.with_member(name, self._source.address, present=not inside)
            yield Remedy(kind, name), other

    def _of_limits(self, ends: tuple[Outcome, ...]) -> Iterator[tuple[Remedy, World]]:
        world = self._source.world
        asked = {step.rule_id for end in ends for step in end.trace.steps}
        readings = [item for item in self._source.readings if item.rule_id in asked]
        above = tuple(item for item in readings if item.standing is Limit.EXCEEDED)
        if above:
            within = {item.rule_id: Limit.WITHIN for item in above}
            yield Remedy(RemedyKind.SLOWER, readings=above), world.with_limits(within)
        for item in readings:
            if item.standing is Limit.WITHIN:
                exceeded = world.with_limits({item.rule_id: Limit.EXCEEDED})
                yield Remedy(RemedyKind.FASTER, readings=(item,)), exceeded

    def _other_messages(self, message: Message) -> Iterator[Remedy]:
        """Try the other usual methods where one was named, and SIP over the other transports."""
        transport = self._question.transport
        if message.method is None or transport is None:
            return
        if self._named.method is not None:
            for method in USUAL_METHODS:
                effect = self._arrival(transport, method)
                if effect is not None and method != message.method:
                    yield Remedy(RemedyKind.METHOD, method, effect=effect)
        if self._named.to_port is None:
            for other in PacketTransport:
                effect = self._arrival(other, message.method)
                if effect is not None and other is not transport:
                    yield Remedy(RemedyKind.TRANSPORT, other.value, effect=effect)

    def _arrival(self, transport: PacketTransport, method: str) -> Effect | None:
        """Return what becomes of a method over a transport; None where there is no such SIP."""
        if (transport, method) not in self._arrivals:
            asked = asking(self._question, transport, method, self._ruleset)
            effect = None if asked is None else self._arrive(asked, self._source.world)
            self._arrivals[transport, method] = effect
        return self._arrivals[transport, method]


def _without(world: World, held: list[str], address: IpAddress) -> World:
    for name in held:
        world = world.with_member(name, address, present=False)
    return world


def _effect(ends: tuple[Outcome, ...]) -> Effect:
    dropped = {end.trace.dropped for end in ends}
    if len(dropped) > 1:
        return Effect.DEPENDS
    return Effect.DROPPED if dropped.pop() else Effect.PASSES
