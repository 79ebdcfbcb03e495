"""Peers with one address and nine networks: nftables keeps the two sorts in sets of their own.

So many are looked up, not written out, and a peer is one wherever among them its packets are from.
"""

from __future__ import annotations

from packets.cases import CARRIER_SOURCES, Case, Policy, request, trusting

# The carrier's host is in one of the networks, or is the address. No two networks are neighbours:
# the policy would join them.
_HOME = ["203.0.113.8/29", "2001:db8:5::/64"]
_ELSEWHERE = [
    text
    for number in range(1, 9)
    for text in (f"198.51.100.{8 + 16 * number}/29", f"2001:db8:{number:x}00::/48")
]
_ANOTHER_NETWORK = ["198.51.100.208/29", "2001:db8:900::/48"]
_ANOTHER_ADDRESS = ["198.51.100.250", "2001:db8:a00::1"]

IN_A_NETWORK = [*_ANOTHER_ADDRESS, *_HOME, *_ELSEWHERE]
THE_ADDRESS = [*CARRIER_SOURCES, *_ELSEWHERE, *_ANOTHER_NETWORK]


def _case(name: str, policy: Policy, rule: str, *, delivered: int = 5, port: int = 5060) -> Case:
    return Case(
        name,
        (request("OPTIONS"),),
        delivered=delivered,
        rule=rule,
        counted=5,
        policy=policy,
        role="carrier",
        repeat=5,
        ports=(port,),
    )


MIXED_CASES = [
    _case("peer-in-one-of-nine-networks", trusting(signalling=IN_A_NETWORK), "trusted.accept"),
    _case("peer-beside-nine-networks", trusting(signalling=THE_ADDRESS), "trusted.accept"),
    _case(
        "peer-in-none-of-nine-networks-is-unknown",
        trusting(signalling=[*_ANOTHER_ADDRESS, *_ELSEWHERE, *_ANOTHER_NETWORK]),
        "scanner.options-udp",
        delivered=0,
    ),
    _case(
        "udp-peer-in-one-of-nine-networks",
        trusting(signalling=IN_A_NETWORK, transports=["udp"]),
        "trusted.udp",
    ),
    _case(
        "peer-in-one-of-nine-networks-from-its-source-port",
        trusting(signalling=IN_A_NETWORK, source_ports=[5070]),
        "trusted.ports",
        port=5070,
    ),
    _case(
        "peer-in-one-of-nine-networks-from-another-source-port-is-unknown",
        trusting(signalling=IN_A_NETWORK, source_ports=[5070]),
        "scanner.options-udp",
        delivered=0,
        port=5071,
    ),
    _case(
        "peer-in-one-of-nine-networks-where-strangers-are-denied",
        {"profile": "ip-auth", **trusting(signalling=IN_A_NETWORK)},
        "trusted.accept",
    ),
]
