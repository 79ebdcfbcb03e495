"""The way of a packet through hooks in order: states, NAT, sets, loops, what is not known."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from doctor_host import Fake, saved

from sipfw.kernel.nft.foreign_text import foreign_rule
from sipfw.kernel.nft.text_listing import parse_nft
from sipfw.lower.xtables import Family
from sipfw.monitor.host_path.fit import ESTABLISHED, INVALID, NEW, UNTRACKED, Fit, Grant, fit
from sipfw.monitor.host_path.members import ForeignSets
from sipfw.monitor.host_path.path import HostPath
from sipfw.monitor.host_path.removal import removal
from sipfw.monitor.why.others import Others
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState, PortRange
from sipfw.ruleset.model import Base, Hook, Priority
from sipfw.simulate.packet import Packet

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.monitor.why.others import Course

PEER = "203.0.113.10"
SIP = PortRange(5060, 5060)
JUMP = '-A {} -m comment --comment "sipfw:hook.{}#1" -j SIPFW_{}'
RAW = JUMP.format("PREROUTING", "raw.prerouting", "PREROUTING")
INPUT = JUMP.format("INPUT", "filter.input", "INPUT")
OUR_RULE = "-A SIPFW_{0} -m comment --comment sipfw:a#1 -j RETURN"


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def grant() -> Grant:
    return Grant("SIP", Family.IP, "udp", SIP, ip_network(PEER))


def course(fake: Fake, *tables: str) -> Course:
    """Load iptables' tables of IPv4 and walk a datagram of the peer."""
    fake.legacy(ip="".join(tables))
    host = fake.host()
    packet = Packet(ip_address(PEER), None, IpProto.UDP, 5060, 5060, state=CtState.NEW)
    return Others(host.rules, host.proc, host.runner).course(packet)


def raw(*rules: str) -> str:
    ours = OUR_RULE.format("PREROUTING")
    return saved(*rules, RAW, ours, table="raw", chains="SIPFW_PREROUTING MORE")


def filtered(*rules: str) -> str:
    return saved(INPUT, *rules, OUR_RULE.format("INPUT"), chains="SIPFW_INPUT MORE")


RAW_BASE = Base(Hook.PREROUTING, Priority.RAW)
INPUT_BASE = Base(Hook.INPUT, Priority.FILTER)


def test_what_is_dropped_before_ours_asks_nothing_of_ours(fake: Fake) -> None:
    found = course(fake, raw("-A PREROUTING -p udp -j DROP"), filtered())
    assert found.first == ()
    assert found.end is not None
    assert (found.end.place, found.end.before) == ("rule 1 of raw/PREROUTING", True)
    assert found.end.mend == "iptables-legacy -t raw -D PREROUTING 1"


@pytest.mark.parametrize("rule", ["-j ACCEPT", "-j RETURN", "-s 203.0.113.0/24 -g MORE"])
def test_what_leaves_a_chain_before_our_jump_passes_us_by(fake: Fake, rule: str) -> None:
    found = course(fake, raw(f"-A PREROUTING {rule}"), filtered())
    assert found.end is None
    assert RAW_BASE not in found.first
    assert INPUT_BASE in found.first


def test_a_jump_that_returns_comes_to_us(fake: Fake) -> None:
    found = course(fake, raw("-A PREROUTING -j MORE", "-A MORE -p tcp -j DROP"), filtered())
    assert RAW_BASE in found.first
    assert found.end is None


def test_a_loop_ends(fake: Fake) -> None:
    found = course(fake, raw("-A PREROUTING -j MORE", "-A MORE -j MORE"), filtered())
    assert found.end is None


@pytest.mark.parametrize(
    ("rule", "dropped"),
    [
        ("-m conntrack --ctstate NEW -j DROP", True),
        ("-m conntrack --ctstate UNTRACKED -j DROP", False),
        ("-m conntrack --ctstate ESTABLISHED -j DROP", False),
    ],
)
def test_what_is_not_tracked_has_no_state(fake: Fake, rule: str, dropped: bool) -> None:
    behind = filtered(f"-A INPUT {rule}")
    assert (course(fake, raw(), behind).end is not None) is dropped
    untracked = course(fake, raw("-A PREROUTING -p udp -j CT --notrack"), behind)
    assert (untracked.end is not None) is ("UNTRACKED" in rule)
    assert untracked.untracked
    assert "takes it out of connection tracking" in untracked.notes[0]


def test_a_zone_is_said(fake: Fake) -> None:
    found = course(fake, raw("-A PREROUTING -p udp -j CT --zone 5"), filtered())
    assert "zone of connection tracking" in found.notes[0]
    assert not found.untracked


