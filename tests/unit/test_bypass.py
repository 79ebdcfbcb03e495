"""Rules before our jump: which of them let packets past it, directly or in a chain of theirs."""

from __future__ import annotations

import pytest

from sipfw.compare.bypass import ways_past
from sipfw.compare.foreign import ForeignChain, ForeignRule
from sipfw.compare.live import LiveJump, LiveRule
from sipfw.kernel.xtables.foreign import foreign_rule
from sipfw.lower.xtables import Family

HOOKS = {"raw": "PREROUTING", "filter": "INPUT"}


def found(
    before: str,
    *inside: str,
    table: str = "raw",
    lead: str | None = None,
    of_open: bool = False,
) -> list[str]:
    """Return what is named; a line inside says its chain, as `-A CHAIN ...`."""
    names = {line.split()[1] for line in inside}
    chains: dict[str, list[ForeignRule]] = {}
    for line in inside:
        chains.setdefault(line.split()[1], []).append(foreign_rule(line, names))
    led = tuple(ForeignChain(name, tuple(rules)) for name, rules in chains.items())
    ours = LiveRule("hook", "00000000", 0, 0, "ours")
    first = foreign_rule(f"-A {HOOKS[table]} {before}", names)
    jump = LiveJump(Family.IP, table, HOOKS[table], ours, (first,), led)
    return list(ways_past(jump, lead, of_open=of_open))


def test_a_chain_that_accepts_is_named_with_the_rule_that_does() -> None:
    assert found("-j THEIRS", "-A THEIRS -p tcp -j LOG", "-A THEIRS -s 192.0.2.6/32 -j ACCEPT") == [
        "-A PREROUTING -j THEIRS and there -A THEIRS -s 192.0.2.6/32 -j ACCEPT"
    ]


@pytest.mark.parametrize(
    "inside",
    [
        ("-A THEIRS -j DROP",),
        ("-A THEIRS -s 192.0.2.6/32 -j RETURN",),
        ("-A THEIRS -j REJECT --reject-with icmp-port-unreachable", "-A THEIRS -j ACCEPT"),
        ('-A THEIRS -m comment --comment "-j ACCEPT" -j DROP', "-A THEIRS -j ACCEPT"),
        ("-A THEIRS -m comment --comment wall -j DROP", "-A THEIRS -j ACCEPT"),
        ("-A THEIRS -i lo -j ACCEPT",),
        ("-A THEIRS -j INNER", "-A INNER -j THEIRS"),
        ("-A THEIRS -g INNER", "-A INNER -p tcp -j MARK --set-xmark 0x1/0x1"),
    ],
)
def test_a_chain_that_lets_nothing_past(inside: tuple[str, ...]) -> None:
    assert found("-j THEIRS", *inside) == []


def test_a_ring_of_chains_with_a_way_out() -> None:
    inside = ("-A THEIRS -j INNER", "-A INNER -j THEIRS", "-A INNER -p udp -j ACCEPT")
    assert found("-j THEIRS", *inside) == [
        "-A PREROUTING -j THEIRS and there -A INNER -p udp -j ACCEPT"
    ]


@pytest.mark.parametrize("inside", ["-A THEIRS -s 192.0.2.6/32 -j DROP", "-A THEIRS -j RETURN"])
def test_the_end_of_a_chain_that_was_gone_to_does_not_come_back(inside: str) -> None:
    assert found("-g THEIRS", inside) == ["-A PREROUTING -g THEIRS"]


def test_a_wall_that_was_gone_to() -> None:
    assert found("-g THEIRS", "-A THEIRS -s 192.0.2.6/32 -j RETURN", "-A THEIRS -j DROP") == []


