"""What is asked of DNS and what comes back, as plain values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from sipfw.ruleset.addresses import IpAddress


class RecordType(Enum):
    """A record type."""

    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"
    NAPTR = "NAPTR"


@dataclass(frozen=True, slots=True)
class Srv:
    """A service of RFC 2782; a target of `.` says that there is none."""

    target: str
    port: int


@dataclass(frozen=True, slots=True)
class Naptr:
    """A rule of RFC 3403, as far as SIP looks at it."""

    flags: str
    service: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Records of one type, none where there are none; `exists` tells whether the name is there.

    `ttl` is in seconds, the least of the whole chain of aliases.
    """

    records: tuple[IpAddress | Srv | Naptr, ...] = ()
    ttl: int | None = None
    exists: bool = True


class Unanswered(Exception):  # noqa: N818 - it says what happened, as KeyboardInterrupt does
    """There is no answer, or none that names an address; the text says why, in plain words."""


Ask: TypeAlias = Callable[[str, RecordType], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class DnsQuestion:
    """A name, and whether it is followed as a SIP service or is just a host."""

    name: str
    sip: bool = True


@dataclass(frozen=True, slots=True)
class FoundAddress:
    """An address and the record it came from. `local` means this host's own hosts file."""

    address: IpAddress
    via: str
    local: bool = False


@dataclass(frozen=True, slots=True)
class Located:
    """The addresses of a name. `incomplete` says what could not be asked, so more may be meant."""

    addresses: tuple[FoundAddress, ...]
    ttl: int = 0
    remarks: tuple[str, ...] = ()
    incomplete: str | None = None
