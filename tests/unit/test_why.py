"""One source's state, what follows from it, and what would change that."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.kernel.state.limits import LimitTable, SourceBucket, Standing
from sipfw.kernel.state.sources import Held
from sipfw.monitor.why.packets import PacketQuestion, PacketTransport
from sipfw.monitor.why.state import SourceState, Untouched
from sipfw.monitor.why.why import Case, Effect, RemedyKind, explain
from sipfw.policy.load import Request, load
from sipfw.ruleset.match import L4Proto
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.rule import Family
from sipfw.ruleset.source import Door
from sipfw.simulate.state import Limit
from sipfw.simulate.trace import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.match import RateAbove, SeenAtLeast
    from sipfw.ruleset.model import AddressSet, Ruleset

STRANGER = ip_address("198.51.100.7")
PEER = "trusted_peers: [{name: a, signalling: [203.0.113.10]}]\n"


@dataclass
class Kernel(Untouched):
    """A kernel with these sets, buckets and connections; it notes what it was asked."""

    members: dict[str, Held] = field(default_factory=dict)
    ports: dict[str, dict[Door, Held] | None] = field(default_factory=dict)
    buckets: dict[str, list[SourceBucket]] = field(default_factory=dict)
    full: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    open: int | None = 0
    asked: list[str] = field(default_factory=list)

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        self.asked.append(item.name)
        if item.name in self.members:
            return self.members[item.name]
        if door is not None and item.kind is SetKind.ENDPOINT:
            known = self.ports.get(item.name, {})
            return Held(None) if known is None else known.get(door, Held(present=False))
        return super().held(item, source, door)

    def doors(self, item: AddressSet, source: IpAddress) -> Mapping[Door, Held] | None:
        assert item.kind is SetKind.ENDPOINT
        assert source == STRANGER or not self.ports
        return self.ports.get(item.name, {})

    @property
    def first_counts(self) -> int:
        return 2

    def ask(
        self, limit: RateAbove | SeenAtLeast, source: IpAddress, port: int | None = None
    ) -> LimitTable | None:
        assert source == STRANGER or not self.buckets
        name = getattr(limit, "name", "window")
        self.asked.append(name)
        every = self.buckets.get(name, [])
        buckets = tuple(each for each in every if port is None or each.port in {None, port})
        return LimitTable(limit, Family.IP, buckets, cut=name in self.cut, full=name in self.full)

    def connections(self, network: IPv4Network | IPv6Network) -> int | None:
        self.asked.append(str(network))
        return self.open

    def common(self, ruleset: Ruleset) -> dict[str, Limit]:
        assert ruleset.chains
        return {}


def bucket(standing: Standing, port: int | None = None, left: float | None = None) -> SourceBucket:
    return SourceBucket(STRANGER, 32, port, standing, left, 30)


@pytest.fixture
def ruleset(tmp_path: Path) -> Ruleset:
    return compiled(tmp_path, PEER)


def compiled(folder: Path, text: str) -> Ruleset:
    file = folder / "policy.yaml"
    file.write_text(text)
    return compile_policy(load(Request(file=file)))


def case(question: PacketQuestion, ruleset: Ruleset, kernel: Kernel, title: str) -> Case:
    source = SourceState(ruleset, question.source, question.source_port, kernel)
    return next(item for item in explain(question, source).cases if title in item.titles)


def kinds(found: Case) -> dict[RemedyKind, Effect]:
    return {change.kind: change.effect for change in found.changes}


def test_a_ban_says_how_long_and_what_frees(ruleset: Ruleset) -> None:
    kernel = Kernel(members={"banned": Held(present=True, left=2472.0)})
    found = case(PacketQuestion(STRANGER), ruleset, kernel, "INVITE")
    assert found.effect is Effect.DROPPED
    trace = found.outcomes[0].trace
    assert trace.decider is not None
    assert trace.decider.id == "banned.drop"
    ends = next(change for change in found.changes if change.kind is RemedyKind.BAN_ENDS)
    assert ends.seconds == 2472.0
    assert kinds(found)[RemedyKind.BAN_ENDS] is Effect.DEPENDS  # the limit of all sources
    assert kinds(found)[RemedyKind.SUCCESS] is Effect.PASSES
    assert kinds(found)[RemedyKind.TRUST] is Effect.PASSES


def test_no_login_is_advised_where_none_can_arrive(tmp_path: Path) -> None:
    wall = compiled(tmp_path, "bans: {probation: false}\n")
    kernel = Kernel(members={"banned": Held(present=True, left=60.0)})
    assert RemedyKind.SUCCESS not in kinds(case(PacketQuestion(STRANGER), wall, kernel, "INVITE"))


def test_a_login_of_a_banned_source_waits_for_its_limit(ruleset: Ruleset) -> None:
    kernel = Kernel(
        members={"banned": Held(present=True, left=60.0)},
        buckets={"logins": [bucket(Standing.EXCEEDED, left=0.2)]},
    )
    question = PacketQuestion(STRANGER, method="REGISTER")
    found = case(question, ruleset, kernel, "REGISTER with a password")
    assert found.effect is Effect.DROPPED
    assert kinds(found)[RemedyKind.SLOWER] is Effect.PASSES
    assert case(question, ruleset, kernel, "REGISTER").effect is Effect.PASSES


def test_a_limit_that_nobody_can_read_has_two_outcomes(ruleset: Ruleset) -> None:
    kernel = Kernel(buckets={"source": [bucket(Standing.UNKNOWN)]})
    found = case(PacketQuestion(STRANGER, 5060), ruleset, kernel, "INVITE")
    assert found.effect is Effect.DEPENDS
    assert not found.outcomes[0].trace.dropped
    ends = {tuple(item.rule_id for item in end.when): end for end in found.outcomes}
    assert set(ends) == {
        (),
        ("rate.per-source",),
        ("aggregate.looked-at",),
        ("aggregate.within",),
        ("rate.per-source", "ban.add"),
    }
    assert ends["rate.per-source",].trace.dropped


@pytest.mark.parametrize(
    ("buckets", "port", "standing"),
    [
        ([], None, Limit.WITHIN),
        ([(Standing.EXCEEDED, 5060)], 5060, Limit.EXCEEDED),
        ([(Standing.EXCEEDED, 5060)], 5062, Limit.WITHIN),
        ([(Standing.EXCEEDED, 5060)], None, Limit.UNKNOWN),
        ([(Standing.WITHIN, 5060), (Standing.WITHIN, 5061)], None, Limit.WITHIN),
    ],
)
def test_a_limit_per_port_depends_on_the_port(
    ruleset: Ruleset, buckets: list[tuple[Standing, int]], port: int | None, standing: Limit
) -> None:
    kernel = Kernel(buckets={"port": [bucket(state, number) for state, number in buckets]})
    source = SourceState(ruleset, STRANGER, port, kernel)
    assert source.reading("rate.hashlimit").standing is standing


def test_a_list_that_was_cut_short_proves_nothing(ruleset: Ruleset) -> None:
    source = SourceState(ruleset, STRANGER, None, Kernel(cut=("port",)))
    assert source.reading("rate.hashlimit").standing is Limit.UNKNOWN


def test_a_full_table_drops_whom_it_does_not_know(ruleset: Ruleset) -> None:
    found = case(PacketQuestion(STRANGER), ruleset, Kernel(full=("source",)), "INVITE")
    assert found.effect is Effect.DROPPED


@pytest.mark.parametrize(
    ("count", "standing"),
    [(0, Limit.WITHIN), (9, Limit.WITHIN), (10, Limit.UNKNOWN), (None, Limit.UNKNOWN)],
)
def test_connections_are_counted_with_the_new_one(
    ruleset: Ruleset, count: int | None, standing: Limit
) -> None:
    source = SourceState(ruleset, STRANGER, None, Kernel(open=count))
    assert source.reading("connlimit.per-source").standing is standing


def test_only_what_a_packet_may_meet_is_read(ruleset: Ruleset) -> None:
    kernel = Kernel()
    peer = ip_address("203.0.113.10")
    source = SourceState(ruleset, peer, None, kernel)
    kernel.asked.clear()
    found = explain(PacketQuestion(peer, to_port=5060), source).cases[0]
    assert found.effect is Effect.PASSES
    assert "subnet" not in kernel.asked
    assert {change.kind for change in found.changes} == {RemedyKind.LEAVES_SET}


def test_a_refused_connection_is_the_whole_answer(ruleset: Ruleset) -> None:
    kernel = Kernel(members={"banned-tcp": Held(present=True)})
    source = SourceState(ruleset, STRANGER, None, kernel)
    asked = PacketQuestion(STRANGER, transport=PacketTransport.TCP)
    (found,) = explain(asked, source).cases
    assert found.titles == ("a connection",)
    assert found.effect is Effect.DROPPED


def test_sets_that_follow_dns_are_as_the_kernel_has_them(tmp_path: Path) -> None:
    named = compiled(tmp_path, "trusted_peers: [{name: a, signalling: [sip.example.invalid]}]\n")
    inside = Kernel(members={"trusted": Held(present=True)})
    assert case(PacketQuestion(STRANGER), named, inside, "OPTIONS").effect is Effect.PASSES
    assert case(PacketQuestion(STRANGER), named, Kernel(), "OPTIONS").effect is Effect.DROPPED


def test_a_set_that_cannot_be_read_has_two_outcomes(ruleset: Ruleset) -> None:
    kernel = Kernel(members={"learned": Held(None), "banned": Held(present=False)})
    found = case(PacketQuestion(STRANGER), ruleset, kernel, "OPTIONS")
    assert found.effect is Effect.DEPENDS
    assert [end.trace.dropped for end in found.outcomes] == [True, False]


def test_another_method_or_transport_is_named_where_it_fares_otherwise(ruleset: Ruleset) -> None:
    found = case(PacketQuestion(STRANGER, method="OPTIONS"), ruleset, Kernel(), "OPTIONS")
    names = {(change.kind, change.name) for change in found.changes}
    assert (RemedyKind.METHOD, "REGISTER") in names
    assert (RemedyKind.METHOD, "INVITE") in names
    assert not any(kind is RemedyKind.TRANSPORT for kind, _ in names)


def test_a_learned_source_that_is_forgotten_is_a_stranger_again(ruleset: Ruleset) -> None:
    kernel = Kernel(members={"learned": Held(present=True, left=600.0)})
    found = case(PacketQuestion(STRANGER), ruleset, kernel, "OPTIONS")
    assert found.effect is Effect.PASSES
    forgotten = next(change for change in found.changes if change.kind is RemedyKind.FORGOTTEN)
    assert (forgotten.name, forgotten.seconds, forgotten.effect) == (
        "learned",
        600.0,
        Effect.DROPPED,
    )


UDP, TCP = Door(L4Proto.UDP, 5060), Door(L4Proto.TCP, 5060)
LOGIN = "REGISTER with a password"


def test_a_banned_source_goes_on_from_the_port_that_has_logged_in(ruleset: Ruleset) -> None:
    kernel = Kernel(
        members={"banned": Held(present=True, left=60.0)},
        ports={"registered": {UDP: Held(present=True, left=600.0)}},
    )
    own = case(PacketQuestion(STRANGER, 5060, method="INVITE"), ruleset, kernel, "INVITE")
    assert own.effect is Effect.PASSES
    assert kinds(own)[RemedyKind.FORGOTTEN] is Effect.DROPPED
    assert case(PacketQuestion(STRANGER, 5062), ruleset, kernel, "INVITE").effect is Effect.DROPPED


def test_without_a_port_its_endpoints_are_not_guessed(ruleset: Ruleset) -> None:
    kernel = Kernel(
        members={"banned": Held(present=True, left=60.0)},
        ports={"registered": {UDP: Held(present=True, left=600.0)}},
    )
    found = case(PacketQuestion(STRANGER), ruleset, kernel, "INVITE")
    assert found.effect is Effect.DEPENDS
    passing = next(end for end in found.outcomes if not end.trace.dropped)
    assert [item.unless for item in passing.when] == ["it comes from a port that is in registered"]


def test_endpoints_that_cannot_be_listed_are_unknown(ruleset: Ruleset) -> None:
    kernel = Kernel(members={"banned": Held(present=True)}, ports={"registered": None})
    assert case(PacketQuestion(STRANGER), ruleset, kernel, "INVITE").effect is Effect.DEPENDS


@pytest.mark.parametrize("name", ["shut", "barred"])
def test_what_refuses_logins_for_a_while_ends_by_itself(ruleset: Ruleset, name: str) -> None:
    held = Held(present=True, left=40.0)
    kernel = Kernel(members={"barred": held} if name == "barred" else {})
    if name == "shut":
        kernel.ports["shut"] = {UDP: held}
    found = case(PacketQuestion(STRANGER, 5060), ruleset, kernel, LOGIN)
    assert found.effect is Effect.DROPPED
    ends = next(change for change in found.changes if change.kind is RemedyKind.WINDOW_ENDS)
    assert (ends.name, ends.seconds) == (name, 40.0)
    assert (
        case(PacketQuestion(STRANGER, 5060), ruleset, kernel, "REGISTER").effect is Effect.DEPENDS
    )


def test_a_ban_over_tcp_ends_with_no_login(ruleset: Ruleset) -> None:
    """A login over UDP frees from the ban of datagrams only, as the chain SIP_LEARN says."""
    banned = Held(present=True, left=60.0)
    kernel = Kernel(members={"banned": banned, "banned-tcp": banned})
    asked = PacketQuestion(STRANGER, 5060, transport=PacketTransport.TCP)
    found = case(asked, ruleset, kernel, "a connection")
    assert found.effect is Effect.DROPPED
    ends = next(change for change in found.changes if change.kind is RemedyKind.BAN_ENDS)
    assert (ends.name, ends.seconds) == ("banned and banned-tcp", 60.0)
    assert RemedyKind.SUCCESS not in kinds(found)
    over_udp = case(PacketQuestion(STRANGER, 5060), ruleset, kernel, "INVITE")
    assert kinds(over_udp)[RemedyKind.SUCCESS] is Effect.PASSES


def test_a_ban_over_udp_touches_no_stream(ruleset: Ruleset) -> None:
    kernel = Kernel(members={"banned": Held(present=True)})
    asked = PacketQuestion(STRANGER, 5060, transport=PacketTransport.TCP)
    assert case(asked, ruleset, kernel, "a connection").effect is not Effect.DROPPED
    assert case(asked, ruleset, kernel, "REGISTER").effect is Effect.PASSES


def test_a_segment_that_is_not_let_in_is_reset(ruleset: Ruleset) -> None:
    asked = PacketQuestion(STRANGER, 5060, transport=PacketTransport.TCP)
    found = case(asked, ruleset, Kernel(), "OPTIONS")
    assert found.effect is Effect.DROPPED
    assert found.outcomes[0].trace.verdict is Verdict.RESET


@pytest.mark.parametrize(
    ("held", "effect"),
    [
        (Held(present=False), Effect.PASSES),
        (Held(present=True, bytes=48_000), Effect.PASSES),
        (Held(present=True, bytes=49_000), Effect.DROPPED),
        (Held(present=True, bytes=48_920), Effect.DEPENDS),
        (Held(present=True), Effect.DEPENDS),
    ],
)
def test_a_stream_is_held_against_what_it_has_said(
    ruleset: Ruleset, held: Held, effect: Effect
) -> None:
    """The segment is counted with its headers: 20 for IPv4 and 20 to 60 for TCP."""
    kernel = Kernel(ports={"streams": {TCP: held}} if held.present else {})
    asked = PacketQuestion(
        STRANGER, 5060, transport=PacketTransport.TCP, payload=b"REGISTER " + b"x" * 160
    )
    assert case(asked, ruleset, kernel, "the file's 169 bytes").effect is effect


def test_in_ipv6_a_source_is_a_prefix(ruleset: Ruleset) -> None:
    source = ip_address("2001:db8::5")
    kernel = Kernel(members={"banned": Held(present=True, left=60.0)})
    found = case(PacketQuestion(source, 5060), ruleset, kernel, "INVITE")
    assert found.effect is Effect.DROPPED
    reasons = [step.why for step in found.outcomes[0].trace.steps if step.matched]
    assert "source 2001:db8::/64 is in banned for another 1 min" in reasons
