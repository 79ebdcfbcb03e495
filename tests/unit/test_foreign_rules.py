"""What the readers of either kernel side make of one rule of somebody else."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from sipfw.compare.foreign import (
    EVERY_PORT,
    Asked,
    AskedPorts,
    Conditions,
    PortSide,
    Sent,
    Verdict,
)
from sipfw.kernel.nft import foreign as nft_json
from sipfw.kernel.nft import foreign_text as nft_text
from sipfw.kernel.xtables import foreign as iptables
from sipfw.ruleset.match import PortRange
from sipfw.ruleset.rule import Family

CHAINS = frozenset({"THEIRS"})
SIP = PortRange(5060, 5060)
UDP = (Asked(("udp",)),)
NETWORK = ip_network("192.0.2.0/24")

# The same rule in both grammars.
BOTH = [
    ("-j DROP", "drop", Conditions(), Verdict.DROP),
    ("-j NFQUEUE --queue-num 7", "queue to 7", Conditions(), Verdict.QUEUE),
    (
        "-s 192.0.2.0/24 -p udp -m udp --dport 5060 -j ACCEPT",
        "ip saddr 192.0.2.0/24 udp dport 5060 counter packets 1 bytes 2 accept",
        Conditions(protocols=UDP, ports=(AskedPorts((SIP,)),), sources=(Asked((NETWORK,)),)),
        Verdict.ACCEPT,
    ),
    (
        "! -i lo -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        'iifname != "lo" ct state { related, established } return',
        Conditions(
            in_interfaces=(Asked(("lo",), negated=True),),
            states=(Asked(("related", "established")),),
        ),
        Verdict.RETURN,
    ),
    (
        "-p udp -m conntrack --ctorigdstport 5060 -g THEIRS",
        "meta l4proto udp ct original proto-dst 5060 goto THEIRS",
        Conditions(protocols=UDP, ports=(AskedPorts((SIP,), side=PortSide.ORIGINAL),)),
        Verdict.GOTO,
    ),
]


@pytest.mark.parametrize(("words", "text", "asks", "verdict"), BOTH)
def test_both_grammars_say_the_same(
    words: str, text: str, asks: Conditions, verdict: Verdict
) -> None:
    first = iptables.foreign_rule(f"-A INPUT {words}", CHAINS)
    second = nft_text.foreign_rule(text)
    assert (first.asks, first.verdict) == (asks, verdict)
    families = (Asked((Family.IP,)),) if "ip saddr" in text else ()
    assert second.asks == Conditions(
        **{name: getattr(asks, name) for name in Conditions.__slots__ if name != "families"},
        families=families,
    )
    assert second.verdict is verdict
    assert first.leads_to == second.leads_to
    assert first.is_wall is (words == "-j DROP")


@pytest.mark.parametrize(
    ("words", "unsure"),
    [
        ("-m nobody-knows -p udp -m udp -j ACCEPT", ("-m nobody-knows",)),
        ("-p tcp -m tcp --tcp-flags RST RST -j DROP", ("--tcp-flags RST RST",)),
        ("-p tcp -m tcp --tcp-flags SYN,ACK SYN -j DROP", ()),
        ("-p tcp -m tcp --tcp-flags SYN,ACK ACK -j DROP", ()),
    ],
)
def test_a_part_that_is_not_understood_is_unsure(words: str, unsure: tuple[str, ...]) -> None:
    assert iptables.foreign_rule(f"-A INPUT {words}", CHAINS).asks.unsure == unsure


@pytest.mark.parametrize(
    ("words", "unsure"),
    [
        ("-m limit --limit 3/min -j ACCEPT", ("--limit 3/min",)),
        ("-m pkttype ! --pkt-type host -j DROP", ("! --pkt-type host",)),
        ("-m geoip --source-country XX -j DROP", ("--source-country XX",)),
        ("-m nobody-knows -j ACCEPT", ("-m nobody-knows",)),
        ("-m set --match-set bad dst -j DROP", ("--match-set bad dst",)),
        ("-m socket -j ACCEPT", ("-m socket",)),
        ('-m string --string "-j DROP" --algo bm -j ACCEPT', ("--string -j DROP", "--algo bm")),
        ('-m comment --comment "-i lo" -j ACCEPT', ()),
    ],
)
def test_what_is_not_understood_is_unsure(words: str, unsure: tuple[str, ...]) -> None:
    found = iptables.foreign_rule(f"-A INPUT {words}", CHAINS)
    assert found.asks == Conditions(unsure=unsure)
    assert found.verdict in {Verdict.ACCEPT, Verdict.DROP}


def test_the_other_ports() -> None:
    asked = AskedPorts((SIP, PortRange(0, 21)), negated=True)
    assert asked.fitting == (PortRange(22, 5059), PortRange(5061, 65535))


def test_where_packets_are_sent() -> None:
    nine, ten = ip_address("192.0.2.9"), ip_address("192.0.2.10")
    line = "-A PREROUTING -p udp -j DNAT --to-destination 192.0.2.9-192.0.2.10:5060"
    assert iptables.foreign_rule(line, ()).sent == (Sent(SIP, (nine, ten)),)
    text = "dnat ip to udp dport map { 7070 : 192.0.2.9 . 5060, 80 : 192.0.2.10 . 80 }"
    found = nft_text.foreign_rule(text)
    assert (found.verdict, found.asks.protocols) == (Verdict.SEND, UDP)
    assert found.sent == (
        Sent(SIP, (nine,), PortRange(7070, 7070)),
        Sent(PortRange(80, 80), (ten,), PortRange(80, 80)),
    )
    assert nft_text.foreign_rule("redirect to :udp dport map @gone").sent == (Sent(EVERY_PORT),)


def test_a_map_of_verdicts_has_an_entry_for_each() -> None:
    found = nft_text.foreign_rule("udp dport vmap { 5060 : jump sip, 22 : drop }")
    assert found.verdict is Verdict.MAP
    assert [(item.verdict, item.target, item.asks.ports) for item in found.each] == [
        (Verdict.JUMP, "sip", (AskedPorts((SIP,)),)),
        (Verdict.DROP, "", (AskedPorts((PortRange(22, 22),)),)),
    ]
    (unread,) = nft_text.foreign_rule("udp dport vmap @gone").each
    assert (unread.verdict, unread.unread) == (Verdict.NONE, "which verdict its map gives")
    (listed,) = nft_text.foreign_rule("udp dport vmap @m", lambda _: "5060 : drop").each
    assert (listed.verdict, listed.asks.ports) == (Verdict.DROP, (AskedPorts((SIP,)),))


def test_the_json_of_our_own_table() -> None:
    def verdicts(line: str) -> list[Verdict]:
        return [item.verdict for item in nft_json.foreign_rule(line).each]

    lead = '[{"match":{"left":1,"op":"==","right":2}},{"goto":{"target":"accept"}}]'
    assert verdicts(lead) == [Verdict.GOTO]
    assert nft_json.foreign_rule(lead).leads_to == "accept"
    both = '[{"vmap":{"data":{"set":[[5060,{"accept":null}],[22,{"drop":null}]]},"key":1}}]'
    assert verdicts(both) == [Verdict.ACCEPT, Verdict.DROP]
    assert verdicts('[{"counter":null},{"log":null}]') == [Verdict.NONE]
    assert not nft_json.foreign_rule('[{"drop":null}]').is_wall
