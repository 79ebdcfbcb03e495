"""New elements for static sets of ours that rules use already; no rule is touched.

ipset: the new version is built aside and swapped in. nftables: one transaction that takes out what
is too much and adds what is missing, so that an element that stays is never out of its set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compare.sets import compare_elements
from sipfw.errors import BackendError
from sipfw.kernel.nft.tool import NftTool, live_from_json
from sipfw.kernel.xtables.ipset import Ipsets
from sipfw.lower.nftables_plan import TABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sipfw.host.runner import Runner
    from sipfw.lower.xtables import XSet

_GONE_HINT = "see sipfw verify, then sipfw restore or apply again"


def fill_ipsets(runner: Runner, sets: Sequence[XSet]) -> None:
    """Give each set its elements. Raises BackendError, then no set was replaced."""
    ipsets = Ipsets(runner)
    _require_all([item.name for item in sets], {item.name for item in ipsets.list_sets()})
    ipsets.load(sets)


def fill_nft_sets(runner: Runner, wanted: Mapping[str, Collection[str]]) -> None:
    """Give each set of our table its elements. Raises BackendError, then nothing has changed."""
    tool = NftTool(runner)
    live = live_from_json(tool.list_table() or [], frozenset(wanted)).sets
    _require_all(wanted, live)
    lines: list[str] = []
    for name, elements in wanted.items():
        lines += _changes(name, live[name].elements or frozenset(), elements)
    if lines:
        tool.apply("\n".join(lines) + "\n")


def _changes(name: str, now: Collection[str], wanted: Collection[str]) -> Iterator[str]:
    found = compare_elements(wanted, now)
    for verb, elements in (("delete", found.extra), ("add", found.missing)):
        if elements:
            yield f"{verb} element inet {TABLE} {name} {{ {', '.join(elements)} }}"


def _require_all(names: Collection[str], live: Collection[str]) -> None:
    missing = [name for name in names if name not in live]
    if missing:
        raise BackendError(f"set {missing[0]} is not in the kernel", hint=_GONE_HINT)
