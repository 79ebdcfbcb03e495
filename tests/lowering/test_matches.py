"""Each match in both families of iptables and nftables; the rows are in match_cases."""

from __future__ import annotations

from ipaddress import ip_network
from typing import get_args

import pytest
from lowered import ORIGIN, lines, nft_lines, nft_plan, plan, without_digests
from match_cases import CASES, PER_SECOND, SETLESS, SETS, TCP, UDP, Case

from sipfw.lower.iptables import all_rules
from sipfw.lower.xtables import Family
from sipfw.ruleset.match import (
    CountAbove,
    InSet,
    L4Proto,
    Match,
    PayloadAt,
    PayloadContains,
    PortRange,
    Ports,
    PrefixLengths,
    Protocol,
    Rate,
    RateAbove,
    StartsWithOneOf,
    TcpSyn,
    TimeUnit,
)
from sipfw.ruleset.model import AddressSet, SetKind
from sipfw.ruleset.rule import Drop, Goto, Rule


@pytest.mark.parametrize("case", CASES, ids=str)
def test_match_of_iptables(case: Case) -> None:
    assert _iptables(case) == _ending(case.ip, case.ip6, "-j DROP")


@pytest.mark.parametrize("case", SETLESS, ids=str)
def test_match_of_iptables_without_ipset(case: Case) -> None:
    assert _iptables(case, ipset=False) == _ending(case.ip, case.ip6, "-j DROP")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_match_of_nftables(case: Case) -> None:
    found = {
        family: [without_digests(line) for line in nft_lines(case.match, sets=SETS, family=family)]
        for family in Family
    }
    expected = _ending(case.nft, case.nft6, "counter drop")
    assert found == {
        # A search is no rule of nft's own, and so has no counter of its own.
        family: [line.replace("counter ", "") if "search" in line else line for line in rules]
        for family, rules in expected.items()
    }


def _iptables(case: Case, *, ipset: bool = True) -> dict[Family, list[str]]:
    return {
        family: [
            without_digests(line)
            for line in lines(case.match, sets=SETS, ipset=ipset, family=family)
        ]
        for family in Family
    }


def _ending(ip: tuple[str, ...], ip6: tuple[str, ...], ending: str) -> dict[Family, list[str]]:
    return {
        family: [f"{rule} {ending}" for rule in rules]
        for family, rules in ((Family.IP, ip), (Family.IP6, ip6))
    }


def test_every_kind_of_match_has_a_case() -> None:
    assert {type(case.match) for case in CASES} == set(get_args(Match))


def _rate_above(**changes: object) -> RateAbove:
    values: dict[str, object] = {"burst": 20, "prefix": PrefixLengths(32, 64), **changes}
    return RateAbove("source", PER_SECOND, **values)  # type: ignore[arg-type]


def _words(match: RateAbove, family: Family = Family.IP) -> dict[str, str]:
    words = lines(match, family=family)[0].split()
    assert words[:2] == ["-m", "hashlimit"]
    return dict(zip(words[2::2], words[3::2], strict=True))


def test_hashlimit_of_one_address_needs_no_mask() -> None:
    words = _words(_rate_above())
    assert words.pop("--hashlimit-name").startswith("sf-source-")
    assert words == {
        "--hashlimit-above": "10/second",
        "--hashlimit-burst": "20",
        "--hashlimit-mode": "srcip",
        "--hashlimit-htable-size": "16384",
        "--hashlimit-htable-max": "65536",
        "--hashlimit-htable-expire": "60000",
        "-j": "DROP",
    }
    assert _words(_rate_above(), Family.IP6)["--hashlimit-srcmask"] == "64"


def test_hashlimit_by_port() -> None:
    assert _words(_rate_above(with_port=True))["--hashlimit-mode"] == "srcip,srcport"


def test_a_bucket_is_not_forgotten_before_it_has_refilled() -> None:
    slow = RateAbove("m-reg", Rate(1, TimeUnit.MINUTE), 10, PrefixLengths(32, 64), expire=30)
    assert _words(slow)["--hashlimit-htable-expire"] == "601000"


