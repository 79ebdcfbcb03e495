"""Scenarios of `sipfw prove` as the user writes them: attacks, and what good phones do."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from sipfw.policy.document import read_as, schema_of
from sipfw.policy.section import Flag, Section, StrictInt

if TYPE_CHECKING:
    from collections.abc import Collection


class Actor(StrEnum):
    """Who acts: a trusted peer, a phone, phones behind one address, a provider nobody listed."""

    PEER = "peer"
    PHONE = "phone"
    OFFICE = "office"
    PROVIDER = "provider"


class Deed(StrEnum):
    """One thing that good traffic does; each is one transaction that completes or does not.

    `called` and `probed` come from the switch: a call that rings first, and an OPTIONS.
    """

    REGISTER = "register"
    OPTIONS = "options"
    CALL = "call"
    SUBSCRIBE = "subscribe"
    MESSAGE = "message"
    KEEP_ALIVE = "keep-alive"
    CALLED = "called"
    PROBED = "probed"


Small = Annotated[StrictInt, Field(ge=1, le=500)]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
Line = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class Scenario(Section):
    """What every scenario has."""

    name: Label = Field(description="Lower-case name, unique.")
    title: Line = Field(description="What it is, for the table.")
    ipv6: Flag = Field(default=False, description="Play it over IPv6, too.")
    unless: dict[str, bool | str] = Field(
        default_factory=dict,
        description="Policy fields with a value under which the operator wants it otherwise: then "
        "it is not played.",
    )


class Attack(Scenario):
    """What an attacker sends, and how much of it may reach the switch."""

    imitates: Line = Field("", description="The program that sends this.")
    message: Annotated[str, Field(max_length=65_000)] = Field(
        description="What is sent. {source}, {port}, {target}, {user}, {number}, {random} and "
        "{long}, 3 kB, are filled in; line ends become CRLF."
    )
    guesses: Flag = Field(
        default=False,
        description="Answer each challenge with a wrong password, as svcrack does; the guesses "
        "that the switch refuses are counted, not the packets.",
    )
    packets: Annotated[StrictInt, Field(ge=1, le=5000)] = Field(200, description="How many.")
    rate: Annotated[StrictInt, Field(ge=1, le=5000)] = Field(500, description="How many a second.")
    sources: Annotated[StrictInt, Field(ge=1, le=250)] = Field(
        1, description="Addresses of one /24 that it comes from, in turn (IPv6: /64s of a /56)."
    )
    ports: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        1, description="Source ports of each address, in turn."
    )
    at_most: Annotated[StrictInt, Field(ge=0, le=5000)] = Field(
        description="How many may reach the switch."
    )
    by_profile: dict[str, Annotated[StrictInt, Field(ge=0, le=5000)]] = Field(
        default_factory=dict,
        description="How many may with a profile whose limits are wider.",
    )


class Good(Scenario):
    """What good traffic does. Nothing of it may fail."""

    actor: Actor = Field(description="Who does it.")
    do: tuple[Deed, ...] = Field(min_length=1, max_length=20, description="In this order.")
    times: Small = Field(1, description="How often, one after the other.")
    phones: Annotated[StrictInt, Field(ge=1, le=100)] = Field(
        1, description="How many do it at the same time, each from a port of its own."
    )
    ringing: Annotated[float, Field(ge=0, le=120)] = Field(
        0.5, description="Seconds from 180 to 200 of a call that the switch makes."
    )
    during_attacks: Flag = Field(
        default=False, description="Go on with it while every attack is played."
    )


class Scenarios(Section):
    """A file of scenarios."""

    attacks: tuple[Attack, ...] = ()
    good: tuple[Good, ...] = ()

    def all(self) -> tuple[Scenario, ...]:
        """Return attacks and good traffic."""
        return (*self.attacks, *self.good)

    def only(self, names: Collection[str]) -> Scenarios:
        """Return those of these names."""
        return Scenarios(
            attacks=tuple(each for each in self.attacks if each.name in names),
            good=tuple(each for each in self.good if each.name in names),
        )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Scenarios:
        names = [each.name for each in self.all()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two scenarios are called {twice[0]}; give one another name")
        return self


def read_scenarios(raw: bytes, name: str) -> Scenarios:
    """Read a file of scenarios. Raises PolicyError with every fault and its line."""
    return read_as(Scenarios, raw, name)[0]


def scenario_schema() -> dict[str, Any]:
    """Return the JSON Schema of a file of scenarios."""
    return schema_of(Scenarios, "sipfw scenarios")