def test_before_connection_tracking_nothing_is_new(fake: Fake) -> None:
    state = "-A PREROUTING -m conntrack --ctstate {} -j DROP"
    assert course(fake, raw(state.format("NEW")), filtered()).end is None
    assert course(fake, raw(state.format("INVALID")), filtered()).end is not None


def test_behind_nat_it_has_another_port(fake: Fake) -> None:
    nat = "-A PREROUTING -p udp -m udp --dport 5060 -j REDIRECT --to-ports 7000"
    moved = saved(nat, table="nat")
    found = course(fake, raw(), moved, filtered("-A INPUT -p udp -m udp --dport 7000 -j DROP"))
    assert (found.first, found.later, found.moved) == ((RAW_BASE,), (INPUT_BASE,), 7000)
    assert found.end is not None
    asked = filtered("-A INPUT -m conntrack --ctorigdstport 5060 -j DROP")
    assert course(fake, raw(), moved, asked).end is not None
    assert course(fake, raw("-A PREROUTING -j NOTRACK"), moved, filtered()).moved is None


def test_what_goes_to_another_host_is_not_filtered_here(fake: Fake) -> None:
    nat = saved("-A PREROUTING -p udp -j DNAT --to-destination 198.51.100.66", table="nat")
    found = course(fake, raw(), nat, filtered("-A INPUT -j DROP"))
    assert found.end is not None
    assert found.end.away == "198.51.100.66"
    assert INPUT_BASE not in found.first


def test_what_nobody_can_tell_has_two_ends(fake: Fake) -> None:
    found = course(fake, raw(), filtered("-A INPUT -m quota --quota 9 -j DROP"))
    assert found.end is None
    (end,) = found.possible
    assert end.when == ("--quota 9",)
    assert end.place == "rule 2 of filter/INPUT"


def test_answers_turn_all_round(fake: Fake) -> None:
    out = "-A OUTPUT -d 203.0.113.0/24 -p udp -m udp --sport 5060 -j DROP"
    text = f"*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n[0:0] {out}\nCOMMIT\n"
    found = course(fake, raw(), text)
    assert found.end is None
    assert found.answers is not None
    assert found.answers.mend == "iptables-legacy -D OUTPUT 1"
    other = text.replace("--sport", "--dport").replace("5060", "9999")
    # The port of the peer is known here.
    assert course(fake, raw(), other).answers is None


NFT = """\
table ip early { # handle 1
\tchain c {
\t\ttype filter hook prerouting priority raw - 5; policy accept;
\t\tudp dport 5060 notrack
\t}
}
table inet late {
\tchain c {
\t\ttype filter hook input priority 10; policy accept;
\t\tudp dport 5060 ct state new drop
\t}
\tchain n {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t}
}
table netdev card {
\tchain i {
\t\ttype filter hook ingress devices = { "eth0", eth1 } priority -500; policy drop;
\t}
}
"""


def test_hooks_stand_in_the_order_of_the_kernel(fake: Fake) -> None:
    blocks = tuple(parse_nft(NFT.replace(" # handle 1", "")))
    assert [(item.hook, item.type, item.priority, item.devices) for item in blocks] == [
        ("prerouting", "filter", -305, ()),
        ("input", "filter", 10, ()),
        ("prerouting", "nat", -100, ()),
        ("ingress", "filter", -500, ("eth0", "eth1")),
    ]
    fake.nft(NFT.replace(" # handle 1", ""))
    host = fake.host()
    path = HostPath(host.rules, host.proc)
    met = [(visit.way.base, visit.grant.state) for visit in path.travel(grant())]
    assert met == [("i", INVALID), ("c", INVALID), ("c", UNTRACKED)]
    elsewhere = path.placed(grant(), frozenset({"eth2"}))
    assert [visit.way.base for visit in path.travel(elsewhere)] == ["c", "c"]


def test_a_handle_is_looked_up(fake: Fake) -> None:
    fake.nft(NFT.replace(" # handle 1", ""))
    listing = (
        "table inet late {\n\tchain c { # handle 1\n"
        "\t\ttype filter hook input priority 10; policy accept;\n"
        "\t\tudp dport 5060 ct state new drop # handle 7\n\t}\n}\n"
    )
    fake.programs.answers["nft -a -t list chain inet late c"] = listing
    host = fake.host()
    way = next(w for w in HostPath(host.rules, host.proc).ways if w.hook == "input")
    step = way.chains["c"][0]
    assert removal(way, step, host.runner) == "nft delete rule inet late c handle 7"
    assert removal(way, step) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("udp dport 5060 meta mark set 0x1 drop", Fit.YES),
        ("udp dport 5060 ct mark set 5 counter packets 0 bytes 0 drop", Fit.YES),
        ("udp sport 5061 drop", Fit.NO),
        ("ip daddr 198.51.100.1 drop", Fit.NO),
        ("ip daddr 192.0.2.1 drop", Fit.YES),
        ('oifname "eth0" drop', Fit.NO),
        ('oifname != "eth0" udp dport 5060 drop', Fit.YES),
        ("udp dport 5060 limit rate 9/second burst 5 packets drop", Fit.MAYBE),
        ("meta length & 1 == 1 drop", Fit.MAYBE),
        ("ct state established drop", Fit.NO),
        ("ip saddr @friends drop", Fit.MAYBE),
    ],
)
def test_what_fits(text: str, said: Fit) -> None:
    here = Grant(
        *("SIP", Family.IP, "udp", SIP, ip_network(PEER)),
        own=frozenset({ip_address("192.0.2.1")}),
        far_ports=PortRange(5060, 5060),
    )
    assert fit(foreign_rule(text).asks, here) is said
    assert here.state == NEW
    assert here.answered().state == ESTABLISHED