@pytest.mark.parametrize(
    "change",
    [
        {"burst": 21},
        {"expire": 61},
        {"with_port": True},
        {"table_size": 1024},
        {"prefix": PrefixLengths(24, 64)},
    ],
)
def test_other_parameters_make_another_hashlimit_table(change: dict[str, object]) -> None:
    """The kernel keeps the old rate under an old name."""
    one, other = _words(_rate_above()), _words(_rate_above(**change))
    assert one["--hashlimit-name"] != other["--hashlimit-name"]
    assert one["--hashlimit-name"] == _words(_rate_above())["--hashlimit-name"]


@pytest.mark.parametrize("name", ["a", "premium", "a-very-long-name"])
def test_a_hashlimit_name_fits_into_the_kernels_15_bytes(name: str) -> None:
    match = RateAbove(name, PER_SECOND, 20, PrefixLengths(32, 64))
    assert len(_words(match)["--hashlimit-name"]) == 15


def _singles(count: int) -> tuple[PortRange, ...]:
    return tuple(PortRange(2 * n + 1, 2 * n + 1) for n in range(count))


@pytest.mark.parametrize(
    ("ranges", "slots"),
    [
        (_singles(15), [15]),
        (_singles(16), [15, 1]),
        (_singles(31), [15, 15, 1]),
        # A range takes two of the 15 slots and cannot be cut in the middle.
        (tuple(PortRange(10 * n + 1, 10 * n + 5) for n in range(8)), [14, 2]),
        ((*_singles(14), PortRange(100, 110)), [14, 2]),
        ((*_singles(13), PortRange(100, 110)), [15]),
    ],
)
def test_more_ports_than_multiport_takes(ranges: tuple[PortRange, ...], slots: list[int]) -> None:
    found = lines(Ports(UDP, ranges))
    ports = [line.split()[-3] for line in found]
    assert [len(text.replace(":", ",").split(",")) for text in ports] == slots
    joined = ",".join(ports).replace(":", "-").split(",")
    assert joined == [str(item) for item in ranges]
    assert ("multiport" in found[-1]) == ("," in ports[-1])


def test_a_long_list_of_words_makes_several_rules() -> None:
    """One u32 comparison takes ten values (XT_U32_MAXSIZE)."""
    words = tuple(f"W{number:03}".encode() for number in range(23))
    found = [line.split()[5].split("=")[1].split(",") for line in lines(StartsWithOneOf(words))]
    assert [len(values) for values in found] == [10, 10, 3]
    assert [bytes.fromhex(value[2:]) for values in found for value in values] == list(words)


def test_a_short_list_that_every_packet_meets_is_written_out() -> None:
    assert lines(InSet("trusted", hot=True), sets=SETS) == ["-s 192.0.2.0/24 -j DROP"]
    assert lines(InSet("trusted-ports", hot=True), sets=SETS) == [
        "-s 192.0.2.0/24 -p udp -m udp --sport 5060 -j DROP",
        "-s 192.0.2.0/24 -p tcp -m tcp --sport 5060 -j DROP",
    ]
    assert lines(InSet("nobody", hot=True), sets=SETS) == []


def test_a_long_list_and_one_with_host_names_stay_sets() -> None:
    many = tuple(ip_network(f"192.0.2.{number}/32") for number in range(25))
    looked_up = ["-m set --match-set sipfw-peers4 src -j DROP"]
    for item, expected in (
        (AddressSet("peers", SetKind.NETWORK, "peers", ORIGIN, networks=many), looked_up),
        (
            AddressSet("peers", SetKind.NETWORK, "peers", ORIGIN, networks=many[:1], resolved=True),
            looked_up,
        ),
        (AddressSet("peers", SetKind.HOST, "peers", ORIGIN, timeout=60), looked_up),
    ):
        assert lines(InSet("peers", hot=True), sets=(item,)) == expected


@pytest.mark.parametrize(("count", "written_out"), [(8, True), (9, False)])
def test_nftables_writes_fewer_out_than_iptables(count: int, *, written_out: bool) -> None:
    networks = [ip_network(f"192.0.2.{16 * number}/28") for number in range(count)]
    peers = AddressSet("peers", SetKind.NETWORK, "peers", ORIGIN, networks=tuple(networks))
    found = nft_lines(InSet("peers", hot=True), sets=(peers,))
    each = [f"ip saddr {network} counter drop" for network in networks]
    assert found == (each if written_out else ["ip saddr @peers-nets4 counter drop"])


