"""Whom a script or a saved list of rules of somebody else lets in, read line by line, never run.

iptables(8), iptables-save(8). A variable that holds addresses is read where it is set.
"""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASSIGNED = re.compile(
    r"""(?m)^[ \t]*(?:(?:export|readonly|local|declare(?:[ ]-\w+)?)[ \t]+)?
    (\w{1,64})\+?=(?:"([^"]{0,8000})"|'([^']{0,8000})'|\(([^()]{0,8000})\)|([^\s;&|]+))""",
    re.VERBOSE,
)
_FRIENDS = re.compile(r"(?i)trust|allow|white|peer|carrier|provider|gateway|trunk")
_LONGEST = 4000
_SOURCES = frozenset({"-s", "--source", "--src"})
_PORTS = frozenset({"--dport", "--dports", "--destination-port", "--destination-ports"})
_SIP = re.compile(r"\b5[01][68]\d\b|\b5[0-9]{3}:")
_NUMBER = re.compile(r"[0-9A-Fa-f:.]{2,39}(?:/[0-9.]{1,15})?\Z")


def accepted_sources(text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield line, name and sources. Rules that open a port other than SIP's are left out.

    The name is that of the variable, or the comment of the rule.
    """
    at, counted = 1, 0
    for found in _ASSIGNED.finditer(text):
        at += text.count("\n", counted, found.start())
        counted = found.start()
        if _FRIENDS.search(found[1]):
            value = next((item for item in found.groups()[1:] if item), "")
            bare = re.sub(r"#[^\n]*", "", value)
            words = tuple(word.strip("\"'") for word in re.split(r"[\s,]+", bare))
            if places := tuple(word for word in words if _NUMBER.match(word)):
                yield at, found[1], places
    for number, line in enumerate(text.split("\n"), 1):
        if "ACCEPT" in line[:_LONGEST] and (rule := _accepting(line)) is not None:
            yield number, *rule


def _accepting(line: str) -> tuple[str, tuple[str, ...]] | None:
    try:
        words = shlex.split(line[:_LONGEST], comments=True)
    except ValueError:
        return None
    given = dict(pairwise(words))
    source = next((word for word in words if word in _SOURCES), None)
    if source is None or "ACCEPT" not in (given.get("-j"), given.get("--jump")):
        return None
    ports = next((given[word] for word in words if word in _PORTS and word in given), None)
    comment = given.get("--comment", "accepted-source")
    # The rules of sipfw itself have a comment that begins so.
    if "!" in words or comment.startswith("sipfw") or (ports and not _SIP.search(ports)):
        return None
    places = given.get(source, "").split(",")
    return comment, tuple(place for place in places if _NUMBER.match(place))
