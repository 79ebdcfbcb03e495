"""The numbered rulesets that were applied, one folder each, complete or absent.

A folder is written under another name, brought to disk and renamed. Its files never change after
that, others come beside them: `confirmed.json` is the journal that was put there to keep it,
`undone.json` says why it was taken back, `pinned.json` that it is never pruned. A folder that
cannot be read is `Damaged`, never an exception.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipfw.errors import BackendError
from sipfw.host.files import (
    cannot_write,
    read_private,
    sweep,
    sync_folder,
    write_atomically,
    write_through,
)
from sipfw.host.privilege import who
from sipfw.host.sessions import calling_client
from sipfw.plain_data import NotPlainDataError, from_plain
from sipfw.ruleset.codec import DecodeError, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.host.files import Layout
    from sipfw.ruleset.model import Ruleset

KEPT = 20

_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class Generation:
    """What is known of an applied ruleset without reading it.

    `before` is what was live before it, None for no firewall; `undone` says why it was taken back.
    `address` is where its maker was logged in from, None where nothing tells it; `pinned` ones are
    never pruned.
    """

    number: int
    time: str
    who: str
    backend: str
    ipset: bool
    source: str
    before: int | None
    digest: str
    confirmed: bool = False
    undone: str | None = None
    address: str | None = None
    pinned: bool = False


# What the other files of the folder tell. The address has a file of its own: versions before this
# one refuse a description with a field that they do not know.
_FOUND_OUT = frozenset({"confirmed", "undone", "address", "pinned"})
_DESCRIBED = {item.name for item in fields(Generation)} - _FOUND_OUT


@dataclass(frozen=True, slots=True)
class Damaged:
    """A folder of a generation that cannot be used."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a new generation is made of; `policy` and `listing` are for people."""

    ruleset: Ruleset
    backend: str
    ipset: bool
    source: str
    policy: str
    listing: str = ""


def write_generation(layout: Layout, content: Content, before: int | None) -> Generation:
    """Store a generation under the next number. Raises BackendError when the disk is full."""
    text = encode(content.ruleset)
    made = Generation(
        number=max([before or 0, *_numbers(layout)]) + 1,
        time=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        who=who(),
        backend=content.backend,
        ipset=content.ipset,
        source=content.source,
        before=before,
        digest=_digest(text),
        address=_address(),
    )
    files = {
        "ruleset.json": text,
        "policy.json": content.policy,
        "listing.txt": content.listing,
        "meta.json": json.dumps(_meta(made), indent=1) + "\n",
        "caller.json": json.dumps({"address": made.address}) + "\n",
    }
    folder = layout.generations / str(made.number)
    try:
        for path in (layout.state, layout.generations):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(layout.generations)
        temporary = Path(tempfile.mkdtemp(dir=layout.generations, prefix=f".{made.number}."))
        try:
            _fill(temporary, files)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(layout.generations)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return made


def list_generations(layout: Layout) -> list[Generation | Damaged]:
    """Return all generations, oldest first. Raises BackendError where root is needed to look."""
    return [read_generation(layout, number) for number in _numbers(layout)]


def read_generation(layout: Layout, number: int) -> Generation | Damaged:
    """Return what is known of a generation."""
    folder = layout.generations / str(number)
    try:
        found = _generation(json.loads(read_private(folder / "meta.json")), number)
        undone = _reason(folder / "undone.json")
    except FileNotFoundError as error:
        name = Path(error.filename or "").name
        missing = name if folder.exists() else "the generation"
        return Damaged(number, f"{missing} is missing")
    except (OSError, ValueError, RecursionError) as error:
        return Damaged(number, f"meta.json: {error}")
    told = {
        "confirmed": (folder / "confirmed.json").exists(),
        "undone": undone,
        "address": _stored_address(folder / "caller.json"),
        "pinned": (folder / "pinned.json").exists(),
    }
    return Generation(**{**asdict(found), **told})


def read_ruleset(layout: Layout, generation: Generation) -> Ruleset | Damaged:
    """Return a generation's ruleset, if it is what was written."""
    text = _ruleset_text(layout, generation)
    if isinstance(text, Damaged):
        return text
    try:
        return decode(text)
    except DecodeError as error:
        return Damaged(generation.number, f"ruleset.json: {_said(error)}")


def read_texts(layout: Layout, generation: Generation) -> tuple[str, str] | Damaged:
    """Return a generation's ruleset, if it is what was written, and its policy, both as text."""
    text = _ruleset_text(layout, generation)
    if isinstance(text, Damaged):
        return text
    try:
        return text, read_private(layout.generations / str(generation.number) / "policy.json")
    except (OSError, ValueError) as error:
        return Damaged(generation.number, f"policy.json: {_said(error)}")


