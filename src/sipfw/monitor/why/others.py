"""What rules of others do with a packet on its way to sipfw, past it and behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.compare.foreign import Verdict
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.stricter.loss import Loss
from sipfw.monitor.doctor.stricter.openings import commands
from sipfw.monitor.host_path.around import Around, loosened
from sipfw.monitor.host_path.fit import ESTABLISHED, NEW, Grant
from sipfw.monitor.host_path.path import HostPath
from sipfw.monitor.host_path.removal import removal
from sipfw.monitor.host_path.ways import ends
from sipfw.ruleset.match import CtState, PortRange
from sipfw.simulate.evaluate import INCOMING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from sipfw.host.runner import Runner
    from sipfw.monitor.doctor.rules import HostRules
    from sipfw.monitor.host_path.path import Visit
    from sipfw.monitor.host_path.ways import End, HookChains, Step
    from sipfw.ruleset.model import Base
    from sipfw.simulate.packet import Packet


@dataclass(frozen=True, slots=True)
class ForeignEnd:
    """Where a packet ends: at a rule of somebody else, or at the policy of a chain.

    `rule` is None for the policy, else the rule as its program lists it. `place` names rule and
    chain. `rejected` says that the sender is told, `away` where else it goes. `before`
    says that sipfw's rules of that hook are not asked any more. `mend` is the command that takes
    the rule out or opens it, `when` what it rests on where nobody can tell.
    """

    place: str
    rule: str | None
    rejected: bool = False
    away: str | None = None
    before: bool = False
    mend: str | None = None
    when: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Course:
    """A packet's way through the rules of others.

    `first` are sipfw's hooks that it meets as it came, `later` those that it meets as `moved`, with
    the port that another rule gave it. `end` is where it ends for certain, `possible` where it may,
    `answers` where what is sent back ends, and `answers_possible` where that may. `notes` say what
    others change on the way, `unheard` why no program of this host gets it.
    """

    first: tuple[Base, ...] = INCOMING
    later: tuple[Base, ...] = ()
    moved: int | None = None
    untracked: bool = False
    end: ForeignEnd | None = None
    possible: tuple[ForeignEnd, ...] = ()
    answers: ForeignEnd | None = None
    answers_possible: tuple[ForeignEnd, ...] = ()
    unheard: str | None = None
    notes: tuple[str, ...] = ()


# Of a policy that is not applied, or where rules cannot be read.
NOT_JUDGED = Course()


class Others:
    """The rules of others on this host."""

    def __init__(self, rules: HostRules, proc: Path, runner: Runner) -> None:
        self._path = HostPath(rules, proc, runner)
        self._around = Around(proc, runner)
        self._heard = {(item.proto, item.port) for item in self._around.heard}
        self._runner = runner
        self._known: dict[Grant, Course] = {}

    def course(self, packet: Packet) -> Course:
        """Walk a packet, and one that answers it. No rule of others is asked for its content."""
        grant = self._grant(packet)
        if grant not in self._known:
            self._known[grant] = self._walked(grant)
        return self._known[grant]

    def _walked(self, grant: Grant) -> Course:
        found = _Found(self._runner)
        for visit in self._path.travel(grant):
            if not found.take(visit):
                break
        found.mind_listeners(grant.proto, grant.ports.first, self._heard)
        course = found.course()
        if found.end is not None:
            return course
        here = found.grant or grant
        back = _Found(self._runner)
        for visit in self._path.travel(here.answered()):
            if not back.take(visit):
                break
        version = 4 if here.family is Family.IP else 6
        course = replace(
            course,
            answers=back.end,
            answers_possible=back.possible,
            unheard=self._around.unheard(here.proto, here.ports.first, version),
            notes=(*course.notes, *self._around.programs),
        )
        return self._beside_rules(course, grant)

    def _beside_rules(self, course: Course, grant: Grant) -> Course:
        """Add what routes and a full table of connections do."""
        possible = list(course.possible)
        if (full := self._around.full()) and grant.state == NEW and not course.untracked:
            count, limit = full
            possible.append(
                ForeignEnd(
                    f"connection tracking, which is full: {count:,} of {limit:,} entries",
                    None,
                    mend=f"sysctl -w net.netfilter.nf_conntrack_max={2 * limit}",
                    when=("the case that no unanswered entry makes room",),
                )
            )
        if grant.source is not None and not grant.local:
            source = grant.source.network_address
            back = self._around.way_back(source)
            lost = ForeignEnd(f"the routes of this host: none leads to {source}", None)
            if back.none:
                course = replace(course, answers=lost, end=lost if back.everywhere else None)
            possible += [
                ForeignEnd(
                    f"rp_filter=1 of {link}, as its answers leave elsewhere",
                    None,
                    mend=loosened(link),
                    when=(f"the case that it comes in through {link}",),
                )
                for link in back.refusing
            ]
        return replace(course, possible=tuple(possible))

    def _grant(self, packet: Packet) -> Grant:
        family = Family.IP if packet.source.version == 4 else Family.IP6
        interfaces = {packet.in_interface} if packet.in_interface else set()
        established = packet.state is CtState.ESTABLISHED
        grant = Grant(
            "it",
            family,
            packet.protocol.value,
            PortRange(packet.destination_port, packet.destination_port),
            ip_network(packet.source),
            state=ESTABLISHED if established else NEW,
            opens=not established,
            local=bool(packet.local),
        )
        grant = self._path.placed(grant, frozenset({"lo"} if packet.local else interfaces))
        if packet.source_port is None:
            return grant
        return replace(grant, far_ports=PortRange(packet.source_port, packet.source_port))


class _Found:
    """Collects what is met hook by hook."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._passed_by: set[Base] = set()
        self._met: list[Base] = []
        self._later: list[Base] = []
        self._moved: int | None = None
        self.possible: tuple[ForeignEnd, ...] = ()
        self._notes: list[str] = []
        self._untracked = False
        self._known: set[Base] = set()
        self._mover: ForeignEnd | None = None
        self.end: ForeignEnd | None = None
        self.grant: Grant | None = None

    def take(self, visit: Visit) -> bool:
        """Note one hook; False where the packet goes no further."""
        way, end = visit.way, visit.end
        self.grant = visit.moved or visit.grant
        for step in visit.untracked:
            self._note_untracked(way, step)
        if way.ours is not None and (not way.xtables or _meets_ours(way, end)):
            self._met.append(way.ours)
            if self._moved is not None:
                self._later.append(way.ours)
        if way.ours is not None:
            self._known.add(way.ours)
        if way.may_drop:
            self.possible = (*self.possible, *self._may_end(visit))
        if not end.accepted:
            self.end = _ending(visit, end, self._runner)
            return False
        if visit.away is not None:
            self.end = replace(_ending(visit, end, self._runner), away=str(visit.away))
            return False
        if visit.moved is not None and end.step is not None:
            self._moved = visit.moved.ports.first
            self._mover = _ending(visit, end, self._runner)
            place = _place(way, end.step)
            self._notes.append(f"{place} (not ours) leads it to port {self._moved}: {_words(end)}")
        return True

    def mind_listeners(self, proto: str, port: int, heard: Collection[tuple[str, int]]) -> None:
        """Take it for an end where it is led to a port that nobody listens on, unlike its own."""
        if self.end is not None or self._mover is None or self._moved is None:
            return
        if (proto, port) in heard and (proto, self._moved) not in heard:
            away = f"port {self._moved}, where no program listens"
            self.end = replace(self._mover, away=away)

    def _may_end(self, visit: Visit) -> Iterator[ForeignEnd]:
        for end in ends(visit.way, visit.grant, guess=True):
            if end.when and not end.accepted and visit.end.accepted:
                yield replace(_ending(visit, end, self._runner), when=end.when)

    def _note_untracked(self, way: HookChains, step: Step) -> None:
        does = "takes it out of connection tracking, so no rule on its state fits"
        if step.rule.zone and not step.rule.untracks:
            does = "puts it into a zone of connection tracking, where others' connections are not"
        self._untracked = self._untracked or step.rule.untracks
        self._notes.append(f"{_place(way, step)} (not ours) {does}: {step.rule.line}")

    def course(self) -> Course:
        """Return it all. Hooks of ours that nobody listed are judged as if they stood."""
        later = frozenset(self._later)
        met = [
            base
            for base in INCOMING
            if base in self._met or (self.end is None and base not in self._known)
        ]
        return Course(
            tuple(base for base in met if base not in later),
            tuple(base for base in met if base in later),
            self._moved,
            self._untracked,
            self.end,
            self.possible,
            notes=tuple(dict.fromkeys(self._notes)),
        )


