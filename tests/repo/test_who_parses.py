"""Words of iptables and nft are read at the kernel; other rooms ask typed rules.

A string that holds such words, outside of the rooms that read or write them, is most often a rule
of somebody else taken apart once more, in a way of its own.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SRC = Path(__file__).parents[2] / "src" / "sipfw"
# They read the kernel's listings, edit files of rules, or write rules.
_AT_HOME = ("kernel/", "saved/", "render/", "lower/")

# Each file with what its words are.
_OTHER_WORDS = {
    "compare/drift.py": "a rule of ours, of which an old record does not hold the words",
    "host/network.py": "options and listings of ip and conntrack",
    "monitor/doctor/checks_kernel.py": "whether rules of ours log",
    "monitor/doctor/in_use.py": "options of ip",
    "monitor/doctor/stricter/openings.py": "commands for the operator, which open what is shut",
    "monitor/peer_counts.py": "the part of a rule of ours that names a peer",
}

_WORDS = re.compile(
    r"(?:^|\s)(?:-[jgApis]|--(?:dports?|sports?|ctstate|ctorigdstport|match-set|helper"
    r"|to-ports|to-destination|on-port))(?:\s|$)"
    r"|\b(?:[ds]addr|dport|nfproto|vmap|iifname)\b|\b(?:jump|goto)\b.*\\S|accept.{0,3}:null"
)
# Keys of the JSON of nft.
_KEYS = frozenset({"expr", "jump", "goto", "vmap", "xt"})


def _texts(tree: ast.AST) -> Iterator[str]:
    """Yield the strings that are no docstring and hold such words, and the keys looked up."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Constant(value=str(text)) if _WORDS.search(text):
                yield text
            case ast.Subscript(slice=ast.Constant(value=str(key))) if key in _KEYS:
                yield key
            case ast.Call(
                func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(key)), *_]
            ) if key in _KEYS:
                yield key
        yield from _texts(node)


def _found() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(_SRC.rglob("*.py")):
        name = str(path.relative_to(_SRC))
        if not name.startswith(_AT_HOME):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if texts := list(_texts(tree)):
                found[name] = texts
    return found


def test_no_other_room_takes_rules_apart() -> None:
    assert {name: texts for name, texts in _found().items() if name not in _OTHER_WORDS} == {}


def test_the_list_of_other_words_is_short_because_it_is_kept() -> None:
    assert set(_OTHER_WORDS) == set(_found())
