"""What a packet case is: who sends what under which policy, what arrives, which rule counts.

A case is data and knows no backend; `test_cases` sends it.  `delivered` and `counted` are exact
numbers, or bounds where a token bucket refills while packets are under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lab import sip

Number: TypeAlias = int | tuple[int, int]
Message: TypeAlias = Callable[[str, str], bytes]
Policy: TypeAlias = Mapping[str, Any]

DATA = Path(__file__).resolve().parent.parent / "data"
ATTACKS = DATA / "attack_messages"
LEGITIMATE = DATA / "legitimate_messages"

# The lab's carrier host in both families.
CARRIER_SOURCES = ["203.0.113.10", "2001:db8:5::a"]
CARRIER: Mapping[str, Any] = {"name": "carrier-a", "signalling": CARRIER_SOURCES}

# Only the named limits, so that a case cannot be stopped by another one.
UNLIMITED: Mapping[str, Any] = {
    "recent": None,
    "hashlimit": None,
    "per_source": None,
    "per_subnet": None,
    "connlimit": None,
    "aggregate": None,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One experiment.  `repeat` sends the messages several times, from `ports` in turn."""

    name: str
    messages: tuple[Message, ...]
    delivered: Number
    rule: str
    counted: Number
    policy: Policy = field(default_factory=dict)
    role: Literal["carrier", "attacker", "office"] = "attacker"
    transport: Literal["udp", "tcp"] = "udp"
    repeat: int = 1
    ports: Sequence[int] = (5060,)
    members: tuple[str, ...] = ()
    then_in: tuple[str, ...] = ()
    # Rests on sets of ports, which xt_recent has not.
    by_port: bool = False

    def __str__(self) -> str:
        return self.name


def trusting(**peer: object) -> Policy:
    """Return a policy that trusts the carrier, with these further fields of the peer."""
    return {"trusted_peers": [{**CARRIER, **peer}]}


def limited(**limits: object) -> Policy:
    """Return a policy with these limits and no other."""
    return {"limits": {**UNLIMITED, **limits}}


def request(method: str, user_agent: str | None = None, **fields: Any) -> Message:
    """Return a message that is built once the addresses are known."""

    def build(source: str, destination: str) -> bytes:
        return sip.request(
            method, source=source, destination=destination, user_agent=user_agent, **fields
        )

    return build


def raw(payload: bytes) -> Message:
    return lambda _source, _destination: payload


def attack(name: str) -> Message:
    return raw((ATTACKS / f"{name}.sip").read_bytes())


def within(measured: int, expected: Number) -> bool:
    if isinstance(expected, int):
        return measured == expected
    low, high = expected
    return low <= measured <= high
