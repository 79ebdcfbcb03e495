"""Each match in both families of iptables, with ipset and without."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import get_args

import pytest
from lowered import ORIGIN, lines

from sipfw.lower.xtables import Family
from sipfw.ruleset.match import (
    Address,
    ConnectionsAbove,
    ConntrackState,
    CountAbove,
    CtState,
    Direction,
    Icmp,
    InSet,
    Interface,
    L4Proto,
    Match,
    OpenedTo,
    PayloadAt,
    PayloadContains,
    PortRange,
    Ports,
    PrefixLengths,
    Protocol,
    Rate,
    RateAbove,
    RateWithin,
    SeenAtLeast,
    ShorterThan,
    StartsWithOneOf,
    TcpSyn,
    TimeUnit,
)
from sipfw.ruleset.model import AddressSet, Endpoint, SetKind

UDP, TCP = L4Proto.UDP, L4Proto.TCP
DST = Direction.DESTINATION
NET4, NET6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")
PER_SECOND = Rate(10, TimeUnit.SECOND)

SETS = (
    AddressSet("trusted", SetKind.NETWORK, "peers", ORIGIN, networks=(NET4, NET6)),
    AddressSet("nobody", SetKind.NETWORK, "peers", ORIGIN),
    AddressSet(
        "trusted-ports",
        SetKind.PEER_ENDPOINT,
        "peers",
        ORIGIN,
        endpoints=(Endpoint(NET4, UDP, 5060), Endpoint(NET4, TCP, 5060), Endpoint(NET6, UDP, 5062)),
    ),
    AddressSet("banned", SetKind.HOST, "banned", ORIGIN, timeout=3600),
    AddressSet("failures", SetKind.HOST, "failures", ORIGIN, timeout=60, counted=True),
)


@dataclass(frozen=True)
class Case:
    match: Match
    ip: str | None
    ip6: str | None
    ipset: bool = True


def case(match: Match, ip: str | None, ip6: str | None, *, ipset: bool = True) -> object:
    """Both families on adjacent lines; None where the match has no rule in a family."""
    form = "" if ipset else " without ipset"
    return pytest.param(Case(match, ip, ip6, ipset), id=f"{type(match).__name__}{form}")


CASES = [
    case(Protocol(UDP), "-p udp", "-p udp"),
    case(Protocol(TCP), "-p tcp", "-p tcp"),
    case(
        Ports(UDP, (PortRange(5060, 5060),)),
        "-p udp -m udp --dport 5060",
        "-p udp -m udp --dport 5060",
    ),
    case(
        Ports(TCP, (PortRange(10000, 20000),), Direction.SOURCE),
        "-p tcp -m tcp --sport 10000:20000",
        "-p tcp -m tcp --sport 10000:20000",
    ),
    case(
        Ports(UDP, (PortRange(5060, 5060), PortRange(6000, 6010))),
        "-p udp -m multiport --dports 5060,6000:6010",
        "-p udp -m multiport --dports 5060,6000:6010",
    ),
    case(
        Ports(UDP, (PortRange(1, 1), PortRange(3, 3)), Direction.SOURCE),
        "-p udp -m multiport --sports 1,3",
        "-p udp -m multiport --sports 1,3",
    ),
    case(Address(NET4), "-s 192.0.2.0/24", None),
    case(Address(NET6), None, "-s 2001:db8::/32"),
    case(Address(NET4, DST), "-d 192.0.2.0/24", None),
    case(Address(NET6, DST), None, "-d 2001:db8::/32"),
    case(
        InSet("trusted"),
        "-m set --match-set sipfw-trusted4 src",
        "-m set --match-set sipfw-trusted6 src",
    ),
    case(
        InSet("trusted", DST),
        "-m set --match-set sipfw-trusted4 dst",
        "-m set --match-set sipfw-trusted6 dst",
    ),
    case(
        InSet("trusted-ports"),
        "-m set --match-set sipfw-trusted-ports4 src,src",
        "-m set --match-set sipfw-trusted-ports6 src,src",
    ),
    case(InSet("trusted"), "-s 192.0.2.0/24", "-s 2001:db8::/32", ipset=False),
    case(InSet("trusted", DST), "-d 192.0.2.0/24", "-d 2001:db8::/32", ipset=False),
    case(InSet("nobody"), None, None, ipset=False),
    case(
        InSet("banned"),
        "-m recent --rcheck --seconds 3600 --name sipfw-banned4 --rsource",
        "-m recent --rcheck --seconds 3600 --name sipfw-banned6 --rsource",
        ipset=False,
    ),
    case(
        InSet("banned", DST),
        "-m recent --rcheck --seconds 3600 --name sipfw-banned4 --rdest",
        "-m recent --rcheck --seconds 3600 --name sipfw-banned6 --rdest",
        ipset=False,
    ),
    case(
        CountAbove("failures", 9),
        "-m set --match-set sipfw-failures4 dst --packets-gt 10",
        "-m set --match-set sipfw-failures6 dst --packets-gt 10",
    ),
    case(
        CountAbove("failures", 9),
        "-m recent --rcheck --seconds 60 --hitcount 10 --name sipfw-failures4 --rdest",
        "-m recent --rcheck --seconds 60 --hitcount 10 --name sipfw-failures6 --rdest",
        ipset=False,
    ),
    case(Interface("eth0"), "-i eth0", "-i eth0"),
    case(Interface("lo", DST), "-o lo", "-o lo"),
    case(
        ConntrackState((CtState.ESTABLISHED, CtState.RELATED)),
        "-m conntrack --ctstate ESTABLISHED,RELATED",
        "-m conntrack --ctstate ESTABLISHED,RELATED",
    ),
    case(
        OpenedTo((PortRange(5060, 5061),)),
        "-m conntrack --ctorigdstport 5060:5061",
        "-m conntrack --ctorigdstport 5060:5061",
    ),
    case(TcpSyn(), "-p tcp -m tcp --syn", "-p tcp -m tcp --syn"),
    case(Icmp(8), "-p icmp -m icmp --icmp-type 8", "-p icmpv6 -m icmp6 --icmpv6-type 8"),
    # A UDP packet whose payload has 10 bytes or less: headers of 20 or 40 and 8 bytes.
    case(
        StartsWithOneOf((b"REGI", b"ACK ")),
        "-p udp -m u32 --u32 28=0x52454749,0x41434b20",
        "-p udp -m u32 --u32 48=0x52454749,0x41434b20",
    ),
    case(ShorterThan(11), "-m length --length 0:38", "-m length --length 0:58"),
    # The window is exactly as long as the text: a fixed offset.
    case(
        PayloadAt(UDP, b"OPTIONS "),
        '-p udp -m u32 --u32 "28=0x4f505449&&32=0x4f4e5320"',
        '-p udp -m u32 --u32 "48=0x4f505449&&52=0x4f4e5320"',
    ),
    # A TCP header has 20 to 60 bytes.
    case(
        PayloadAt(TCP, b"BYE "),
        '-p tcp -m string --algo kmp --from 40 --to 84 --hex-string "BYE "',
        '-p tcp -m string --algo kmp --from 60 --to 104 --hex-string "BYE "',
    ),
    case(
        PayloadAt(UDP, b"REGISTER ", negate=True),
        '-p udp -m u32 ! --u32 "28=0x52454749&&32=0x53544552&&33=0x54455220"',
        '-p udp -m u32 ! --u32 "48=0x52454749&&52=0x53544552&&53=0x54455220"',
    ),
    case(
        PayloadContains(b"sipvicious"),
        "-m string --algo kmp --from 28 --icase --hex-string sipvicious",
        "-m string --algo kmp --from 48 --icase --hex-string sipvicious",
    ),
    case(
        RateWithin(Rate(60, TimeUnit.MINUTE), 5),
        "-m limit --limit 60/minute --limit-burst 5",
        "-m limit --limit 60/minute --limit-burst 5",
    ),
    case(
        SeenAtLeast("recent", 20, 60),
        "-m recent --rcheck --seconds 60 --hitcount 20 --name sipfw-recent4 --rsource",
        "-m recent --rcheck --seconds 60 --hitcount 20 --name sipfw-recent6 --rsource",
    ),
    case(
        ConnectionsAbove(10, PrefixLengths(24, 48)),
        "-m connlimit --connlimit-above 10 --connlimit-mask 24",
        "-m connlimit --connlimit-above 10 --connlimit-mask 48",
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_match(case: Case) -> None:
    for family, expected in ((Family.IP, case.ip), (Family.IP6, case.ip6)):
        found = lines(case.match, sets=SETS, ipset=case.ipset, family=family)
        assert found == ([] if expected is None else [f"{expected} -j DROP"])


def test_every_kind_of_match_has_a_case() -> None:
    covered = {type(case.values[0].match) for case in CASES} | {RateAbove}  # type: ignore[attr-defined]
    assert covered == set(get_args(Match))


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


def test_endpoints_without_ipset_are_one_rule_each() -> None:
    assert lines(InSet("trusted-ports"), sets=SETS, ipset=False) == [
        "-s 192.0.2.0/24 -p udp -m udp --sport 5060 -j DROP",
        "-s 192.0.2.0/24 -p tcp -m tcp --sport 5060 -j DROP",
    ]
    assert lines(InSet("trusted-ports"), sets=SETS, ipset=False, family=Family.IP6) == [
        "-s 2001:db8::/32 -p udp -m udp --sport 5062 -j DROP"
    ]


def test_a_udp_endpoint_is_no_alternative_in_a_tcp_rule() -> None:
    ports = Ports(TCP, (PortRange(5061, 5061),))
    assert lines(ports, InSet("trusted-ports"), sets=SETS, ipset=False) == [
        "-s 192.0.2.0/24 -p tcp -m tcp --dport 5061 --sport 5060 -j DROP"
    ]


def test_ports_and_flags_of_one_protocol_share_its_match() -> None:
    assert lines(Ports(TCP, (PortRange(5060, 5060),)), TcpSyn()) == [
        "-p tcp -m tcp --dport 5060 --syn -j DROP"
    ]


def test_a_rule_of_two_protocols_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="cannot match udp"):
        lines(TcpSyn(), Protocol(UDP))


def test_ports_without_a_range_make_no_rule() -> None:
    assert lines(Ports(UDP, ())) == []
