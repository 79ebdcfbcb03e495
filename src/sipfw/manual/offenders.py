"""Who was banned by hand before, and how often: with `bans.growth` the next ban lasts longer.

One file of root's. A source is forgotten when its last ban has ended 90 days ago, and when an
operator frees it: that ban was a mistake, or is forgiven. Times are seconds since 1970.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from sipfw.host.files import cannot_write, read_private, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sipfw.deploy.manual_list import ManualEntry
    from sipfw.host.files import Layout
    from sipfw.ruleset.addresses import IpAddress

FORMAT = 1
FORGOTTEN_AFTER = 90 * 86_400
# As many as a list of bans may have.
MOST_OFFENDERS = 100_000


@dataclass(frozen=True, slots=True)
class Offender:
    """A source that was banned `count` times, the last time until `until`."""

    address: IpAddress
    count: int
    until: int


def read_offenders(layout: Layout, *, now: float | None = None) -> dict[IpAddress, Offender]:
    """Return who is remembered. A file that cannot be read remembers nobody."""
    moment = time.time() if now is None else now
    try:
        data = json.loads(read_private(layout.offenders))
    except (OSError, ValueError, RecursionError):
        return {}
    items = data.get("offenders") if isinstance(data, dict) and data.get("format") == FORMAT else []
    read = [_offender(item) for item in items] if isinstance(items, list) else []
    return {
        item.address: item
        for item in read
        if item is not None and item.until + FORGOTTEN_AFTER > moment
    }


def remember_bans(layout: Layout, banned: Iterable[ManualEntry]) -> None:
    """Count one ban more for each. Raises BackendError. Needs the state lock."""
    found = read_offenders(layout)
    for item in banned:
        before = found.get(item.address)
        count = 1 if before is None else before.count + 1
        found[item.address] = Offender(item.address, count, item.until)
    _write(layout, found)


def forget_offenders(layout: Layout, freed: Iterable[IpAddress]) -> None:
    """Forget who was freed by hand. Raises BackendError. Needs the state lock."""
    found, gone = read_offenders(layout), set(freed)
    if gone & found.keys():
        _write(layout, {a: item for a, item in found.items() if a not in gone})


def grown(duration: int, growth: int, count: int, longest: int) -> int:
    """Return how long the ban after `count` others lasts, at most `longest`; in seconds."""
    length = duration
    for _ in range(count):
        if length >= longest or growth == 1:
            break
        length *= growth
    return min(length, longest)


def _write(layout: Layout, found: Mapping[IpAddress, Offender]) -> None:
    kept = sorted(found.values(), key=lambda item: -item.until)[:MOST_OFFENDERS]
    if not kept:
        try:
            layout.offenders.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(layout.offenders, error) from error
        return
    items = [{"address": str(i.address), "count": i.count, "until": i.until} for i in kept]
    text = json.dumps({"format": FORMAT, "offenders": items}, indent=1)
    write_atomically(layout.offenders, text + "\n")


def _offender(item: Any) -> Offender | None:
    """Return an entry; None for one that this module did not write."""
    kinds = {"address": str, "count": int, "until": int}
    if not isinstance(item, dict) or set(item) != set(kinds):
        return None
    if any(type(item[name]) is not kind for name, kind in kinds.items()) or item["count"] < 1:
        return None
    try:
        return Offender(ip_address(item["address"]), item["count"], item["until"])
    except ValueError:
        return None
