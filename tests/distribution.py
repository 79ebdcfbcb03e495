"""Which tests one worker runs in one go, and what is begun first.

A group stays together (`--dist loadgroup`): neighbours of one file compile the same policies, and
what a file builds once for a backend is built by one worker. Groups are handed out in order, so
the long ones come first: none may begin when all the others are done. Behind them come those that
wait for a kernel's clocks, spread evenly between those that keep a processor busy.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

_GROUP = 16
# Seconds of the longest case or of all for one backend, with what is built for them: more than a
# whole group of others takes.
_LONG = {
    "test_faults": 180,
    "test_rounds": 140,
    "test_rules_of_others": 90,
    "test_why_agrees": 80,
    "test_swaps": 70,
    "test_neighbours": 60,
    "test_guest": 60,
    "test_tampering": 60,
    "test_live_nftables": 50,
    "test_logging_live": 40,
    "test_feeds": 40,
    "test_container": 40,
    "test_iptc_matrix": 20,
}
# Each case of these takes long by itself.
_ALONE = {"test_faults", "test_rounds", "test_why_agrees", "test_logging_live"}
# Phones that pace themselves, limits that have to refill, entries that have to time out.
_WAITING = {"evidence", "flood", "media", "neighbours", "story"}
_WAITING |= {"test_office", "test_registrar", "test_replies", "test_spoofer", "test_tools"}


def arrange(items: list[pytest.Item]) -> None:
    """Mark the groups, and put them in their order."""
    seen: Counter[str] = Counter()
    group: dict[str, str] = {}
    waits: dict[str, bool] = {}
    for item in items:
        part = f"{item.path.parent.name}/{item.path.stem}-{'-'.join(_built_for(item))}"
        name = f"{part}{seen[part] // _size(item)}"
        seen[part] += 1
        item.add_marker(pytest.mark.xdist_group(name))
        group[item.nodeid] = name
        waits[name] = bool(_WAITING & {item.path.parent.name, item.path.stem})
    place: dict[str, float] = {}
    for kind in (True, False):
        names = [name for name, waiting in waits.items() if waiting is kind]
        place |= {name: number / len(names) for number, name in enumerate(names)}

    def key(item: pytest.Item) -> tuple[int, float, str]:
        name = group[item.nodeid]
        return (-_LONG.get(item.path.stem, 0), place[name], name)

    items.sort(key=key)


def _size(item: pytest.Item) -> int:
    if item.path.stem in _ALONE:
        return 1
    # Building costs more than the cases do.
    return 1000 if item.path.stem in _LONG else _GROUP


def _built_for(item: pytest.Item) -> Iterable[str]:
    """Return what the fixtures of the whole file are built for: a backend, as a rule."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return
    for name, definitions in item._fixtureinfo.name2fixturedefs.items():
        if definitions[-1].scope == "module" and name in item.callspec.indices:
            yield str(item.callspec.indices[name])
