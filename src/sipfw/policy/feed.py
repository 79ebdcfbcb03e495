"""Block lists of others in the policy: where one comes from and how far it is believed."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)

from sipfw.policy.quantities import parse_count, parse_duration, shown
from sipfw.policy.types import Duration, parse_identifier

MOST_FEEDS = 16
MOST_ENTRIES = 1_000_000
# The timer of install-service looks this often.
SHORTEST_REFRESH = 300

# `sipfw-feed-` and the family digit leave room in the 31 characters of an ipset's name, also for
# the temporary name of a swap.
_LONGEST_NAME = 16

# No user, no fragment, nothing that a request line or a log would have to quote (RFC 3986).
_URL = re.compile(
    r"https?://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::[0-9]{1,5})?(?:[/?][A-Za-z0-9._~:/?@!$&'()*+,;=%-]{0,1000})?"
)
_NEVER = "never"
_COVERAGE = re.compile(r"1/([0-9]{1,7})")
_SMALLEST_PART = 1_000_000


class FeedFormat(StrEnum):
    """How the entries stand in a list."""

    LIST = "list"
    CSV = "csv"
    JSON = "json"


def parse_feed_name(value: object) -> str:
    """Accept a name that fits into the name of a set."""
    name = parse_identifier(value, longest=_LONGEST_NAME)
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"{shown(name)} is too long for a set; write at most {_LONGEST_NAME}")
    return name


def parse_url(value: object) -> str:
    """Accept a plain http or https address."""
    if isinstance(value, str) and _URL.fullmatch(value) and _has_good_port(value):
        return value
    raise ValueError(
        f"{shown(value)} is not the address of a list; write https://host/path without user, "
        "spaces or #"
    )


def _has_good_port(url: str) -> bool:
    """Also refuses an IPv6 address that is none, and port 65536."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def parse_file(value: object) -> str:
    """Accept an absolute path."""
    if isinstance(value, str) and value.startswith("/") and value.isprintable():
        return value
    raise ValueError(f"{shown(value)} is not an absolute path; write one like /etc/sipfw/block.txt")


def parse_expiry(value: object) -> int | None:
    """Accept a duration or `never`, which is None."""
    return None if value == _NEVER else parse_duration(value)


def parse_entries(value: object) -> int:
    """Accept how many entries a list may have."""
    if parse_count(value) > MOST_ENTRIES:
        raise ValueError(f"{shown(value)} is too large; write at most {MOST_ENTRIES}")
    return parse_count(value)


def parse_coverage(value: object) -> int:
    """Accept a part of the address space such as `1/64`; gives the number below the line."""
    found = _COVERAGE.fullmatch(value) if isinstance(value, str) else None
    if found is None or not 1 <= int(found[1]) <= _SMALLEST_PART:
        raise ValueError(
            f"{shown(value)} is no part of the Internet; write it like 1/64, from 1/1 to "
            f"1/{_SMALLEST_PART}"
        )
    return int(found[1])


def _coverage_text(value: int) -> Any:
    return f"1/{value}"


def _text_schema(description: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description})


def _expiry_text(value: int | None) -> Any:
    return _NEVER if value is None else value


FeedName = Annotated[str, BeforeValidator(parse_feed_name)]
Url = Annotated[str, BeforeValidator(parse_url), _text_schema("http or https address")]
FilePath = Annotated[str, BeforeValidator(parse_file), _text_schema("absolute path")]
Entries = Annotated[
    int,
    BeforeValidator(parse_entries),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES}),
]
Coverage = Annotated[
    int,
    BeforeValidator(parse_coverage),
    PlainSerializer(_coverage_text),
    WithJsonSchema({"type": "string", "pattern": "^1/[0-9]{1,7}$", "examples": ["1/64"]}),
]
Expiry = Annotated[
    int | None,
    BeforeValidator(parse_expiry),
    PlainSerializer(_expiry_text),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["7d", _NEVER]}),
]


class _Part(BaseModel):
    """As every section: unknown fields are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MinPrefix(_Part):
    """The widest networks that are taken from a list."""

    ip: Annotated[int, Strict(), Field(ge=8, le=32)] = Field(8, description="IPv4, /8 to /32.")
    ip6: Annotated[int, Strict(), Field(ge=19, le=128)] = Field(
        19, description="IPv6, /19 to /128."
    )


class Feed(_Part):
    """A block list that somebody else keeps. It never touches a trusted or a learned source."""

    name: FeedName = Field(description="Lower-case name, unique, at most 16 characters.")
    url: Url | None = Field(None, description="Where it is fetched; this or `file`.")
    file: FilePath | None = Field(None, description="Where it is read on this host.")
    format: FeedFormat = Field(
        FeedFormat.LIST,
        description="`list`: one address or network a line, # and ; begin a comment. `csv`: one in "
        "`column` of each line. `json`: an array of texts.",
    )
    column: Annotated[int, Strict(), Field(ge=1, le=100)] = Field(
        1, description="With `csv`: the column of the address, counted from 1."
    )
    refresh: Duration = Field(21_600, description="How often it is fetched again, from 5m on.")
    expiry: Expiry = Field(
        604_800,
        description="Without a good answer for so long nothing is dropped by it any more; `never`.",
    )
    max_entries: Entries = Field(65_536, description="A list with more is refused as a whole.")
    max_coverage: Coverage = Field(
        64,
        description="A list that covers a larger part of all addresses in use, of IPv4 or IPv6, is "
        "refused as a whole.",
    )
    min_prefix: MinPrefix = MinPrefix()


__all__ = ["MOST_FEEDS", "SHORTEST_REFRESH", "Feed", "FeedFormat", "MinPrefix"]