def test_limits_are_named_as_they_are_written() -> None:
    text = "udp dport 5060 limit rate over 9/second burst 5 packets counter drop"
    assert foreign_rule(text).asks.unsure == ("limit rate over 9/second burst 5 packets",)
    masked = foreign_rule("udp dport 5060 tcp flags & (fin | syn) == syn drop")
    assert " ".join(masked.asks.unsure) == "tcp flags & (fin | syn) == syn"


SETS = {
    "create bad hash:ip family inet\nadd bad 203.0.113.10\n": (True, None),
    "create bad hash:net family inet\nadd bad 203.0.113.0/24 timeout 9\n": (True, True),
    "create bad hash:net family inet\nadd bad 198.51.100.0/24\n": (False, False),
    "create bad hash:net f\nadd bad 203.0.113.0/24\nadd bad 203.0.113.10 nomatch\n": (False, True),
    "create bad hash:ip family inet\nadd bad 203.0.113.8-203.0.113.15\n": (True, True),
    "create bad hash:ip,port family inet\n": (None, None),
    "": (None, None),
}


@pytest.mark.parametrize("text", SETS)
def test_who_is_in_an_ipset(fake: Fake, text: str) -> None:
    if text:
        fake.programs.answers["ipset save bad"] = text
    sets = ForeignSets(fake.host().runner)
    found = tuple(sets.ipset("bad", ip_network(item)) for item in (PEER, "203.0.113.8/30"))
    assert found == SETS[text]


def test_who_is_in_a_set_of_nft(fake: Fake) -> None:
    fake.programs.answers["nft list set inet fw bad"] = (
        "table inet fw {\n\tset bad {\n\t\ttype ipv4_addr\n\t\tflags interval,timeout\n"
        "\t\telements = { 203.0.113.0/28 timeout 1h expires 59m,\n"
        "\t\t\t     198.51.100.1-198.51.100.9 }\n"
        "\t}\n}\n"
    )
    sets = ForeignSets(fake.host().runner)
    assert sets.nft("inet", "fw", "@bad", ip_network(PEER)) is True
    assert sets.nft("inet", "fw", "@bad", ip_network("198.51.100.5")) is True
    assert sets.nft("inet", "fw", "@bad", ip_network("198.51.100.66")) is False


@pytest.mark.parametrize("name", ["-f", "--file", "a b", "x;y", "$(id)", "", "a'b"])
def test_a_name_that_could_mean_something_else_is_not_asked_for(fake: Fake, name: str) -> None:
    sets = ForeignSets(fake.programs)
    assert sets.ipset(name, ip_network(PEER)) is None
    assert sets.nft("inet", name, "@bad", ip_network(PEER)) is None
    assert fake.programs.asked == []


OURS = (
    "table inet sipfw {\n\tchain raw_prerouting {\n\t\ttype filter hook prerouting priority raw;\n"
)
OURS += '\t\tcounter jump SIPFW comment "sipfw:a#1"\n\t}\n}\n'


def test_of_our_own_table_the_hooks_are_enough(fake: Fake) -> None:
    fake.nft(OURS + NFT.replace(" # handle 1", ""))
    host = fake.host(own_table=False)
    path = HostPath(host.rules, host.proc)
    assert "nft -t list ruleset" not in fake.programs.asked
    ours = {way.ours for way in path.ways if way.ours is not None}
    assert {RAW_BASE, INPUT_BASE} <= ours
    whole = HostPath(fake.host().rules, host.proc)
    met = [[v.way.base for v in each.travel(grant()) if not v.way.ours] for each in (path, whole)]
    assert met[0] == met[1]


def test_a_table_with_an_odd_name_is_listed_with_all(fake: Fake) -> None:
    fake.nft(NFT.replace(" # handle 1", ""))
    fake.programs.answers["nft list tables"] = "table inet a;b\n"
    host = fake.host(own_table=False)
    assert len(host.rules.nft) == 4
    assert fake.programs.asked[-1] == "nft -t list ruleset"