@pytest.mark.parametrize(
    "inside",
    [
        "-A THEIRS -i virbr0 -p udp -m udp --dport 53 -j ACCEPT",
        "-A THEIRS -p udp -m udp --dport 41641 -j ACCEPT",
        "-A THEIRS -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ],
)
def test_what_a_tool_opens_for_itself_matters_where_sip_is_judged(inside: str) -> None:
    assert found("-j THEIRS", inside, table="filter") == []
    assert found("-j THEIRS", inside, table="raw") == [
        f"-A PREROUTING -j THEIRS and there {inside}"
    ]


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ("-m conntrack --ctstate RELATED,ESTABLISHED", False),
        ("-m state --state ESTABLISHED", False),
        ("-m conntrack --ctstate NEW,ESTABLISHED", True),
        ("-m conntrack ! --ctstate ESTABLISHED", True),
        ("-s 192.0.2.6/32", True),
    ],
)
def test_open_connections_are_accepted_by_our_host_part_too(condition: str, *, named: bool) -> None:
    assert bool(found(f"{condition} -j ACCEPT", table="filter")) is named


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("-p udp -j NFQUEUE --queue-num 0", True),
        ('-m comment --comment "-j ACCEPT" -j DROP', False),
        ('-m comment --comment "a -j ACCEPT b" -j DROP', False),
        ('-m comment --comment "say \\" -i lo " -j ACCEPT', True),
        ("-m comment --comment -j -j ACCEPT", True),
        ("-j LOG --log-prefix -jACCEPT", False),
        ("-j CT --notrack", False),
    ],
)
def test_other_targets_and_free_texts(line: str, *, named: bool) -> None:
    assert bool(found(line)) is named


def test_open_connections_pass_by_where_streams_are_judged() -> None:
    stream = "-A SIPFW_INPUT -p tcp -m conntrack --ctorigdstport 5060 -g SIP_STREAM"
    line = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    inside = f"-A THEIRS {line}"
    assert found(line, table="filter", lead=stream, of_open=True) == [f"-A INPUT {line}"]
    assert found("-j THEIRS", inside, table="filter", lead=stream, of_open=True) == [
        f"-A INPUT -j THEIRS and there {inside}"
    ]
    assert found("-p udp -j ACCEPT", table="filter", lead=stream, of_open=True) == []


LEADS = (
    "-A SIPFW_INPUT -p tcp -m multiport --dports 5060,5061 --syn -j SIP_CONNECTIONS",
    "-A SIPFW_INPUT -p tcp -m tcp --syn -m conntrack --ctorigdstport 5060:5061 -j SIP_CONNECTIONS",
)


@pytest.mark.parametrize(
    ("way", "concerns"),
    [
        ("-j ACCEPT", True),
        ("-p tcp -j ACCEPT", True),
        ("-p tcp -m tcp --dport 5061 -j ACCEPT", True),
        ("-p tcp -m tcp --dport 1024:65535 -j ACCEPT", True),
        ("-p tcp -m multiport --dports 22,5000:5100 -j ACCEPT", True),
        ("-p tcp -m tcp ! --dport 22 -j ACCEPT", True),
        ("! -p udp -j ACCEPT", True),
        ("-p tcp -m tcp --dport 22 -j ACCEPT", False),
        ("-p tcp -m multiport --dports 22,80:443 -j ACCEPT", False),
        ("-p udp -j ACCEPT", False),
        ('-p tcp -m tcp --dport 22 -m comment --comment "--dport 5060" -j ACCEPT', False),
    ],
)
def test_which_ways_concern_a_rule_for_ports(way: str, concerns: bool) -> None:
    for lead in LEADS:
        assert bool(found(way, table="filter", lead=lead)) == concerns
        # In a chain behind a rule of the same ports, or of none.
        inner = found("-j THEIRS", f"-A THEIRS {way}", table="filter", lead=lead)
        assert bool(inner) == concerns


def test_the_rule_that_concerns_is_found_behind_others() -> None:
    inside = [f"-A THEIRS -p tcp -m tcp --dport {port} -j ACCEPT" for port in (22, 80, 5061)]
    assert found("-j THEIRS", *inside, table="filter") == []
    assert found("-j THEIRS", *inside, table="filter", lead=LEADS[1]) == [
        f"-A INPUT -j THEIRS and there {inside[2]}"
    ]
    assert found("-p tcp --dport 22 -j THEIRS", *inside, table="filter", lead=LEADS[1]) == []
