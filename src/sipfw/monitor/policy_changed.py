"""Whether the policy file, or a shipped profile, says something else than what is in force.

What it was written in is no change: the values count. A file that is older than the generation is
not read.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from sipfw.deploy.generations import Damaged, read_generation, read_texts
from sipfw.deploy.made_from import policy_file
from sipfw.errors import PolicyError
from sipfw.resources import shipped_folder
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.deploy.generations import Generation
    from sipfw.host.files import Layout

# As `load` names what it has merged; shipped names are of these characters.
_SWITCH = re.compile(r"\Aswitch ([a-z0-9-]+)")
_PROFILE = re.compile(r"(?:\A|, )profile ([a-z0-9-]+)")
_OPTIONS = re.compile(r"(?:\A|, )command line\Z")
_NAMED = 3


def policy_changed(layout: Layout, number: int) -> str | None:
    """Say what has changed since generation `number` was made; None where nothing has."""
    made = read_generation(layout, number)
    if isinstance(made, Damaged):
        return None
    file = policy_file(made.source)
    if file is not None and Path(file).is_absolute() and not Path(file).exists():
        return f"{file}, which was applied, is gone; sipfw history has what it said"
    if not any(_is_newer(path, made) for path in _read(made, file)):
        return None
    what = file or "a shipped profile"
    try:
        fields = _differing(layout, made, file)
    except PolicyError as error:
        first = str(error).partition("\n")[0]
        return f"{what} has changed since the apply and is no policy now: {first}"
    if not fields:
        return None
    named = ", ".join(fields[:_NAMED]) + (", ..." if len(fields) > _NAMED else "")
    values = pluralize(len(fields), "value differs", "values differ")
    # What --set changed then stands in no file.
    options = ", unless options of that apply made it" if _OPTIONS.search(made.source) else ""
    return (
        f"{what} has changed since the apply, {values} ({named}){options}: sipfw diff, then "
        "sipfw apply"
    )


def _read(made: Generation, file: str | None) -> Iterator[Path]:
    """Yield the files that the generation was made from."""
    folder = shipped_folder("profiles")
    for found, place in ((_SWITCH, folder / "switches"), (_PROFILE, folder)):
        if name := found.search(made.source):
            yield place / f"{name[1]}.yaml"
    if file is not None:
        yield Path(file)


def _is_newer(path: Path, made: Generation) -> bool:
    """Tell whether a file was put there, or written, since; reading a pipe would have no end."""
    try:
        found = path.stat()
        moment = datetime.fromisoformat(made.time).timestamp()
    except (OSError, ValueError):
        return False
    # What `cp -p` or `mv` puts in the place of a file has an old time of its contents.
    written = max(found.st_mtime, found.st_ctime)
    return path.is_absolute() and S_ISREG(found.st_mode) and written > moment


def _differing(layout: Layout, made: Generation, file: str | None) -> list[str]:
    # Only where a file is newer is there a need for pydantic.
    from sipfw.policy.load import Request, load  # noqa: PLC0415 - see above

    texts = read_texts(layout, made)
    if isinstance(texts, Damaged):
        return []
    try:
        before = json.loads(texts[1])
    except (ValueError, RecursionError):
        return []
    profile, switch = (found and found[1] for found in _named(made))
    path = None if file is None else Path(file)
    # Profile and switch stand in the file, or stood on the command line, or each in one of them.
    ways = {(None, None), (profile, None), (None, switch), (profile, switch)}
    found = []
    for chosen, meant in ways if path is not None else {(profile, switch)}:
        loaded = load(Request(path, chosen, meant))
        now = loaded.policy.model_dump(mode="json", by_alias=True)
        found.append(sorted(_different(before, now, "")))
    return min(found, key=len)


def _named(made: Generation) -> tuple[re.Match[str] | None, re.Match[str] | None]:
    return _PROFILE.search(made.source), _SWITCH.search(made.source)


def _different(before: object, now: object, name: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            inner = f"{name}.{key}" if name else str(key)
            yield from _different(before.get(key), now.get(key), inner)
    elif before != now:
        yield name
