"""Rules of somebody else in our own table, from nft's JSON, as typed rules.

Nobody has any business there, so it matters what such a rule does, and not of whom: its conditions
are not read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sipfw.compare.foreign import Conditions, ForeignRule, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERDICTS = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.REJECT,
    "return": Verdict.RETURN,
    "queue": Verdict.QUEUE,
    "jump": Verdict.JUMP,
    "goto": Verdict.GOTO,
}
_UNREAD = Conditions(unsure=("not read",))


def foreign_rule(line: str) -> ForeignRule:
    """Read the JSON of a rule's expressions; all of its verdicts, where it has a map of them."""
    found = list(_verdicts(json.loads(line)))
    if len(found) == 1:
        return ForeignRule(line, _UNREAD, *found[0])
    if not found:
        return ForeignRule(line, _UNREAD)
    entries = tuple(ForeignRule(line, _UNREAD, *item) for item in found)
    return ForeignRule(line, _UNREAD, Verdict.MAP, entries=entries)


def _verdicts(value: Any) -> Iterator[tuple[Verdict, str]]:
    """Yield each verdict at any depth, with the chain of a jump."""
    if isinstance(value, list):
        for item in value:
            yield from _verdicts(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in _VERDICTS:
                yield _VERDICTS[key], inner["target"] if _leads(inner) else ""
            else:
                yield from _verdicts(inner)


def _leads(value: Any) -> bool:
    return isinstance(value, dict) and "target" in value
