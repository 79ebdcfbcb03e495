"""Cases of `sipfw test`: what the operator expects of single requests."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any

from pydantic import Field

from sipfw.policy.document import schema_of
from sipfw.policy.scenario import Line
from sipfw.policy.section import Flag, Section
from sipfw.policy.types import Port


class Known(StrEnum):
    """What the switch has found out about the source before."""

    STRANGER = "stranger"
    LEARNED = "learned"
    BANNED = "banned"


class Expected(StrEnum):
    """What becomes of a request."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"


class Speaks(StrEnum):
    """What carries the request."""

    UDP = "udp"
    TCP = "tcp"


class Case(Section):
    """One request and what is expected of it."""

    name: Line = Field("", description="What the report calls it.")
    send: Annotated[str, Field(pattern=r"^[A-Z]{2,20}$")] = Field(description="A SIP method.")
    source: IPv4Address | IPv6Address = Field(description="Who sends it.")
    source_port: Port = Field(5060, description="From which port.")
    to_port: Port | None = Field(None, description="To which port; the first one for SIP if none.")
    transport: Speaks = Field(Speaks.UDP, description="`udp` or `tcp`.")
    user_agent: Line | None = Field(None, description="What it calls itself.")
    known: Known = Field(Known.STRANGER, description="`stranger`, `learned` or `banned`.")
    above_limits: Flag = Field(default=False, description="Its source has used up every limit.")
    expect: Expected = Field(description="`accepted` or `dropped`.")
    by: Line | None = Field(None, description="The rule that decides, as `sipfw verify` names it.")


class Cases(Section):
    """A file of cases."""

    cases: tuple[Case, ...] = Field(min_length=1)


def case_schema() -> dict[str, Any]:
    """Return the JSON Schema of a file of cases."""
    return schema_of(Cases, "sipfw cases")
