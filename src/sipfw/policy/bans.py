"""Bans: how long they last, how many there are room for, and what a banned source may try."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sipfw.policy.section import Flag, Section, StrictInt
from sipfw.policy.types import Duration, SetSize


class Bans(Section):
    """Temporary bans; they bite signalling ports only."""

    enabled: Flag = True
    duration: Duration = Field(3600, description="Length of a ban.")
    size: SetSize = Field(65536, description="Addresses a ban set holds.")
    growth: Annotated[StrictInt, Field(ge=1, le=16)] = Field(
        1,
        description="How many times longer each further ban by hand of the same source lasts than "
        "the one before it, where no time is given; 1 is always `duration`. Bans by packets do not "
        "grow.",
    )
    probation: Flag = Field(
        default=True,
        description="Let a banned source try a trickle of REGISTERs, so that a framed customer "
        "logs in and is freed.",
    )
