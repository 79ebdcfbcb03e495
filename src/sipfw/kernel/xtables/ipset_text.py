"""ipset's text forms: the header of a set, elements in `ipset save`, building a `restore` input.

Pure text; runs nothing.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_WORD = re.compile(r'"[^"]*"|\S+')
_FLAGS = frozenset({"counters", "comment", "skbinfo", "forceadd"})
_DEFAULTS = {"maxelem": "65536"}
# The kernel grows hashsize, invents initval and chooses bucketsize, and prints forceadd in some
# versions only; none of them changes what the set means.
_MEANINGLESS = frozenset({"hashsize", "initval", "bucketsize", "forceadd"})
# Element option -> (number of words after it, header word that allows it).
_ELEMENT_OPTIONS = {
    "timeout": (1, "timeout"),
    "packets": (1, "counters"),
    "bytes": (1, "counters"),
    "comment": (1, "comment"),
    "skbmark": (1, "skbinfo"),
    "skbprio": (1, "skbinfo"),
    "skbqueue": (1, "skbinfo"),
    "nomatch": (0, ""),
}


def header_options(words: Iterable[str], set_type: str) -> dict[str, str]:
    """Return what a header means: option -> value, defaults filled in, noise left out."""
    options = dict(_DEFAULTS)
    if set_type.startswith("hash:"):
        options["family"] = "inet"
    else:
        options.clear()
    remaining = iter(words)
    for word in remaining:
        options[word] = "" if word in _FLAGS else next(remaining, "")
    return {name: value for name, value in options.items() if name not in _MEANINGLESS}


def temporary_name(name: str) -> str:
    """Return the name under which a replacement of `name` is built; at most 31 characters."""
    return f"sipfw-tmp-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def elements_of(saved: str) -> Iterator[str]:
    """Yield what follows `add NAME ` in the text of `ipset save NAME`."""
    for line in saved.splitlines():
        if line.startswith("add "):
            yield line.split(" ", 2)[2]


def carried_element(element: str, header: dict[str, str]) -> str:
    """Return a saved element without the options that the new header does not allow."""
    words = iter(_WORD.findall(element))
    kept = [next(words)]
    for word in words:
        count, needs = _ELEMENT_OPTIONS.get(word, (0, ""))
        group = [word, *(next(words) for _ in range(count))]
        if not needs or needs in header:
            kept += group
    return " ".join(kept)


def renamed_save(saved: str, new_name: str) -> list[str]:
    """Return the lines of `ipset save NAME` for a set of another name."""
    lines = []
    for line in saved.splitlines():
        verb, _, rest = line.partition(" ")
        lines.append(f"{verb} {new_name} {rest.partition(' ')[2]}")
    return lines