def test_endpoints_without_ipset_are_one_rule_each() -> None:
    assert lines(InSet("trusted-ports"), sets=SETS, ipset=False) == [
        "-s 192.0.2.0/24 -p udp -m udp --sport 5060 -j DROP",
        "-s 192.0.2.0/24 -p tcp -m tcp --sport 5060 -j DROP",
    ]
    assert lines(InSet("trusted-ports"), sets=SETS, ipset=False, family=Family.IP6) == [
        "-s 2001:db8::/32 -p udp -m udp --sport 5062 -j DROP"
    ]


def test_without_ipset_only_the_policys_own_count_may_be_large() -> None:
    """It was held against the target kernel; xt_recent of 3.10 refuses more than 20 hits."""
    counts = [CountAbove("failures", count - 1) for count in (30, 180, 10)]
    for wanted, hits in (([*counts[:2]], [30, 30]), (counts, [20, 20, 10])):
        rules = [
            Rule(str(number), (each,), Drop(), "a rule", ORIGIN)
            for number, each in enumerate(wanted)
        ]
        found = [
            param.values
            for _, _, rule in all_rules(plan(*rules, sets=SETS, ipset=False))
            for match in rule.matches
            for param in match.params
            if param.name == "hitcount"
        ]
        assert found == 2 * [(str(each),) for each in hits]


def test_a_udp_endpoint_is_no_alternative_in_a_tcp_rule() -> None:
    ports = Ports(TCP, (PortRange(5061, 5061),))
    assert lines(ports, InSet("trusted-ports"), sets=SETS, ipset=False) == [
        "-s 192.0.2.0/24 -p tcp -m tcp --dport 5061 --sport 5060 -j DROP"
    ]
    assert nft_lines(ports, InSet("trusted-ports", hot=True), sets=SETS) == [
        "tcp dport 5061 ip saddr 192.0.2.0/24 tcp sport 5060 counter drop"
    ]


def test_ports_and_flags_of_one_protocol_share_its_match() -> None:
    assert lines(Ports(TCP, (PortRange(5060, 5060),)), TcpSyn()) == [
        "-p tcp -m tcp --dport 5060 --syn -j DROP"
    ]


def test_a_text_leads_on_within_its_family() -> None:
    found = [
        nft_lines(PayloadContains(b"sipsak"), action=Goto("NEXT"), family=family)
        for family in Family
    ]
    assert found == [["search from 28 sipsak goto NEXT4"], ["search from 48 sipsak goto NEXT6"]]


def test_a_rule_of_one_family_is_in_its_chain_only() -> None:
    rules = [Rule(str(each), (), Drop(), "a rule", ORIGIN, family=each) for each in Family]
    wanted = {Family.IP: ["sipfw:ip"], Family.IP6: ["sipfw:ip6"]}
    tables = plan(*rules).tables
    assert wanted == {
        table.family: [rule.comment.partition("#")[0] for rule in table.chains[0].rules]
        for table in tables
    }
    chains = {chain.name: chain.rules for chain in nft_plan(*rules).chains}
    assert wanted == {
        family: [rule.comment.partition("#")[0] for rule in chains[f"CHAIN{digit}"]]
        for family, digit in ((Family.IP, 4), (Family.IP6, 6))
    }


def test_all_matches_of_an_nftables_rule_stand_side_by_side() -> None:
    """Each alternative of one with each of the other."""
    negated = PayloadAt(UDP, b"ACK ", negate=True)
    assert nft_lines(InSet("mixed"), negated, sets=SETS) == [
        "ip saddr @mixed4 meta l4proto udp @th,64,32 != 0x41434b20 counter drop",
        "ip saddr @mixed4 udp length < 12 counter drop",
        "ip saddr @mixed-nets4 meta l4proto udp @th,64,32 != 0x41434b20 counter drop",
        "ip saddr @mixed-nets4 udp length < 12 counter drop",
    ]


@pytest.mark.parametrize("wrong", [(TCP, b"ACK "), (UDP, b"x" * 17)])
def test_a_negation_that_nft_cannot_say_is_our_bug(wrong: tuple[L4Proto, bytes]) -> None:
    with pytest.raises(AssertionError, match="only a short UDP pattern"):
        nft_lines(PayloadAt(*wrong, negate=True))


def test_a_rule_of_two_protocols_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="cannot match udp"):
        lines(TcpSyn(), Protocol(UDP))


def test_ports_without_a_range_make_no_rule() -> None:
    assert lines(Ports(UDP, ())) == []
