"""What each match is in both families of iptables and of nftables: the rows of test_matches.

A new match gets a row in `CASES`. Where its iptables form needs a set, it gets one in `SETLESS`
too, which says what it is on a host without ipset.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, TypeAlias

from lowered import ORIGIN

from sipfw.ruleset.match import (
    Address,
    ConnectionsAbove,
    ConntrackState,
    CountAbove,
    CtState,
    Direction,
    HasPayload,
    Icmp,
    InSet,
    Interface,
    IpProtocol,
    L4Proto,
    Match,
    MovedPayload,
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
    VolumeAbove,
)
from sipfw.ruleset.model import AddressSet, Endpoint, SetKind

if TYPE_CHECKING:
    from types import EllipsisType

# One rule, several of which one has to hold, or none where the match has no rule in a family.
Form: TypeAlias = str | tuple[str, ...] | None

UDP, TCP = L4Proto.UDP, L4Proto.TCP
DST = Direction.DESTINATION
NET4, NET6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")
PER_SECOND = Rate(10, TimeUnit.SECOND)
SITES = PrefixLengths(32, 64)

# One address and nine networks: too many to be written out, and of both sorts.
MIXED = (
    *(ip_network(f"198.51.100.{16 * number}/28") for number in range(1, 10)),
    *(ip_network(f"2001:db8:{number}::/48") for number in range(1, 10)),
    ip_network("203.0.113.1"),
    ip_network("2001:db8:ffff::1"),
)
# Five carriers known by two ports each: ten endpoints, which are looked up.
MANY_ENDPOINTS = tuple(
    Endpoint(ip_network(text), UDP, port)
    for number in range(1, 6)
    for text in (f"203.0.113.{number}", f"2001:db8::{number}")
    for port in (5060, 5070)
)

SETS = (
    AddressSet("trusted", SetKind.NETWORK, "peers", ORIGIN, networks=(NET4, NET6)),
    AddressSet("nobody", SetKind.NETWORK, "peers", ORIGIN),
    AddressSet(
        "single",
        SetKind.NETWORK,
        "peers",
        ORIGIN,
        networks=(ip_network("192.0.2.7"), ip_network("2001:db8::7")),
    ),
    AddressSet("mixed", SetKind.NETWORK, "peers", ORIGIN, networks=MIXED),
    AddressSet("named", SetKind.NETWORK, "peers", ORIGIN, networks=(NET4, NET6), resolved=True),
    AddressSet(
        "named-single",
        SetKind.NETWORK,
        "peers",
        ORIGIN,
        networks=(ip_network("192.0.2.7"), ip_network("2001:db8::7")),
        resolved=True,
    ),
    AddressSet(
        "trusted-ports",
        SetKind.PEER_ENDPOINT,
        "peers",
        ORIGIN,
        endpoints=(Endpoint(NET4, UDP, 5060), Endpoint(NET4, TCP, 5060), Endpoint(NET6, UDP, 5062)),
    ),
    AddressSet("many-ports", SetKind.PEER_ENDPOINT, "peers", ORIGIN, endpoints=MANY_ENDPOINTS),
    AddressSet("banned", SetKind.HOST, "banned", ORIGIN, timeout=3600),
    AddressSet("failures", SetKind.HOST, "failures", ORIGIN, timeout=60, counted=True),
    # Sources are prefixes, and phones are an address, transport and port.
    AddressSet("sources", SetKind.HOST, "", ORIGIN, timeout=60, counted=True, prefix=SITES),
    AddressSet("phones", SetKind.ENDPOINT, "phones", ORIGIN, timeout=60, counted=True),
)


@dataclass(frozen=True)
class Case:
    match: Match
    ip: tuple[str, ...]
    ip6: tuple[str, ...]
    nft: tuple[str, ...]
    nft6: tuple[str, ...]

    def __str__(self) -> str:
        return type(self.match).__name__


def case(match: Match, *, ip: Form, ip6: Form, nft: Form, nft6: Form | EllipsisType = ...) -> Case:
    """Both families of both forms on adjacent lines; `nft6` where it is not the same as `nft`."""
    same = nft if isinstance(nft6, type(...)) else nft6
    return Case(match, _rules(ip), _rules(ip6), _rules(nft), _rules(same))


def setless(match: Match, *, ip: Form, ip6: Form) -> Case:
    """What iptables has instead on a host without ipset; nftables needs none."""
    return Case(match, _rules(ip), _rules(ip6), (), ())


def _rules(form: Form) -> tuple[str, ...]:
    if form is None:
        return ()
    return (form,) if isinstance(form, str) else form


CASES = [
    case(
        Protocol(UDP),
        ip="-p udp",
        ip6="-p udp",
        nft="meta l4proto udp",
    ),
    case(
        Protocol(TCP),
        ip="-p tcp",
        ip6="-p tcp",
        nft="meta l4proto tcp",
    ),
    case(
        Ports(UDP, (PortRange(5060, 5060),)),
        ip="-p udp -m udp --dport 5060",
        ip6="-p udp -m udp --dport 5060",
        nft="udp dport 5060",
    ),
    case(
        Ports(TCP, (PortRange(10000, 20000),), Direction.SOURCE),
        ip="-p tcp -m tcp --sport 10000:20000",
        ip6="-p tcp -m tcp --sport 10000:20000",
        nft="tcp sport 10000-20000",
    ),
    case(
        Ports(UDP, (PortRange(5060, 5060), PortRange(6000, 6010))),
        ip="-p udp -m multiport --dports 5060,6000:6010",
        ip6="-p udp -m multiport --dports 5060,6000:6010",
        nft="udp dport { 5060, 6000-6010 }",
    ),
    case(
        Ports(UDP, (PortRange(1, 1), PortRange(3, 3)), Direction.SOURCE),
        ip="-p udp -m multiport --sports 1,3",
        ip6="-p udp -m multiport --sports 1,3",
        nft="udp sport { 1, 3 }",
    ),
    case(
        Address(NET4),
        ip="-s 192.0.2.0/24",
        ip6=None,
        nft="ip saddr 192.0.2.0/24",
        nft6=None,
    ),
    case(
        Address(NET6),
        ip=None,
        ip6="-s 2001:db8::/32",
        nft=None,
        nft6="ip6 saddr 2001:db8::/32",
    ),
    case(
        Address(NET4, DST),
        ip="-d 192.0.2.0/24",
        ip6=None,
        nft="ip daddr 192.0.2.0/24",
        nft6=None,
    ),
    case(
        Address(NET6, DST),
        ip=None,
        ip6="-d 2001:db8::/32",
        nft=None,
        nft6="ip6 daddr 2001:db8::/32",
    ),
    # nftables keeps networks apart from single addresses: a tree and a hash.
    case(
        InSet("trusted"),
        ip="-m set --match-set sipfw-trusted4 src",
        ip6="-m set --match-set sipfw-trusted6 src",
        nft="ip saddr @trusted-nets4",
        nft6="ip6 saddr @trusted-nets6",
    ),
    case(
        InSet("trusted", DST),
        ip="-m set --match-set sipfw-trusted4 dst",
        ip6="-m set --match-set sipfw-trusted6 dst",
        nft="ip daddr @trusted-nets4",
        nft6="ip6 daddr @trusted-nets6",
    ),
    case(
        InSet("single"),
        ip="-m set --match-set sipfw-single4 src",
        ip6="-m set --match-set sipfw-single6 src",
        nft="ip saddr @single4",
        nft6="ip6 saddr @single6",
    ),
    case(
        InSet("nobody"),
        ip="-m set --match-set sipfw-nobody4 src",
        ip6="-m set --match-set sipfw-nobody6 src",
        nft="ip saddr @nobody4",
        nft6="ip6 saddr @nobody6",
    ),
    case(
        InSet("mixed"),
        ip="-m set --match-set sipfw-mixed4 src",
        ip6="-m set --match-set sipfw-mixed6 src",
        nft=("ip saddr @mixed4", "ip saddr @mixed-nets4"),
        nft6=("ip6 saddr @mixed6", "ip6 saddr @mixed-nets6"),
    ),
    case(
        InSet("banned"),
        ip="-m set --match-set sipfw-banned4 src",
        ip6="-m set --match-set sipfw-banned6 src",
        nft="ip saddr @banned4",
        nft6="ip6 saddr @banned6",
    ),
    case(
        InSet("banned", DST),
        ip="-m set --match-set sipfw-banned4 dst",
        ip6="-m set --match-set sipfw-banned6 dst",
        nft="ip daddr @banned4",
        nft6="ip6 daddr @banned6",
    ),
    # ipset cuts the address itself, by `netmask`; nft is told to.
    case(
        InSet("sources"),
        ip="-m set --match-set sipfw-sources4 src",
        ip6="-m set --match-set sipfw-sources6 src",
        nft="ip saddr @sources4",
        nft6="ip6 saddr and ffff:ffff:ffff:ffff:: @sources6",
    ),
    case(
        InSet("sources", DST),
        ip="-m set --match-set sipfw-sources4 dst",
        ip6="-m set --match-set sipfw-sources6 dst",
        nft="ip daddr @sources4",
        nft6="ip6 daddr and ffff:ffff:ffff:ffff:: @sources6",
    ),
    case(
        InSet("phones"),
        ip="-m set --match-set sipfw-phones4 src,src",
        ip6="-m set --match-set sipfw-phones6 src,src",
        nft="ip saddr . meta l4proto . th sport @phones4",
        nft6="ip6 saddr . meta l4proto . th sport @phones6",
    ),
    case(
        InSet("phones", DST),
        ip="-m set --match-set sipfw-phones4 dst,dst",
        ip6="-m set --match-set sipfw-phones6 dst,dst",
        nft="ip daddr . meta l4proto . th dport @phones4",
        nft6="ip6 daddr . meta l4proto . th dport @phones6",
    ),
    case(
        InSet("trusted-ports"),
        ip="-m set --match-set sipfw-trusted-ports4 src,src",
        ip6="-m set --match-set sipfw-trusted-ports6 src,src",
        nft="ip saddr . meta l4proto . th sport @trusted-ports4",
        nft6="ip6 saddr . meta l4proto . th sport @trusted-ports6",
    ),
    case(
        InSet("trusted-ports", DST),
        ip="-m set --match-set sipfw-trusted-ports4 dst,dst",
        ip6="-m set --match-set sipfw-trusted-ports6 dst,dst",
        nft="ip daddr . meta l4proto . th dport @trusted-ports4",
        nft6="ip6 daddr . meta l4proto . th dport @trusted-ports6",
    ),
    # A short list that every packet meets is written out.
    case(
        InSet("trusted", hot=True),
        ip="-s 192.0.2.0/24",
        ip6="-s 2001:db8::/32",
        nft="ip saddr 192.0.2.0/24",
        nft6="ip6 saddr 2001:db8::/32",
    ),
    case(
        InSet("trusted", DST, hot=True),
        ip="-d 192.0.2.0/24",
        ip6="-d 2001:db8::/32",
        nft="ip daddr 192.0.2.0/24",
        nft6="ip6 daddr 2001:db8::/32",
    ),
    case(
        InSet("trusted-ports", hot=True),
        ip=(
            "-s 192.0.2.0/24 -p udp -m udp --sport 5060",
            "-s 192.0.2.0/24 -p tcp -m tcp --sport 5060",
        ),
        ip6="-s 2001:db8::/32 -p udp -m udp --sport 5062",
        nft=("ip saddr 192.0.2.0/24 udp sport 5060", "ip saddr 192.0.2.0/24 tcp sport 5060"),
        nft6="ip6 saddr 2001:db8::/32 udp sport 5062",
    ),
    case(InSet("nobody", hot=True), ip=None, ip6=None, nft=None),
    # Ten comparisons cost nftables more than a lookup, and iptables less than one.
    case(
        InSet("mixed", hot=True),
        ip=(*(f"-s 198.51.100.{16 * number}/28" for number in range(1, 10)), "-s 203.0.113.1/32"),
        ip6=(
            *(f"-s 2001:db8:{number}::/48" for number in range(1, 10)),
            "-s 2001:db8:ffff::1/128",
        ),
        nft=("ip saddr @mixed4", "ip saddr @mixed-nets4"),
        nft6=("ip6 saddr @mixed6", "ip6 saddr @mixed-nets6"),
    ),
    case(
        InSet("many-ports", hot=True),
        ip=tuple(
            f"-s 203.0.113.{number}/32 -p udp -m udp --sport {port}"
            for number in range(1, 6)
            for port in (5060, 5070)
        ),
        ip6=tuple(
            f"-s 2001:db8::{number}/128 -p udp -m udp --sport {port}"
            for number in range(1, 6)
            for port in (5060, 5070)
        ),
        nft="ip saddr . meta l4proto . th sport @many-ports4",
        nft6="ip6 saddr . meta l4proto . th sport @many-ports6",
    ),
    # Members change while the rules stand.
    case(
        InSet("named", hot=True),
        ip="-m set --match-set sipfw-named4 src",
        ip6="-m set --match-set sipfw-named6 src",
        nft=("ip saddr @named4", "ip saddr @named-nets4"),
        nft6=("ip6 saddr @named6", "ip6 saddr @named-nets6"),
    ),
    case(
        InSet("named-single", hot=True),
        ip="-m set --match-set sipfw-named-single4 src",
        ip6="-m set --match-set sipfw-named-single6 src",
        nft=("ip saddr @named-single4", "ip saddr @named-single-nets4"),
        nft6=("ip6 saddr @named-single6", "ip6 saddr @named-single-nets6"),
    ),
    case(
        InSet("banned", hot=True),
        ip="-m set --match-set sipfw-banned4 src",
        ip6="-m set --match-set sipfw-banned6 src",
        nft="ip saddr @banned4",
        nft6="ip6 saddr @banned6",
    ),
    # ipset counts from one and the look itself; nft's limit is over what the bucket takes.
    case(
        CountAbove("failures", 9),
        ip="-m set --match-set sipfw-failures4 dst --packets-gt 10",
        ip6="-m set --match-set sipfw-failures6 dst --packets-gt 10",
        nft="add @failures4 { ip daddr limit rate over 1/day burst 9 packets }",
        nft6="add @failures6 { ip6 daddr limit rate over 1/day burst 9 packets }",
    ),
    case(
        CountAbove("failures", 9, Direction.SOURCE),
        ip="-m set --match-set sipfw-failures4 src --packets-gt 10",
        ip6="-m set --match-set sipfw-failures6 src --packets-gt 10",
        nft="add @failures4 { ip saddr limit rate over 1/day burst 9 packets }",
        nft6="add @failures6 { ip6 saddr limit rate over 1/day burst 9 packets }",
    ),
    case(
        CountAbove("sources", 9),
        ip="-m set --match-set sipfw-sources4 dst --packets-gt 10",
        ip6="-m set --match-set sipfw-sources6 dst --packets-gt 10",
        nft="add @sources4 { ip daddr limit rate over 1/day burst 9 packets }",
        nft6="add @sources6 { ip6 daddr and ffff:ffff:ffff:ffff:: limit rate over 1/day"
        " burst 9 packets }",
    ),
    case(
        CountAbove("phones", 9),
        ip="-m set --match-set sipfw-phones4 dst,dst --packets-gt 10",
        ip6="-m set --match-set sipfw-phones6 dst,dst --packets-gt 10",
        nft="add @phones4 { ip daddr . meta l4proto . th dport limit rate over 1/day"
        " burst 9 packets }",
        nft6="add @phones6 { ip6 daddr . meta l4proto . th dport limit rate over 1/day"
        " burst 9 packets }",
    ),
    # Headers count on both sides, and so does the packet that is looked at.
    case(
        VolumeAbove("sources", 49152),
        ip="-m set --match-set sipfw-sources4 src --bytes-gt 49152",
        ip6="-m set --match-set sipfw-sources6 src --bytes-gt 49152",
        nft="add @sources4 { ip saddr quota over 49152 bytes }",
        nft6="add @sources6 { ip6 saddr and ffff:ffff:ffff:ffff:: quota over 49152 bytes }",
    ),
    case(
        VolumeAbove("phones", 9000, DST),
        ip="-m set --match-set sipfw-phones4 dst,dst --bytes-gt 9000",
        ip6="-m set --match-set sipfw-phones6 dst,dst --bytes-gt 9000",
        nft="add @phones4 { ip daddr . meta l4proto . th dport quota over 9000 bytes }",
        nft6="add @phones6 { ip6 daddr . meta l4proto . th dport quota over 9000 bytes }",
    ),
    case(
        Interface("eth0"),
        ip="-i eth0",
        ip6="-i eth0",
        nft='iifname "eth0"',
    ),
    case(
        Interface("br-*"),
        ip="-i br-+",
        ip6="-i br-+",
        nft='iifname "br-*"',
    ),
    case(
        Interface("eth0", DST),
        ip="-o eth0",
        ip6="-o eth0",
        nft='oifname "eth0"',
    ),
    case(
        Interface("lo"),
        ip="-i lo",
        ip6="-i lo",
        nft='iif "lo"',
    ),
    case(
        Interface("lo", DST),
        ip="-o lo",
        ip6="-o lo",
        nft='oif "lo"',
    ),
    case(
        ConntrackState((CtState.ESTABLISHED, CtState.RELATED)),
        ip="-m conntrack --ctstate ESTABLISHED,RELATED",
        ip6="-m conntrack --ctstate ESTABLISHED,RELATED",
        nft="ct state established,related",
    ),
    case(
        ConntrackState((CtState.UNTRACKED,)),
        ip="-m conntrack --ctstate UNTRACKED",
        ip6="-m conntrack --ctstate UNTRACKED",
        nft="ct state untracked",
    ),
    case(
        OpenedTo((PortRange(5060, 5061),)),
        ip="-m conntrack --ctorigdstport 5060:5061",
        ip6="-m conntrack --ctorigdstport 5060:5061",
        nft="ct original proto-dst 5060-5061",
    ),
    case(
        OpenedTo((PortRange(5060, 5060), PortRange(5080, 5081))),
        ip=("-m conntrack --ctorigdstport 5060", "-m conntrack --ctorigdstport 5080:5081"),
        ip6=("-m conntrack --ctorigdstport 5060", "-m conntrack --ctorigdstport 5080:5081"),
        nft=("ct original proto-dst 5060", "ct original proto-dst 5080-5081"),
    ),
    case(
        TcpSyn(),
        ip="-p tcp -m tcp --syn",
        ip6="-p tcp -m tcp --syn",
        nft="tcp flags & (fin | syn | rst | ack) == syn",
    ),
    case(
        Icmp(8),
        ip="-p icmp -m icmp --icmp-type 8",
        ip6="-p icmpv6 -m icmp6 --icmpv6-type 8",
        nft="icmp type 8",
        nft6="icmpv6 type 8",
    ),
    case(IpProtocol(112), ip="-p 112", ip6="-p 112", nft="meta l4proto 112"),
    # The headers of a UDP packet have 20 or 40 and 8 bytes.
    case(
        StartsWithOneOf((b"REGI", b"ACK ")),
        ip="-p udp -m u32 --u32 28=0x52454749,0x41434b20",
        ip6="-p udp -m u32 --u32 48=0x52454749,0x41434b20",
        nft="meta l4proto udp @th,64,32 { 0x52454749, 0x41434b20 }",
    ),
    case(
        StartsWithOneOf((b"SIP/",)),
        ip="-p udp -m u32 --u32 28=0x5349502f",
        ip6="-p udp -m u32 --u32 48=0x5349502f",
        nft="meta l4proto udp @th,64,32 0x5349502f",
    ),
    # A TCP header tells its length itself: u32 reads it, nft knows where it ends.
    case(
        StartsWithOneOf((b"REGI", b"ACK "), TCP),
        ip='-p tcp -m u32 --u32 "32>>26&0x3c@20=0x52454749,0x41434b20"',
        ip6='-p tcp -m u32 --u32 "52>>26&0x3c@40=0x52454749,0x41434b20"',
        nft="meta l4proto tcp @ih,0,32 { 0x52454749, 0x41434b20 }",
    ),
    # The word whose last byte is the first of the payload.
    case(
        HasPayload(),
        ip='-p tcp -m u32 --u32 "32>>26&0x3c@17=0x0:0xffffffff"',
        ip6='-p tcp -m u32 --u32 "52>>26&0x3c@37=0x0:0xffffffff"',
        nft="meta l4proto tcp @ih,0,8 0x0-0xff",
    ),
    # A header of more than five words; another header before that of UDP or TCP.
    case(
        MovedPayload(),
        ip='-m u32 ! --u32 "0>>24&0xf=5"',
        ip6='-m u32 ! --u32 "4>>8&0xff=6,17"',
        nft="ip hdrlength != 5",
        nft6="ip6 nexthdr != { 6, 17 }",
    ),
    # iptables compares the length of the packet, nft the one in the UDP header.
    case(
        ShorterThan(11),
        ip="-m length --length 0:38",
        ip6="-m length --length 0:58",
        nft="udp length < 19",
    ),
    case(
        PayloadAt(UDP, b"OPTIONS "),
        ip='-p udp -m u32 --u32 "28=0x4f505449&&32=0x4f4e5320"',
        ip6='-p udp -m u32 --u32 "48=0x4f505449&&52=0x4f4e5320"',
        nft="meta l4proto udp @th,64,64 0x4f5054494f4e5320",
    ),
    # The window is exactly as long as the text: a fixed offset.
    case(
        PayloadAt(UDP, b"BYE"),
        ip="-p udp -m string --algo kmp --from 28 --to 31 --hex-string BYE",
        ip6="-p udp -m string --algo kmp --from 48 --to 51 --hex-string BYE",
        nft="meta l4proto udp @th,64,24 0x425945",
    ),
    # nft compares 16 bytes at a time.
    case(
        PayloadAt(UDP, b"SIP/2.0 200 INVITE"),
        ip=(
            '-p udp -m u32 --u32 "28=0x5349502f&&32=0x322e3020&&36=0x32303020'
            '&&40=0x494e5649&&42=0x56495445"'
        ),
        ip6=(
            '-p udp -m u32 --u32 "48=0x5349502f&&52=0x322e3020&&56=0x32303020'
            '&&60=0x494e5649&&62=0x56495445"'
        ),
        nft="meta l4proto udp @th,64,128 0x5349502f322e302032303020494e5649 @th,192,16 0x5445",
    ),
    case(
        PayloadAt(TCP, b"BYE "),
        ip='-p tcp -m u32 --u32 "32>>26&0x3c@20=0x42594520"',
        ip6='-p tcp -m u32 --u32 "52>>26&0x3c@40=0x42594520"',
        nft="meta l4proto tcp @ih,0,32 0x42594520",
    ),
    case(
        PayloadAt(TCP, b"BYE sip"),
        ip='-p tcp -m u32 --u32 "32>>26&0x3c@20=0x42594520&&32>>26&0x3c@23=0x20736970"',
        ip6='-p tcp -m u32 --u32 "52>>26&0x3c@40=0x42594520&&52>>26&0x3c@43=0x20736970"',
        nft="meta l4proto tcp @ih,0,56 0x42594520736970",
    ),
    # What u32 cannot say is searched where a header of 20 to 60 bytes may end.
    case(
        PayloadAt(TCP, b"BYE"),
        ip="-p tcp -m string --algo kmp --from 40 --to 83 --hex-string BYE",
        ip6="-p tcp -m string --algo kmp --from 60 --to 103 --hex-string BYE",
        nft="meta l4proto tcp @ih,0,24 0x425945",
    ),
    # A packet that ends before the place equals nothing in nft and differs from nothing.
    case(
        PayloadAt(UDP, b"REGISTER ", negate=True),
        ip='-p udp -m u32 ! --u32 "28=0x52454749&&32=0x53544552&&33=0x54455220"',
        ip6='-p udp -m u32 ! --u32 "48=0x52454749&&52=0x53544552&&53=0x54455220"',
        nft=("meta l4proto udp @th,64,72 != 0x524547495354455220", "udp length < 17"),
    ),
    case(
        PayloadContains(b"sipvicious"),
        ip="-m string --algo kmp --from 28 --icase --hex-string sipvicious",
        ip6="-m string --algo kmp --from 48 --icase --hex-string sipvicious",
        nft="search from 28 sipvicious",
        nft6="search from 48 sipvicious",
    ),
    case(
        RateAbove("source", PER_SECOND, 20, PrefixLengths(32, 64)),
        ip=(
            "-m hashlimit --hashlimit-above 10/second --hashlimit-burst 20"
            " --hashlimit-mode srcip --hashlimit-name sf-source"
            " --hashlimit-htable-size 16384 --hashlimit-htable-max 65536"
            " --hashlimit-htable-expire 60000"
        ),
        ip6=(
            "-m hashlimit --hashlimit-above 10/second --hashlimit-burst 20"
            " --hashlimit-mode srcip --hashlimit-name sf-source"
            " --hashlimit-htable-size 16384 --hashlimit-htable-max 65536"
            " --hashlimit-htable-expire 60000 --hashlimit-srcmask 64"
        ),
        nft="update @source-4 { ip saddr limit rate over 10/second burst 20 packets }",
        nft6=(
            "update @source-6 { ip6 saddr and ffff:ffff:ffff:ffff::"
            " limit rate over 10/second burst 20 packets }"
        ),
    ),
    case(
        RateAbove(
            "login", Rate(1, TimeUnit.MINUTE), 5, PrefixLengths(20, 52), with_port=True, expire=30
        ),
        ip=(
            "-m hashlimit --hashlimit-above 1/minute --hashlimit-burst 5"
            " --hashlimit-mode srcip,srcport --hashlimit-name sf-login"
            " --hashlimit-htable-size 16384 --hashlimit-htable-max 65536"
            " --hashlimit-htable-expire 301000 --hashlimit-srcmask 20"
        ),
        ip6=(
            "-m hashlimit --hashlimit-above 1/minute --hashlimit-burst 5"
            " --hashlimit-mode srcip,srcport --hashlimit-name sf-login"
            " --hashlimit-htable-size 16384 --hashlimit-htable-max 65536"
            " --hashlimit-htable-expire 301000 --hashlimit-srcmask 52"
        ),
        nft=(
            "update @login-4 { ip saddr and 255.255.240.0 . th sport"
            " limit rate over 1/minute burst 5 packets }"
        ),
        nft6=(
            "update @login-6 { ip6 saddr and ffff:ffff:ffff:f000:: . th sport"
            " limit rate over 1/minute burst 5 packets }"
        ),
    ),
    case(
        RateAbove("whole", PER_SECOND, 20, PrefixLengths(32, 128)),
        ip=(
            "-m hashlimit --hashlimit-above 10/second --hashlimit-burst 20"
            " --hashlimit-mode srcip --hashlimit-name sf-whole"
            " --hashlimit-htable-size 16384 --hashlimit-htable-max 65536"
            " --hashlimit-htable-expire 60000"
        ),
        ip6=(
            "-m hashlimit --hashlimit-above 10/second --hashlimit-burst 20"
            " --hashlimit-mode srcip --hashlimit-name sf-whole"
            " --hashlimit-htable-size 16384 --hashlimit-htable-max 65536"
            " --hashlimit-htable-expire 60000"
        ),
        nft="update @whole-4 { ip saddr limit rate over 10/second burst 20 packets }",
        nft6="update @whole-6 { ip6 saddr limit rate over 10/second burst 20 packets }",
    ),
    case(
        RateWithin(Rate(60, TimeUnit.MINUTE), 5),
        ip="-m limit --limit 60/minute --limit-burst 5",
        ip6="-m limit --limit 60/minute --limit-burst 5",
        nft="limit rate 60/minute burst 5 packets",
    ),
    # The 21st: the record is the first, and each look is one more.
    case(
        SeenAtLeast("recent", 20, 60),
        ip="-m set --match-set sipfw-recent4 src --packets-gt 20",
        ip6="-m set --match-set sipfw-recent6 src --packets-gt 20",
        nft="add @recent-4 { ip saddr limit rate over 1/day burst 20 packets }",
        nft6="add @recent-6 { ip6 saddr limit rate over 1/day burst 20 packets }",
    ),
    case(
        SeenAtLeast("recent", 20, 60, prefix=SITES),
        ip="-m set --match-set sipfw-recent4 src --packets-gt 20",
        ip6="-m set --match-set sipfw-recent6 src --packets-gt 20",
        nft="add @recent-4 { ip saddr limit rate over 1/day burst 20 packets }",
        nft6="add @recent-6 { ip6 saddr and ffff:ffff:ffff:ffff:: limit rate over 1/day"
        " burst 20 packets }",
    ),
    case(
        ConnectionsAbove(10, PrefixLengths(24, 48)),
        ip="-m connlimit --connlimit-above 10 --connlimit-mask 24",
        ip6="-m connlimit --connlimit-above 10 --connlimit-mask 48",
        nft="add @conn24-4 { ip saddr and 255.255.255.0 ct count over 10 }",
        nft6="add @conn24-6 { ip6 saddr and ffff:ffff:ffff:: ct count over 10 }",
    ),
]

SETLESS = [
    setless(InSet("trusted"), ip="-s 192.0.2.0/24", ip6="-s 2001:db8::/32"),
    setless(InSet("trusted", DST), ip="-d 192.0.2.0/24", ip6="-d 2001:db8::/32"),
    setless(InSet("nobody"), ip=None, ip6=None),
    setless(
        InSet("trusted-ports"),
        ip=(
            "-s 192.0.2.0/24 -p udp -m udp --sport 5060",
            "-s 192.0.2.0/24 -p tcp -m tcp --sport 5060",
        ),
        ip6="-s 2001:db8::/32 -p udp -m udp --sport 5062",
    ),
    setless(
        InSet("banned"),
        ip="-m recent --rcheck --seconds 3600 --name sipfw-banned4 --rsource",
        ip6="-m recent --rcheck --seconds 3600 --name sipfw-banned6 --rsource",
    ),
    setless(
        InSet("banned", DST),
        ip="-m recent --rcheck --seconds 3600 --name sipfw-banned4 --rdest",
        ip6="-m recent --rcheck --seconds 3600 --name sipfw-banned6 --rdest",
    ),
    setless(
        CountAbove("failures", 9),
        ip="-m recent --rcheck --seconds 60 --hitcount 10 --name sipfw-failures4 --rdest",
        ip6="-m recent --rcheck --seconds 60 --hitcount 10 --name sipfw-failures6 --rdest",
    ),
    setless(
        InSet("sources"),
        ip="-m recent --rcheck --seconds 60 --name sipfw-sources4 --rsource",
        ip6="-m recent --rcheck --seconds 60 --name sipfw-sources6"
        " --mask ffff:ffff:ffff:ffff:: --rsource",
    ),
    setless(
        CountAbove("sources", 9),
        ip="-m recent --rcheck --seconds 60 --hitcount 10 --name sipfw-sources4 --rdest",
        ip6="-m recent --rcheck --seconds 60 --hitcount 10 --name sipfw-sources6"
        " --mask ffff:ffff:ffff:ffff:: --rdest",
    ),
    # A list knows no ports, and no bytes: the rule is left out.
    setless(
        InSet("phones", DST),
        ip="-m recent --rcheck --seconds 60 --name sipfw-phones4 --rdest",
        ip6="-m recent --rcheck --seconds 60 --name sipfw-phones6 --rdest",
    ),
    setless(VolumeAbove("sources", 49152), ip=None, ip6=None),
    setless(VolumeAbove("phones", 49152), ip=None, ip6=None),
    setless(
        SeenAtLeast("recent", 20, 60),
        ip="-m recent --rcheck --seconds 60 --hitcount 20 --name sipfw-recent4 --rsource",
        ip6="-m recent --rcheck --seconds 60 --hitcount 20 --name sipfw-recent6 --rsource",
    ),
    setless(
        SeenAtLeast("recent", 20, 60, prefix=SITES),
        ip="-m recent --rcheck --seconds 60 --hitcount 20 --name sipfw-recent4 --rsource",
        ip6="-m recent --rcheck --seconds 60 --hitcount 20 --name sipfw-recent6"
        " --mask ffff:ffff:ffff:ffff:: --rsource",
    ),
]
