"""Which live rule counts for which peer, in the words of both packet filters."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest

from sipfw.compare.live import Live, LiveChain, LiveRule
from sipfw.lower.xtables import Family
from sipfw.monitor.peer_counts import count_of, source_counts
from sipfw.monitor.report import Count

A, B = ip_network("203.0.113.10/32"), ip_network("203.0.113.64/28")


def nft(right: Any, op: str = "==", field: str = "saddr") -> str:
    left = {"payload": {"protocol": "ip", "field": field}}
    match = {"match": {"left": left, "op": op, "right": right}}
    return json.dumps([match, {"counter": None}, {"accept": None}])


def live(*lines: str, chain: str = "SIP_TRUSTED") -> Live:
    rules = tuple(LiveRule("trusted.accept", "0" * 8, 3, 300, line) for line in lines)
    return Live((LiveChain(Family.IP, "raw", chain, rules),), (), ())


@pytest.mark.parametrize(
    ("line", "network"),
    [
        ("-A SIP_TRUSTED -s 203.0.113.10/32 -m comment -j RETURN", A),
        ("-A SIP_TRUSTED -s 203.0.113.64/28 -p tcp -j RETURN", B),
        ("-A SIP_TRUSTED ! -s 203.0.113.10/32 -j RETURN", None),
        ("-A SIP_TRUSTED -s nonsense -j RETURN", None),
        ("-A SIP_TRUSTED -m set --match-set sipfw-trusted4 src -j RETURN", None),
        (nft("203.0.113.10"), A),
        (nft({"prefix": {"addr": "203.0.113.64", "len": 28}}), B),
        (nft("203.0.113.10", op="!="), None),
        (nft("203.0.113.10", field="daddr"), None),
        (nft("@trusted4"), None),
        (nft({"set": ["203.0.113.10"]}), None),
        ("[broken", None),
    ],
)
def test_the_source_of_a_rule(line: str, network: Any) -> None:
    found = source_counts(live(line), "SIP_TRUSTED")
    assert found == ({} if network is None else {network: Count(3, 300)})


def test_rules_for_one_network_are_summed_and_other_chains_left_out() -> None:
    line = "-A SIP_TRUSTED -s 203.0.113.10/32 -j RETURN"
    assert source_counts(live(line, line), "SIP_TRUSTED") == {A: Count(6, 600)}
    assert source_counts(live(line, chain="SIP_TIERS"), "SIP_TRUSTED") == {}


def test_a_peer_is_known_only_if_all_of_it_is() -> None:
    counts = {A: Count(3, 300), B: Count(4, 400)}
    halves = [ip_network("203.0.113.64/29"), ip_network("203.0.113.72/29")]
    assert count_of([A], counts) == Count(3, 300)
    assert count_of([A, *halves], counts) == Count(7, 700)
    assert count_of([A, ip_network("2001:db8:5::a/128")], counts) is None
    assert count_of([halves[0]], counts) is None
    assert count_of([], counts) is None
