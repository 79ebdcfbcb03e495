"""Each action in both families of iptables and nftables; names, comments and sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import get_args

import pytest
from lowered import ORIGIN, lines, nft_lines, plan

from sipfw.lower.iptables import all_rules, lower
from sipfw.lower.naming import MAX_SET_NAME, base_id, comment, split_comment
from sipfw.lower.xtables import Family, XPlan
from sipfw.render.restore import ipset_text
from sipfw.ruleset.match import (
    Direction,
    InSet,
    L4Proto,
    PrefixLengths,
    Protocol,
    SeenAtLeast,
    TcpSyn,
)
from sipfw.ruleset.model import AddressSet, Endpoint, Ruleset, SetKind
from sipfw.ruleset.rule import (
    Accept,
    Action,
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
    Rule,
    UpdateSet,
)

DST = Direction.DESTINATION
BANNED = AddressSet("banned", SetKind.HOST, "banned", ORIGIN, timeout=3600, size=1000)
SITES = PrefixLengths(32, 64)
SETS = (
    BANNED,
    AddressSet("sources", SetKind.HOST, "sources", ORIGIN, timeout=60, size=1000, prefix=SITES),
    AddressSet("phones", SetKind.ENDPOINT, "phones", ORIGIN, timeout=60, size=1000),
    AddressSet("lost", SetKind.TARGET, "lost", ORIGIN, timeout=60, size=1000, counted=True),
)


@dataclass(frozen=True)
class Case:
    action: Action
    ip: str
    ip6: str
    nft: str | None = None
    nft6: str | None = None

    def __str__(self) -> str:
        return type(self.action).__name__


def case(action: Action, *, ip: str, ip6: str, nft: str, nft6: str | None = None) -> Case:
    """Both families of both forms on adjacent lines; `nft6` where it is not the same as `nft`."""
    return Case(action, ip, ip6, nft, nft if nft6 is None else nft6)


def setless(action: Action, *, ip: str, ip6: str) -> Case:
    """What iptables has instead on a host without ipset; nftables needs none."""
    return Case(action, ip, ip6)


CASES = [
    # Other tables and other priorities still judge what nftables accepts here.
    case(Accept(), ip="-j ACCEPT", ip6="-j ACCEPT", nft="counter accept"),
    case(Done(), ip="-j RETURN", ip6="-j RETURN", nft="counter accept"),
    case(Return(), ip="-j RETURN", ip6="-j RETURN", nft="counter return"),
    case(Drop(), ip="-j DROP", ip6="-j DROP", nft="counter drop"),
    # iptables takes it in rules that ask for TCP only; nft asks by itself.
    case(
        Reset(),
        ip="-p tcp -j REJECT --reject-with tcp-reset",
        ip6="-p tcp -j REJECT --reject-with tcp-reset",
        nft="counter reject with tcp reset",
    ),
    # What only leads on has no counter.
    case(
        Jump("SIP_BAN"),
        ip="-j SIP_BAN",
        ip6="-j SIP_BAN",
        nft="jump SIP_BAN4",
        nft6="jump SIP_BAN6",
    ),
    case(
        Goto("SIP_BAN"),
        ip="-g SIP_BAN",
        ip6="-g SIP_BAN",
        nft="goto SIP_BAN4",
        nft6="goto SIP_BAN6",
    ),
    case(NoTrack(), ip="-j CT --notrack", ip6="-j CT --notrack", nft="counter notrack"),
    case(
        Log("sipfw banned.drop "),
        ip='-j LOG --log-prefix "sipfw banned.drop "',
        ip6='-j LOG --log-prefix "sipfw banned.drop "',
        nft='counter log prefix "sipfw banned.drop "',
    ),
    case(
        Log("sipfw banned.drop ", 5),
        ip='-j NFLOG --nflog-group 5 --nflog-prefix "sipfw banned.drop "',
        ip6='-j NFLOG --nflog-group 5 --nflog-prefix "sipfw banned.drop "',
        nft='counter log prefix "sipfw banned.drop " group 5',
    ),
    # The question that nftables asks before adds by itself; ipset's counts who is in.
    case(
        Record("recent"),
        ip="-j SET --add-set sipfw-recent4 src",
        ip6="-j SET --add-set sipfw-recent6 src",
        nft="counter",
    ),
    case(
        Record("recent", SITES),
        ip="-j SET --add-set sipfw-recent4 src",
        ip6="-j SET --add-set sipfw-recent6 src",
        nft="counter",
    ),
    case(
        UpdateSet("banned"),
        ip="-j SET --add-set sipfw-banned4 src --exist",
        ip6="-j SET --add-set sipfw-banned6 src --exist",
        nft="counter update @banned4 { ip saddr }",
        nft6="counter update @banned6 { ip6 saddr }",
    ),
    case(
        UpdateSet("banned", DST),
        ip="-j SET --add-set sipfw-banned4 dst --exist",
        ip6="-j SET --add-set sipfw-banned6 dst --exist",
        nft="counter update @banned4 { ip daddr }",
        nft6="counter update @banned6 { ip6 daddr }",
    ),
    # Looking must not count, and an entry that is there keeps its timeout.
    case(
        AddOnce("banned", DST),
        ip="-m set ! --match-set sipfw-banned4 dst ! --update-counters"
        " -j SET --add-set sipfw-banned4 dst",
        ip6="-m set ! --match-set sipfw-banned6 dst ! --update-counters"
        " -j SET --add-set sipfw-banned6 dst",
        nft="counter",
    ),
    case(
        DeleteFromSet("banned"),
        ip="-j SET --del-set sipfw-banned4 src",
        ip6="-j SET --del-set sipfw-banned6 src",
        nft="counter delete @banned4 { ip saddr }",
        nft6="counter delete @banned6 { ip6 saddr }",
    ),
    case(
        DeleteFromSet("banned", DST),
        ip="-j SET --del-set sipfw-banned4 dst",
        ip6="-j SET --del-set sipfw-banned6 dst",
        nft="counter delete @banned4 { ip daddr }",
        nft6="counter delete @banned6 { ip6 daddr }",
    ),
    # A source is a prefix, a phone an address, transport and port.
    case(
        UpdateSet("sources"),
        ip="-j SET --add-set sipfw-sources4 src --exist",
        ip6="-j SET --add-set sipfw-sources6 src --exist",
        nft="counter update @sources4 { ip saddr }",
        nft6="counter update @sources6 { ip6 saddr and ffff:ffff:ffff:ffff:: }",
    ),
    case(
        UpdateSet("phones"),
        ip="-j SET --add-set sipfw-phones4 src,src --exist",
        ip6="-j SET --add-set sipfw-phones6 src,src --exist",
        nft="counter update @phones4 { ip saddr . meta l4proto . th sport }",
        nft6="counter update @phones6 { ip6 saddr . meta l4proto . th sport }",
    ),
    case(
        AddOnce("phones", DST),
        ip="-m set ! --match-set sipfw-phones4 dst,dst ! --update-counters"
        " -j SET --add-set sipfw-phones4 dst,dst",
        ip6="-m set ! --match-set sipfw-phones6 dst,dst ! --update-counters"
        " -j SET --add-set sipfw-phones6 dst,dst",
        nft="counter",
    ),
    case(
        DeleteFromSet("phones", DST),
        ip="-j SET --del-set sipfw-phones4 dst,dst",
        ip6="-j SET --del-set sipfw-phones6 dst,dst",
        nft="counter delete @phones4 { ip daddr . meta l4proto . th dport }",
        nft6="counter delete @phones6 { ip6 daddr . meta l4proto . th dport }",
    ),
    # Who sent, and to which port; looking for the entry counts the packet, unless it is made.
    case(
        UpdateSet("lost"),
        ip="-j SET --add-set sipfw-lost4 src,dst --exist",
        ip6="-j SET --add-set sipfw-lost6 src,dst --exist",
        nft="counter update @lost4 { ip saddr . meta l4proto . th dport }",
        nft6="counter update @lost6 { ip6 saddr . meta l4proto . th dport }",
    ),
    case(
        AddOnce("lost", counting=True),
        ip="-m set ! --match-set sipfw-lost4 src,dst -j SET --add-set sipfw-lost4 src,dst",
        ip6="-m set ! --match-set sipfw-lost6 src,dst -j SET --add-set sipfw-lost6 src,dst",
        nft="counter add @lost4 { ip saddr . meta l4proto . th dport counter }",
        nft6="counter add @lost6 { ip6 saddr . meta l4proto . th dport counter }",
    ),
]

SETLESS = [
    setless(
        UpdateSet("banned", DST),
        ip="-m recent --set --name sipfw-banned4 --rdest",
        ip6="-m recent --set --name sipfw-banned6 --rdest",
    ),
    setless(
        AddOnce("banned"),
        ip="-m recent --set --name sipfw-banned4 --rsource",
        ip6="-m recent --set --name sipfw-banned6 --rsource",
    ),
    setless(
        DeleteFromSet("banned", DST),
        ip="-m recent --remove --name sipfw-banned4 --rdest",
        ip6="-m recent --remove --name sipfw-banned6 --rdest",
    ),
    setless(
        UpdateSet("sources"),
        ip="-m recent --set --name sipfw-sources4 --rsource",
        ip6="-m recent --set --name sipfw-sources6 --mask ffff:ffff:ffff:ffff:: --rsource",
    ),
    setless(
        DeleteFromSet("phones", DST),
        ip="-m recent --remove --name sipfw-phones4 --rdest",
        ip6="-m recent --remove --name sipfw-phones6 --rdest",
    ),
    setless(
        Record("recent"),
        ip="-m recent --set --name sipfw-recent4 --rsource",
        ip6="-m recent --set --name sipfw-recent6 --rsource",
    ),
    setless(
        Record("recent", SITES),
        ip="-m recent --set --name sipfw-recent4 --rsource",
        ip6="-m recent --set --name sipfw-recent6 --mask ffff:ffff:ffff:ffff:: --rsource",
    ),
    setless(
        Reset(),
        ip="-p tcp -j REJECT --reject-with tcp-reset",
        ip6="-p tcp -j REJECT --reject-with tcp-reset",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_action_of_iptables(case: Case) -> None:
    for family, expected in ((Family.IP, case.ip), (Family.IP6, case.ip6)):
        assert lines(action=case.action, sets=SETS, family=family) == [expected]


@pytest.mark.parametrize("case", SETLESS, ids=str)
def test_action_of_iptables_without_ipset(case: Case) -> None:
    for family, expected in ((Family.IP, case.ip), (Family.IP6, case.ip6)):
        found = lines(action=case.action, sets=SETS, ipset=False, family=family)
        assert found == [expected]


@pytest.mark.parametrize("action", [UpdateSet("lost"), AddOnce("lost", counting=True)])
def test_without_ipset_nothing_is_noted_of_targets(action: Action) -> None:
    """A list of xt_recent knows no ports and holds 100 addresses."""
    assert lines(action=action, sets=SETS, ipset=False) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_action_of_nftables(case: Case) -> None:
    for family, expected in ((Family.IP, case.nft), (Family.IP6, case.nft6)):
        assert nft_lines(action=case.action, sets=SETS, family=family) == [expected]


def test_every_kind_of_action_has_a_case() -> None:
    assert {type(case.action) for case in CASES} == set(get_args(Action))


def _one(text: str, *sets: AddressSet, ipset: bool = True) -> XPlan:
    rule = Rule(text, (InSet("peers"),), Drop(), "a rule", ORIGIN)
    return plan(rule, sets=sets, ipset=ipset)


def _peers(*networks: str) -> AddressSet:
    return AddressSet(
        "peers", SetKind.NETWORK, "peers", ORIGIN, networks=tuple(map(ip_network, networks))
    )


def test_a_rule_that_was_split_keeps_its_id() -> None:
    lowered = _one("identity.peers", _peers("192.0.2.1", "192.0.2.9"), ipset=False)
    comments = [
        split_comment(rule.comment) for _, chain, rule in all_rules(lowered) if chain == "CHAIN"
    ]
    ids = [parts[0] for parts in comments if parts is not None]
    assert ids == ["identity.peers/1", "identity.peers/2"]
    assert {base_id(item) for item in ids} == {"identity.peers"}


def test_the_digest_changes_with_the_content_and_with_nothing_else() -> None:
    table = plan(Rule("a", (Protocol(L4Proto.UDP),), Drop(), "words", ORIGIN)).tables[0]
    rule = table.chains[0].rules[0]
    other_words = plan(Rule("a", (Protocol(L4Proto.UDP),), Drop(), "other words", ORIGIN))
    assert other_words.tables[0].chains[0].rules[0].comment == rule.comment
    digests = {
        comment("a", changed, family).partition("#")[2]
        for changed, family in (
            (rule, Family.IP),
            (rule, Family.IP6),
            (replace(rule, protocol="tcp"), Family.IP),
            (replace(rule, source="192.0.2.1"), Family.IP),
            (replace(rule, target=None), Family.IP),
        )
    }
    assert len(digests) == 5


def test_only_our_comments_are_ours() -> None:
    assert split_comment("sipfw:rate.accept#0123abcd") == ("rate.accept", "0123abcd")
    for text in ("", "sipfw:", "sipfw:x", "sipfw:x#123", "sipfw:x#0123ABCD", "xsipfw:x#0123abcd"):
        assert split_comment(text) is None


def test_there_is_one_jump_for_each_base_chain() -> None:
    for table in plan(Rule("a", (), Drop(), "a rule", ORIGIN)).tables:
        assert [jump.hook for jump in table.jumps] == ["PREROUTING"]
        target = table.jumps[0].rule.target
        assert target is not None
        assert (target.name, target.goto) == ("CHAIN", False)


def test_sets_are_split_by_family() -> None:
    endpoints = (
        Endpoint(ip_network("192.0.2.0/24"), L4Proto.UDP, 5060),
        Endpoint(ip_network("2001:db8::1"), L4Proto.TCP, 5061),
    )
    sets = (
        _peers("192.0.2.1", "198.51.100.0/24", "2001:db8::/32"),
        AddressSet("x-ports", SetKind.PEER_ENDPOINT, "peers", ORIGIN, endpoints=endpoints),
        *SETS,
        replace(BANNED, name="fails", counted=True, timeout=60),
    )
    text = ipset_text(lower(Ruleset((), sets, ())))
    assert text.splitlines() == [
        "create sipfw-peers4 hash:net family inet hashsize 1024 maxelem 65536",
        "add sipfw-peers4 192.0.2.1",
        "add sipfw-peers4 198.51.100.0/24",
        "create sipfw-peers6 hash:net family inet6 hashsize 1024 maxelem 65536",
        "add sipfw-peers6 2001:db8::/32",
        "create sipfw-x-ports4 hash:net,port family inet hashsize 1024 maxelem 65536",
        "add sipfw-x-ports4 192.0.2.0/24,udp:5060",
        "create sipfw-x-ports6 hash:net,port family inet6 hashsize 1024 maxelem 65536",
        "add sipfw-x-ports6 2001:db8::1,tcp:5061",
        "create sipfw-banned4 hash:ip family inet hashsize 1024 maxelem 1000 timeout 3600",
        "create sipfw-banned6 hash:ip family inet6 hashsize 1024 maxelem 1000 timeout 3600",
        "create sipfw-sources4 hash:ip family inet hashsize 1024 maxelem 1000 timeout 60",
        (
            "create sipfw-sources6 hash:ip family inet6 hashsize 1024 maxelem 1000 netmask 64"
            " timeout 60"
        ),
        "create sipfw-phones4 hash:ip,port family inet hashsize 1024 maxelem 1000 timeout 60",
        "create sipfw-phones6 hash:ip,port family inet6 hashsize 1024 maxelem 1000 timeout 60",
        (
            "create sipfw-lost4 hash:ip,port family inet hashsize 1024 maxelem 1000 timeout 60"
            " counters"
        ),
        (
            "create sipfw-lost6 hash:ip,port family inet6 hashsize 1024 maxelem 1000 timeout 60"
            " counters"
        ),
        "create sipfw-fails4 hash:ip family inet hashsize 1024 maxelem 1000 timeout 60 counters",
        "create sipfw-fails6 hash:ip family inet6 hashsize 1024 maxelem 1000 timeout 60 counters",
    ]


def test_a_window_is_a_counted_set_of_its_own() -> None:
    """xt_recent would forget all but 100 sources."""
    window = SeenAtLeast("recent", 20, 90, 131072, SITES)
    rules = (
        Rule("a", (window,), Drop(), "above", ORIGIN),
        Rule("b", (), Record("recent", SITES), "noted", ORIGIN),
    )
    assert ipset_text(plan(*rules)).splitlines() == [
        (
            "create sipfw-recent4 hash:ip family inet hashsize 32768 maxelem 131072 timeout 90"
            " counters"
        ),
        (
            "create sipfw-recent6 hash:ip family inet6 hashsize 32768 maxelem 131072 netmask 64"
            " timeout 90 counters"
        ),
    ]
    assert plan(*rules, ipset=False).sets == ()


def test_a_reset_needs_no_second_word_for_tcp() -> None:
    assert lines(TcpSyn(), action=Reset()) == [
        "-p tcp -m tcp --syn -j REJECT --reject-with tcp-reset"
    ]


def test_a_reset_of_a_datagram_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="cannot match tcp"):
        lines(Protocol(L4Proto.UDP), action=Reset())


def test_the_whole_internet_is_two_halves() -> None:
    lowered = lower(Ruleset((), (_peers("0.0.0.0/0", "::/0"),), ()))
    assert [item.elements for item in lowered.sets] == [
        ("0.0.0.0/1", "128.0.0.0/1"),
        ("::/1", "8000::/1"),
    ]


def test_a_set_has_room_for_twice_its_networks() -> None:
    many = tuple(ip_network((0x0A000000 + (n << 8), 24)) for n in range(40_000))
    peers = AddressSet("peers", SetKind.NETWORK, "peers", ORIGIN, networks=many)
    options = lower(Ruleset((), (peers,), ())).sets[0].options
    assert options[options.index("maxelem") + 1] == "80000"


def test_without_ipset_there_are_no_sets() -> None:
    assert _one("a", _peers("192.0.2.1"), ipset=False).sets == ()


@pytest.mark.parametrize("name", ["trusted-tls-ports", "tier-premium", "failures-learned"])
def test_the_longest_set_names_leave_room_for_the_loaders_suffix(name: str) -> None:
    assert len(f"sipfw-{name}6-new") <= MAX_SET_NAME
