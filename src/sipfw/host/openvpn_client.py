"""Is an openvpn the end that dials? Its socket does not tell: a client has a port like a server."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.host.bounded_files import OddFileError, read_at_most

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = "openvpn"

# openvpn(8): a client pulls its settings and dials again by itself, from any port with `nobind`.
_CLIENT = frozenset({"client", "tls-client", "nobind"})
_LONGEST = 1 << 20


def dials(process: Path) -> bool:
    """Tell it of a folder of /proc; False where its command line and its file do not say so."""
    words = [word for word in _text(process / "cmdline").split("\0") if word]
    if _CLIENT & {word.removeprefix("--") for word in words if word.startswith("--")}:
        return True
    return any(
        _CLIENT & {line.split()[0] for line in _text(path).splitlines() if line.strip()}
        for path in _configurations(process, words)
    )


def _configurations(process: Path, words: Sequence[str]) -> Iterator[Path]:
    """Yield where its files may stand, as it sees them and as we do."""
    folder = _after("--cd", words) or "/"
    # `openvpn FILE` is short for `openvpn --config FILE`.
    name = _after("--config", words) or (words[1] if len(words) == 2 else "")
    if name and not name.startswith("-"):
        path = Path(folder, name)
        yield process / "root" / path.relative_to("/") if path.is_absolute() else process / path
        yield path


def _after(option: str, words: Sequence[str]) -> str:
    return next((two for one, two in pairwise(words) if one == option), "")


def _text(path: Path) -> str:
    with suppress(OSError, ValueError, OddFileError):
        return read_at_most(path, _LONGEST)
    return ""
