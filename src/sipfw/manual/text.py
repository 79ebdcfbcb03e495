"""Bans as text and as JSON, for a file or another host. What is read was written by others.

Moments are absolute, so that a list that was on its way for an hour bans an hour less.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sipfw.deploy.manual_list import FORMAT, checked_reason
from sipfw.manual.addresses import parse_source
from sipfw.manual.bans import BanRequest
from sipfw.policy.quantities import MAX_DURATION, parse_duration, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.manual.bans import Ban

MOST_BANS = 100_000
# Longer than any line of ours; a list of that many lines is 25 MB.
LONGEST_FILE = 256 * MOST_BANS

_HEAD = "# bans of sipfw: address, end (UTC), reason"


@dataclass(frozen=True, slots=True)
class Imported:
    """What a list asks for. `expired` counts those whose end has come; `faults` are for people."""

    wishes: tuple[BanRequest, ...]
    expired: int
    faults: tuple[str, ...]


def utc_text(moment: float) -> str:
    """Write a moment in UTC, for a file or a program: its reader may be on another host."""
    return dt.datetime.fromtimestamp(int(moment), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_text(bans: Sequence[Ban], now: float) -> str:
    """Return one line per ban."""
    lines = [f"{ban.address} {_end(ban, now) or '-'} {ban.reason}".rstrip() for ban in bans]
    return "\n".join([_HEAD, *lines]) + "\n"


def as_json(bans: Sequence[Ban], now: float) -> dict[str, Any]:
    """Return the same for machines."""
    items = [
        {
            "address": str(ban.address),
            "source": ban.source,
            "transports": [proto.value for proto in ban.over],
            "layer": ban.layer,
            "cause": ban.cause,
            "left": ban.left,
            "until": _end(ban, now),
            "reason": ban.reason,
            "by": ban.who,
        }
        for ban in bans
    ]
    return {"format": FORMAT, "bans": items}


def read_list(text: str, reason: str, now: float) -> Imported:
    """Read either form; `reason` stands where an entry has none."""
    text = text.removeprefix("\ufeff")
    is_json = text.lstrip(" \t\r\n").startswith("{")
    try:
        entries = list(_of_json(text) if is_json else _of_text(text))
    except (ValueError, RecursionError) as error:
        said = "not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
        return Imported((), 0, (said,))
    wishes: list[BanRequest] = []
    faults: list[str] = []
    expired = 0
    for place, (address, end, why) in entries:
        try:
            wish = BanRequest(
                parse_source(address), checked_reason(why or reason), _moment(end, now)
            )
        except ValueError as error:
            faults.append(f"{place}: {error}")
            continue
        if wish.until is not None and wish.until <= now:
            expired += 1
        else:
            wishes.append(wish)
    return Imported(tuple(wishes), expired, tuple(faults))


_Entry = tuple[str, tuple[str, str, str]]


def _of_text(text: str) -> Iterator[_Entry]:
    # Only these ends: splitlines() would also cut at characters that may be part of an attack.
    lines = text.split("\n", 2 * MOST_BANS)
    if len(lines) > 2 * MOST_BANS:
        raise ValueError(f"more than {2 * MOST_BANS:,} lines")
    found = 0
    for number, line in enumerate(lines, 1):
        words = line.strip(" \t\r").split(maxsplit=2)
        if not words or words[0][0] in "#;":
            continue
        if len(words) > 1 and words[1][0] in "#;":
            words = words[:1]
        found += 1
        if found > MOST_BANS:
            raise ValueError(f"more than {MOST_BANS:,} bans")
        address, end, why = (*words, "", "")[:3]
        yield f"line {number}", (address, end, why)


def _of_json(text: str) -> Iterator[_Entry]:
    data = json.loads(text)
    items = data.get("bans") if data.get("format") == FORMAT else None
    if not isinstance(items, list):
        raise ValueError(f"no list of bans of format {FORMAT}")
    if len(items) > MOST_BANS:
        raise ValueError(f"more than {MOST_BANS:,} bans")
    for number, item in enumerate(items, 1):
        found = item if isinstance(item, dict) else {}
        address, end, why = found.get("address"), found.get("until"), found.get("reason")
        if not isinstance(address, str) or not all(isinstance(i, str | None) for i in (end, why)):
            raise ValueError(f"ban {number} has no address, or an end or reason that is not a text")
        yield f"ban {number}", (address, end or "", why or "")


def _moment(text: str, now: float) -> int | None:
    """Read a moment or a length of time; None for the usual one."""
    if text in {"", "-"}:
        return None
    try:
        moment = dt.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        moment = now + _length(text)
    if moment - now > MAX_DURATION:
        raise ValueError(f"{shown(text)} is too far away; write at most 49d")
    return int(moment)


def _length(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(
            f"{shown(text)} is not an end; write - or 2h or 2026-11-24T12:00:00Z before a reason"
        ) from error


def _end(ban: Ban, now: float) -> str | None:
    return None if ban.left is None else utc_text(now + ban.left)
