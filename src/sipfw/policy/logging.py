"""The section `logging` of a policy."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from sipfw.policy.section import Section, StrictInt
from sipfw.policy.types import Burst, RateField
from sipfw.ruleset.match import Rate, TimeUnit


class LoggedLayer(StrEnum):
    """The layers that drop, by the names that `sipfw verify` shows."""

    ENTRY = "entry"
    TRUSTED = "trusted"
    LEARNED = "learned"
    BANNED = "banned"
    SCANNER = "scanner-block"
    RATE = "rate-limit"
    MEDIA = "media"
    HOST = "host"


class LogTo(StrEnum):
    """Who is told about a dropped packet."""

    LOG = "log"
    NFLOG = "nflog"


class Logging(Section):
    """Log lines about dropped packets, off by default; docs/logging.md."""

    layers: tuple[LoggedLayer, ...] = Field(
        (), description="Layers whose dropped packets are logged."
    )
    to: LogTo = Field(
        LogTo.LOG,
        description="`log`: the kernel's log, which rsyslog reads; `nflog`: a program such as "
        "ulogd2, with the packet itself.",
    )
    group: Annotated[StrictInt, Field(ge=1, le=65535)] = Field(
        5, description="NFLOG group. The kernel itself uses group 0."
    )
    rate: RateField = Field(
        Rate(10, TimeUnit.MINUTE),
        description="Lines per rule and address family, all sources together.",
    )
    burst: Burst = Field(5, description="Lines of one rule that may come at once.")
