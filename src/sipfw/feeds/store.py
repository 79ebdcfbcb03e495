"""The last good copy of a list and the last try, as text: what stands in when a source fails.

A copy is read back by the parser that read the source, so that nothing comes in by the file that
could not have come from there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sipfw.feeds.errors import FeedError
from sipfw.feeds.fetch import NOTHING_SEEN, Seen
from sipfw.feeds.parse import LeftOut, Parsed, parse
from sipfw.policy.feed import FeedFormat

if TYPE_CHECKING:
    from sipfw.policy.feed import Feed
    from sipfw.policy.types import Network

FORMAT = 1

# Named one by one: a key of a later version would otherwise turn every copy that is there into one
# of another source, and its list would be empty until it is fetched again.
_IDENTITY: dict[str, Any] = {
    **dict.fromkeys(("name", "url", "file", "format", "column"), True),
    **dict.fromkeys(("max_entries", "max_coverage"), True),
    "min_prefix": {"ip": True, "ip6": True},
}


@dataclass(frozen=True, slots=True)
class Copy:
    """What a source gave at `time`, in seconds since 1970."""

    time: float
    networks: tuple[Network, ...]
    left_out: tuple[LeftOut, ...] = ()
    seen: Seen = NOTHING_SEEN


@dataclass(frozen=True, slots=True)
class Tries:
    """When the source was last asked, when it last stood by the copy, and what went wrong since."""

    tried: float
    good: float | None = None
    error: str | None = None


def identity(feed: Feed) -> str:
    """Name what decides a copy's content: one of another source or reading is no copy of this."""
    plain = feed.model_dump(mode="json", include=_IDENTITY)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def copy_text(feed: Feed, copy: Copy) -> str:
    """Return a copy as text."""
    lines = "\n".join(map(str, copy.networks))
    data = {
        "format": FORMAT,
        "identity": identity(feed),
        "time": copy.time,
        "seen": asdict(copy.seen),
        "left_out": [asdict(item) for item in copy.left_out],
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "networks": lines,
    }
    return json.dumps(data, indent=1) + "\n"


def read_copy(text: str, feed: Feed) -> Copy | None:
    """Return what `copy_text` wrote of the same source; None for anything else."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT or data["identity"] != identity(feed):
            return None
        lines = data["networks"].encode()
        if hashlib.sha256(lines).hexdigest() != data["sha256"]:
            return None
        parsed = _networks(lines, feed)
        left_out = tuple(
            LeftOut(str(item["reason"]), int(item["count"]), int(item["first"]))
            for item in data["left_out"]
        )
        seen = Seen(_text(data["seen"]["etag"]), _text(data["seen"]["modified"]))
        return Copy(float(data["time"]), parsed.networks, left_out, seen)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FeedError):
        return None


def tries_text(feed: Feed, tries: Tries) -> str:
    """Return the last try as text."""
    data = {"format": FORMAT, "identity": identity(feed), **asdict(tries)}
    return json.dumps(data, indent=1) + "\n"


def read_tries(text: str, feed: Feed) -> Tries | None:
    """Return what `tries_text` wrote of the same source; None for anything else."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT or data["identity"] != identity(feed):
            return None
        good = data["good"]
        return Tries(
            float(data["tried"]), None if good is None else float(good), _text(data["error"])
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _networks(lines: bytes, feed: Feed) -> Parsed:
    # Networks are split around a private one, so the copy may have a few lines more.
    reading = {"format": FeedFormat.LIST, "column": 1, "max_entries": 2 * feed.max_entries + 4096}
    return parse(lines, feed.model_copy(update=reading))


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.isascii() and value.isprintable()):
        return value
    raise ValueError("no plain text")
