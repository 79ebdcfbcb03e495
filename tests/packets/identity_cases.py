"""Cases about who sends: trusted peers by address, port and transport, and denied strangers."""

from __future__ import annotations

from packets.cases import Case, raw, request, trusting

TRUSTED_CASES = [
    Case(
        f"trusted-peer-{name}-while-banned",
        (message,),
        delivered=200,
        rule="trusted.accept",
        counted=200,
        policy=trusting(),
        role="carrier",
        repeat=200,
        members=("banned",),
    )
    for name, message in (
        ("options-flood", request("OPTIONS")),
        ("scanner-agent", request("REGISTER", "friendly-scanner")),
        ("register-flood", request("REGISTER")),
        ("nonsense", raw(b"?")),
    )
] + [
    Case(
        "peer-from-its-source-port",
        (request("OPTIONS"),),
        delivered=5,
        rule="trusted.ports",
        counted=5,
        policy=trusting(source_ports=[5070]),
        role="carrier",
        repeat=5,
        ports=(5070,),
    ),
    Case(
        "peer-from-another-source-port-is-unknown",
        (request("OPTIONS"),),
        delivered=0,
        rule="scanner.options-udp",
        counted=5,
        policy=trusting(source_ports=[5070]),
        role="carrier",
        repeat=5,
        ports=(5071,),
    ),
    Case(
        "peer-from-its-source-port-over-tcp",
        (request("OPTIONS"),),
        delivered=1,
        rule="trusted.ports",
        counted=(2, 9),
        policy=trusting(source_ports=[5074]),
        role="carrier",
        transport="tcp",
        ports=(5074,),
    ),
    Case(
        "tcp-peer-over-tcp",
        (request("OPTIONS"),),
        delivered=1,
        rule="trusted.tcp",
        counted=(2, 9),
        policy=trusting(transports=["tcp"]),
        role="carrier",
        transport="tcp",
    ),
    Case(
        "tcp-peer-over-udp-is-unknown",
        (request("OPTIONS"),),
        delivered=0,
        rule="scanner.options-udp",
        counted=5,
        policy=trusting(transports=["tcp"]),
        role="carrier",
        repeat=5,
    ),
    Case(
        "udp-peer-over-udp",
        (request("OPTIONS"),),
        delivered=5,
        rule="trusted.udp",
        counted=5,
        policy=trusting(transports=["udp"]),
        role="carrier",
        repeat=5,
    ),
    Case(
        "udp-peer-over-tcp-is-unknown",
        (request("OPTIONS"),),
        delivered=0,
        rule="scanner.options-tcp",
        counted=(1, 9),
        policy=trusting(transports=["udp"]),
        role="carrier",
        transport="tcp",
    ),
    Case(
        "a-neighbour-of-the-peer-is-unknown",
        (request("OPTIONS"),),
        delivered=0,
        rule="scanner.options-udp",
        counted=1,
        policy=trusting(),
    ),
    Case(
        "tier-caps-new-calls-only",
        (request("INVITE"), request("BYE")),
        delivered=(120, 122),
        rule="trusted.tier-small",
        counted=(78, 80),
        policy=trusting(tier="small"),
        role="carrier",
        repeat=100,
    ),
]

IP_AUTH = {"profile": "ip-auth", **trusting()}
DENIED_CASES = [
    Case("stranger-is-denied", (request("REGISTER"),), 0, "unknown.denied", 5, IP_AUTH, repeat=5),
    Case(
        "stranger-is-denied-over-tcp",
        (request("REGISTER"),),
        0,
        "unknown.denied",
        (1, 9),
        IP_AUTH,
        transport="tcp",
    ),
    Case(
        "peer-passes-where-strangers-are-denied",
        (request("INVITE"),),
        200,
        "trusted.accept",
        200,
        IP_AUTH,
        "carrier",
        repeat=200,
    ),
]
