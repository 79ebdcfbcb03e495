"""Each action in both families of iptables, with ipset and without; names, comments and sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import get_args

import pytest
from lowered import ORIGIN, lines, plan

from sipfw.lower.iptables import all_rules, lower
from sipfw.lower.naming import MAX_SET_NAME, base_id, comment, split_comment
from sipfw.lower.xtables import Family, XPlan
from sipfw.render.restore import ipset_text
from sipfw.ruleset.match import Direction, InSet, L4Proto, Protocol
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
    Return,
    Rule,
    UpdateSet,
)

DST = Direction.DESTINATION
BANNED = AddressSet("banned", SetKind.HOST, "banned", ORIGIN, timeout=3600, size=1000)


@dataclass(frozen=True)
class Case:
    action: Action
    ip: str
    ip6: str
    ipset: bool = True


def case(action: Action, ip: str, ip6: str, *, ipset: bool = True) -> object:
    """Both families on adjacent lines."""
    form = "" if ipset else " without ipset"
    return pytest.param(Case(action, ip, ip6, ipset), id=f"{type(action).__name__}{form}")


CASES = [
    case(Accept(), "-j ACCEPT", "-j ACCEPT"),
    case(Done(), "-j RETURN", "-j RETURN"),
    case(Return(), "-j RETURN", "-j RETURN"),
    case(Drop(), "-j DROP", "-j DROP"),
    case(Jump("SIP_BAN"), "-j SIP_BAN", "-j SIP_BAN"),
    case(Goto("SIP_BAN"), "-g SIP_BAN", "-g SIP_BAN"),
    case(NoTrack(), "-j CT --notrack", "-j CT --notrack"),
    case(
        Log("sipfw banned.drop "),
        '-j LOG --log-prefix "sipfw banned.drop "',
        '-j LOG --log-prefix "sipfw banned.drop "',
    ),
    case(
        Log("sipfw banned.drop ", 5),
        '-j NFLOG --nflog-group 5 --nflog-prefix "sipfw banned.drop "',
        '-j NFLOG --nflog-group 5 --nflog-prefix "sipfw banned.drop "',
    ),
    case(
        Record("recent"),
        "-m recent --set --name sipfw-recent4 --rsource",
        "-m recent --set --name sipfw-recent6 --rsource",
    ),
    case(
        UpdateSet("banned"),
        "-j SET --add-set sipfw-banned4 src --exist",
        "-j SET --add-set sipfw-banned6 src --exist",
    ),
    case(
        UpdateSet("banned", DST),
        "-m recent --set --name sipfw-banned4 --rdest",
        "-m recent --set --name sipfw-banned6 --rdest",
        ipset=False,
    ),
    # Looking must not count, and an entry that is there keeps its timeout.
    case(
        AddOnce("banned", DST),
        "-m set ! --match-set sipfw-banned4 dst ! --update-counters"
        " -j SET --add-set sipfw-banned4 dst",
        "-m set ! --match-set sipfw-banned6 dst ! --update-counters"
        " -j SET --add-set sipfw-banned6 dst",
    ),
    case(
        AddOnce("banned"),
        "-m recent --set --name sipfw-banned4 --rsource",
        "-m recent --set --name sipfw-banned6 --rsource",
        ipset=False,
    ),
    case(
        DeleteFromSet("banned"),
        "-j SET --del-set sipfw-banned4 src",
        "-j SET --del-set sipfw-banned6 src",
    ),
    case(
        DeleteFromSet("banned", DST),
        "-m recent --remove --name sipfw-banned4 --rdest",
        "-m recent --remove --name sipfw-banned6 --rdest",
        ipset=False,
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_action(case: Case) -> None:
    for family, expected in ((Family.IP, case.ip), (Family.IP6, case.ip6)):
        found = lines(action=case.action, sets=(BANNED,), ipset=case.ipset, family=family)
        assert found == [expected]


def test_every_kind_of_action_has_a_case() -> None:
    covered = {type(case.values[0].action) for case in CASES}  # type: ignore[attr-defined]
    assert covered == set(get_args(Action))


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
        BANNED,
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
        "create sipfw-fails4 hash:ip family inet hashsize 1024 maxelem 1000 timeout 60 counters",
        "create sipfw-fails6 hash:ip family inet6 hashsize 1024 maxelem 1000 timeout 60 counters",
    ]


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


@pytest.mark.parametrize("name", ["trusted-tls-ports", "tier-premium", "failures"])
def test_the_longest_set_names_leave_room_for_the_loaders_suffix(name: str) -> None:
    assert len(f"sipfw-{name}6-new") <= MAX_SET_NAME