def _ruleset_text(layout: Layout, generation: Generation) -> str | Damaged:
    path = layout.generations / str(generation.number) / "ruleset.json"
    try:
        text = read_private(path)
    except (OSError, ValueError) as error:
        return Damaged(generation.number, f"ruleset.json: {_said(error)}")
    if _digest(text) != generation.digest:
        return Damaged(generation.number, "ruleset.json has been changed since")
    return text


def mark_undone(layout: Layout, number: int, reason: str) -> None:
    """Note why a generation was taken back; for `history`, so a full disk does not matter."""
    folder = layout.generations / str(number)
    if folder.exists() and not (folder / "confirmed.json").exists():
        with suppress(BackendError):
            write_atomically(folder / "undone.json", json.dumps({"reason": reason}) + "\n")


def discard(layout: Layout, number: int) -> None:
    """Forget a generation."""
    folder = layout.generations / str(number)
    if not folder.exists():
        return
    # Renamed first, so that a kill half way leaves no half generation.
    hidden = layout.generations / f".{number}.gone"
    with suppress(OSError):
        folder.rename(hidden)
        sync_folder(layout.generations)
        shutil.rmtree(hidden, ignore_errors=True)


def pin(layout: Layout, number: int) -> None:
    """Keep a generation for good. Raises BackendError for one that cannot be used."""
    found = read_generation(layout, number)
    if isinstance(found, Damaged):
        raise BackendError(
            f"generation {number} cannot be kept: {found.reason}", hint="see sipfw history"
        )
    path = layout.generations / str(number) / "pinned.json"
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    write_atomically(path, json.dumps({"time": now, "who": who()}) + "\n")


def release(layout: Layout, number: int) -> bool:
    """Let a generation go with its age again; False where it was not pinned."""
    path = layout.generations / str(number) / "pinned.json"
    try:
        path.unlink()
        sync_folder(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise cannot_write(path, error) from error
    return True


def prune(layout: Layout, needed: Iterable[int | None]) -> None:
    """Keep the newest `KEPT`, as many that differ, the pinned, the needed, the last confirmed."""
    numbers = _numbers(layout)
    found = [read_generation(layout, number) for number in numbers]
    sound = [item for item in found if isinstance(item, Generation)]
    confirmed = [item.number for item in sound if item.confirmed]
    pinned = {item.number for item in sound if item.pinned}
    kept = {*numbers[-KEPT:], *_distinct(sound), *pinned, *confirmed[-1:], *needed}
    for number in numbers:
        if number not in kept:
            discard(layout, number)


def _distinct(sound: list[Generation]) -> list[int]:
    """Return the newest generation of each of the newest `KEPT` rulesets."""
    newest: dict[str, int] = {}
    for item in reversed(sound):
        newest.setdefault(item.digest, item.number)
    return list(newest.values())[:KEPT]


def _numbers(layout: Layout) -> list[int]:
    try:
        names = [path.name for path in layout.generations.iterdir()]
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise BackendError(
            f"{layout.generations}: only root may read it", hint="use sudo"
        ) from error
    except OSError as error:
        raise BackendError(f"{layout.generations}: cannot be read: {_said(error)}") from error
    # "01" and "+1" are numbers to int() but no folder of ours.
    return sorted(int(name) for name in names if re.fullmatch(r"[1-9][0-9]{0,8}", name))


def _fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        write_through(handle, text)
    sync_folder(folder)


def _meta(made: Generation) -> dict[str, Any]:
    return {name: value for name, value in asdict(made).items() if name in _DESCRIBED}


def _generation(data: Any, number: int) -> Generation:
    if not isinstance(data, dict) or set(data) != _DESCRIBED:
        raise ValueError("not the description of a generation of this version")
    try:
        found = from_plain(data, Generation, _FOUND_OUT)
    except NotPlainDataError as error:
        raise ValueError(f"{error.field} is damaged") from error
    if found.number != number or not _WORD.fullmatch(found.backend):
        raise ValueError("number or backend is damaged")
    if not all(text.isprintable() for text in (found.time, found.who, found.source)):
        raise ValueError("it holds what cannot be printed")
    return found


def _reason(path: Path) -> str | None:
    """Return why it was taken back; a damaged note is no damage to the generation."""
    try:
        data = json.loads(read_private(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return "taken back"
    reason = data.get("reason") if isinstance(data, dict) else None
    return reason if isinstance(reason, str) and reason.isprintable() else "taken back"


def _address() -> str | None:
    client = calling_client()
    return None if client is None else str(client)


def _stored_address(path: Path) -> str | None:
    """Return where the maker was logged in from; what is no address tells nothing."""
    try:
        return str(ip_address(json.loads(read_private(path))["address"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _said(error: Exception) -> str:
    reason = getattr(error, "strerror", None)
    return str(reason).lower() if reason else str(error)
