"""What an nftables rule leaves out, and what it must not leave out; where the chains are hooked."""

from __future__ import annotations

import pytest
from lowered import ORIGIN, nft_lines, nft_plan

from sipfw.lower.nftables import lower
from sipfw.lower.nftables_hooks import base_lines
from sipfw.ruleset.match import (
    Direction,
    Interface,
    L4Proto,
    Match,
    PortRange,
    Ports,
    Protocol,
    StartsWithOneOf,
)
from sipfw.ruleset.model import (
    AddressSet,
    Base,
    Chain,
    Hook,
    Layer,
    Priority,
    Ruleset,
    SetKind,
)
from sipfw.ruleset.rule import (
    Accept,
    Action,
    Done,
    Drop,
    Goto,
    Jump,
    Return,
    Rule,
    UpdateSet,
)

WORDS = StartsWithOneOf((b"ACK ", b"BYE "))
OTHER = StartsWithOneOf((b"SIP/",))
TCP_WORDS = StartsWithOneOf((b"SIP/",), L4Proto.TCP)
BANNED = AddressSet("banned", SetKind.HOST, "banned", ORIGIN, timeout=3600)
UDP = Protocol(L4Proto.UDP)
BARE = "@th,64,32 { 0x41434b20, 0x42594520 }"
TESTED = f"meta l4proto udp {BARE}"
ON = Goto("NEXT")


def rule(name: str, *matches: Match, action: Action | None = None) -> Rule:
    return Rule(name, matches, action or Drop(), "a rule", ORIGIN)


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ((rule("rest", action=ON),), BARE),
        ((rule("udp", UDP), rule("rest", action=ON)), BARE),
        ((rule("more", OTHER, action=ON), rule("udp", UDP), rule("rest", action=ON)), BARE),
        # A TCP segment whose acknowledgment number looks like a word comes to NEXT.
        ((rule("rest", action=Goto("ELSEWHERE")),), BARE),
        ((rule("rest", UDP, action=ON),), TESTED),
        ((rule("tcp", Protocol(L4Proto.TCP)), rule("rest", action=ON)), TESTED),
        ((rule("tcp", TCP_WORDS, action=ON), rule("rest", action=ON)), TESTED),
        ((rule("all"), rule("rest", action=ON)), TESTED),
        # Nothing behind takes what is left: the chain goes on where it came from.
        ((), TESTED),
    ],
)
def test_udp_need_not_be_tested_where_the_rest_is_led_on(
    behind: tuple[Rule, ...], expected: str
) -> None:
    chains = nft_plan(rule("words", WORDS, action=ON), *behind).chains
    assert [chain.rules[0].match for chain in chains if chain.base is None] == [expected] * 2


@pytest.mark.parametrize("action", [Drop(), Accept(), Done(), Return(), UpdateSet("banned")])
def test_no_segment_is_decided_about_by_its_acknowledgment(action: Action) -> None:
    (line,) = nft_lines(WORDS, action=action, sets=(BANNED,))
    assert line.startswith(f"{TESTED} counter ")


@pytest.mark.parametrize(
    ("matches", "action", "counted"),
    [
        ((), Goto("NEXT"), False),
        ((), Jump("NEXT"), False),
        ((WORDS,), Goto("NEXT"), False),
        ((UDP,), Goto("NEXT"), True),
        ((WORDS, UDP), Goto("NEXT"), True),
        ((), Drop(), True),
        ((WORDS,), Accept(), True),
    ],
)
def test_a_rule_that_only_leads_on_has_no_counter(
    matches: tuple[Match, ...], action: Action, *, counted: bool
) -> None:
    (line,) = nft_lines(*matches, action=action)
    assert ("counter" in line.split()) is counted


def udp(*ranges: tuple[int, int], direction: Direction = Direction.DESTINATION) -> Ports:
    return Ports(L4Proto.UDP, tuple(PortRange(*each) for each in ranges), direction)


@pytest.mark.parametrize(
    ("rules", "condition"),
    [
        ((rule("a", udp((5060, 5060))),), "th dport 5060 "),
        (
            (rule("a", udp((5062, 5063))), rule("b", udp((5060, 5060)), WORDS)),
            "th dport { 5060, 5062, 5063 } ",
        ),
        ((rule("lo", Interface("lo"), action=Done()), rule("a", udp((1, 1)))), "th dport 1 "),
        ((rule("lo", Interface("lo")), rule("a", udp((1, 1)))), ""),
        ((rule("eth", Interface("eth0"), action=Done()), rule("a", udp((1, 1)))), ""),
        ((rule("a", udp((5060, 5060))), rule("rest")), ""),
        ((rule("a", udp((5060, 5060), direction=Direction.SOURCE)),), ""),
        (
            (rule("a", udp((10000, 10031))),),
            f"th dport {{ {', '.join(map(str, range(10000, 10032)))} }} ",
        ),
        ((rule("a", udp((10000, 10032))),), ""),
        ((rule("a", udp((10000, 20000))),), ""),
        ((rule("a", udp()),), ""),
    ],
)
def test_only_packets_that_some_rule_concerns_enter_a_chain(
    rules: tuple[Rule, ...], condition: str
) -> None:
    (hook,) = [chain for chain in nft_plan(*rules).chains if chain.base is not None]
    assert [(each.match, each.action, each.counted) for each in hook.rules] == [
        (f"{condition}meta nfproto ipv4", "goto CHAIN4", False),
        (f"{condition}meta nfproto ipv6", "goto CHAIN6", False),
    ]
    ids = [each.comment.partition("#")[0] for each in hook.rules]
    assert ids == ["sipfw:hook.raw.prerouting/1", "sipfw:hook.raw.prerouting/2"]


@pytest.mark.parametrize(
    ("hook", "priority", "name", "line"),
    [
        (
            Hook.PREROUTING,
            Priority.RAW,
            "raw_prerouting",
            "type filter hook prerouting priority -300; policy accept;",
        ),
        (
            Hook.OUTPUT,
            Priority.RAW,
            "raw_output",
            "type filter hook output priority -300; policy accept;",
        ),
        (
            Hook.PREROUTING,
            Priority.MANGLE,
            "mangle_prerouting",
            "type filter hook prerouting priority -150; policy accept;",
        ),
        (
            Hook.INPUT,
            Priority.FILTER,
            "filter_input",
            "type filter hook input priority 0; policy accept;",
        ),
    ],
)
def test_each_base_chain_has_its_place(
    hook: Hook, priority: Priority, name: str, line: str
) -> None:
    base = Base(hook, priority)
    chain = Chain("CHAIN", Layer.ENTRY, "a chain", (rule("a"),), priority, base)
    first, *_ = lower(Ruleset((chain,), (), ())).chains
    assert (first.name, first.base) == (name, line)
    assert base_lines()[name] == line
