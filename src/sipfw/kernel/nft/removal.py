"""Takes what is ours out of a table in which others have something, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sipfw.kernel.nft.tool import live_from_json
from sipfw.lower.naming import MARK
from sipfw.lower.nftables_plan import TABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sipfw.kernel.nft.tool import NftObject
    from sipfw.render.nft import Existing

# What a plan of ours makes.
_OUR_KINDS = frozenset({"table", "chain", "rule", "set"})


def others_of(objects: Sequence[NftObject], leave: Collection[str]) -> list[str]:
    """Name what is not ours beside `leave`: rules without our mark, maps and such."""
    found = []
    for kind, value in _kinds(objects):
        if kind == "rule" and value["chain"] not in leave and not _is_ours(value):
            found.append(f"a rule in {value['chain']}")
        elif kind not in _OUR_KINDS:
            found.append(f"{kind} {value.get('name', '')}".rstrip())
    return found


def removal_text(objects: Sequence[NftObject], leave: Collection[str]) -> str:
    """Return the transaction that leaves only what is not ours, and what that needs of ours."""
    listing = live_from_json(objects)
    ours = [name for name in listing.chains if name not in leave]
    rules = [value for kind, value in _kinds(objects) if kind == "rule"]
    staying = [rule for rule in rules if rule["chain"] in leave or not _is_ours(rule)]
    maps = [value for kind, value in _kinds(objects) if kind == "map"]
    needed = json.dumps([staying, maps])
    mixed = {rule["chain"] for rule in staying}
    lines = [f"flush chain inet {TABLE} {name}" for name in ours if name not in mixed]
    lines += [
        f"delete rule inet {TABLE} {rule['chain']} handle {rule['handle']}"
        for rule in rules
        if rule["chain"] in mixed and rule not in staying
    ]
    lines += [
        f"delete chain inet {TABLE} {name}"
        for name in ours
        if name not in mixed and f'"target": {json.dumps(name)}' not in needed
    ]
    lines += [
        f"delete set inet {TABLE} {name}"
        for name in listing.sets
        if name not in leave and json.dumps(f"@{name}") not in needed
    ]
    return "".join(f"{line}\n" for line in lines)


def bound_chains(objects: Sequence[NftObject], leave: Collection[str], going: Existing) -> set[str]:
    """Return the chains in `leave` that use a set or chain of ours which is to be deleted.

    The kernel deletes nothing that a rule uses: EBUSY. A way back must not end there.
    """
    words = [json.dumps(f"@{name}") for name in going.replaced_sets]
    words += [f'"target": {json.dumps(name)}' for name in going.obsolete_chains]
    return {
        value["chain"]
        for kind, value in _kinds(objects)
        if kind == "rule" and value["chain"] in leave
        if any(word in json.dumps(value) for word in words)
    }


def _kinds(objects: Sequence[NftObject]) -> Iterator[tuple[str, NftObject]]:
    for item in objects:
        yield from item.items()


def _is_ours(rule: NftObject) -> bool:
    return str(rule.get("comment", "")).startswith(MARK)
