"""How host names in a policy are followed: how long an answer counts, how far it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from sipfw.policy.quantities import parse_count, parse_duration, shown
from sipfw.policy.section import Section
from sipfw.policy.types import HostnameText

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The timer of install-service looks every five minutes; an operator may have it look more often.
SHORTEST_TTL = 60
LONGEST_TTL = 86_400
LONGEST_GRACE = 7 * 86_400
MOST_ADDRESSES = 256


def parse_ttl(value: object) -> int:
    """Accept 1m to 1d; gives seconds."""
    seconds = parse_duration(value)
    if not SHORTEST_TTL <= seconds <= LONGEST_TTL:
        raise ValueError(f"{shown(value)} is out of range; write 1m to 1d")
    return seconds


def parse_grace(value: object) -> int:
    """Accept 0s, for none, to 7d; gives seconds."""
    if (isinstance(value, str) and value in {"0", "0s"}) or (value == 0 and type(value) is int):
        return 0
    seconds = parse_duration(value)
    if seconds > LONGEST_GRACE:
        raise ValueError(f"{shown(value)} is too long to trust who is gone; write at most 7d")
    return seconds


def parse_addresses(value: object) -> int:
    """Accept how many addresses a name may have."""
    if parse_count(value) > MOST_ADDRESSES:
        raise ValueError(f"{shown(value)} is too large; write at most {MOST_ADDRESSES}")
    return parse_count(value)


def _time_schema(*examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "integer"], "examples": [*examples]})


Ttl = Annotated[int, BeforeValidator(parse_ttl), _time_schema("5m", "1h")]
Grace = Annotated[int, BeforeValidator(parse_grace), _time_schema("1h", "1d")]
Addresses = Annotated[
    int,
    BeforeValidator(parse_addresses),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_ADDRESSES}),
]


class Names(Section):
    """Host names of peers and administrators: how they are followed."""

    grace: Grace = Field(
        3600,
        description="An address that a name has no more stays until it has been missing for so "
        "long, at most 7d: answers rotate. 0s for none.",
    )
    min_ttl: Ttl = Field(
        300, description="A name is asked again no sooner, whatever TTL its answer has; 1m to 1d."
    )
    max_ttl: Ttl = Field(3600, description="A name is asked again no later; 1m to 1d.")
    max_addresses: Addresses = Field(
        64, description="An answer with more is refused as a whole; 1 to 256."
    )
    allow_private: tuple[HostnameText, ...] = Field(
        (),
        max_length=256,
        description="Host names whose private addresses (10/8, 172.16/12, 192.168/16, 100.64/10, "
        "fc00::/7) are believed. From all other public names they are refused.",
    )


def names_faults(names: Names, used: Iterable[str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield path and message of what contradicts itself; `used` are the policy's host names."""
    if names.min_ttl > names.max_ttl:
        yield (
            ("min_ttl",),
            f"'{names.min_ttl}' seconds is more than max_ttl ({names.max_ttl}); lower it",
        )
    known = set(used)
    for index, name in enumerate(names.allow_private):
        if name not in known:
            message = f"'{name}' is no host name of this policy; write it as there, or remove it"
            yield ("allow_private", index), message


__all__ = ["Names", "names_faults"]