def _meets_ours(way: HookChains, end: End) -> bool:
    """Tell whether sipfw's jump is asked before the packet leaves the chain."""
    jump = way.jump_place()
    return jump is not None and (end.place is None or end.place > jump)


def _ending(visit: Visit, end: End, runner: Runner) -> ForeignEnd:
    way = visit.way
    before = way.xtables and way.jump_place() is not None and not _meets_ours(way, end)
    rule = end.rule
    if end.step is None:
        loss = Loss(way, None, None, (visit.grant,), sure=True, behind=True, ours=False, peers=True)
        mend = " && ".join(commands(loss)) or None
        return ForeignEnd(f"the policy of {_chain(way, way.base)}", None, mend=mend)
    return ForeignEnd(
        _place(way, end.step),
        end.step.rule.line,
        rejected=rule is not None and rule.verdict is Verdict.REJECT,
        before=before,
        mend=removal(way, end.step, runner),
    )


def _place(way: HookChains, step: Step) -> str:
    return f"rule {step.number + 1} of {_chain(way, step.chain)}"


def _chain(way: HookChains, chain: str) -> str:
    if way.xtables:
        table = way.tool[2] if len(way.tool) > 1 else "filter"
        return f"{table}/{chain}"
    _, family, table, _ = way.tool
    return f"{family} {table}/{chain}"


def _words(end: End) -> str:
    return "" if end.rule is None else end.rule.line
