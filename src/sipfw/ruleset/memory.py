"""How much kernel memory a ruleset takes: at once, and when packets have filled its sets.

Rounded up from the kernel's own sizes on 64 bits; what limits of rates and the rules themselves
take is small beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipfw.ruleset.model import AddressSet, Ruleset

_FAMILIES = 2
# nft_rhash_init makes a table for the whole size, one pointer each; ipset's has a quarter of that.
_PLACE = 8
# struct nft_rhash_elem with key, timeout and expiry lies in a slab of 128 bytes, and with a limit
# or a counter in one of 192 (nft_set_hash.c, kmalloc); an element of an ipset takes half of that.
_ELEMENT = 128
_COUNTED = 192


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: `at_once` when it goes live, `listed` once lists and bans are full, `full` at most."""

    at_once: int
    listed: int
    full: int


def memory_of(ruleset: Ruleset) -> Memory:
    """Add up the sets of both families."""
    dynamic = [item for item in ruleset.sets if item.dynamic]
    static = sum(
        (len(item.networks) + len(item.endpoints)) * (_PLACE + _ELEMENT)
        for item in ruleset.sets
        if not item.dynamic
    )
    at_once = static + sum(_FAMILIES * _PLACE * item.size for item in dynamic)
    bans = sum(_content(item) for item in dynamic if item.origin.field.startswith("bans"))
    return Memory(at_once, at_once + bans, at_once + sum(map(_content, dynamic)))


def _content(item: AddressSet) -> int:
    return _FAMILIES * item.size * (_COUNTED if item.counted else _ELEMENT)


def size_text(size: int) -> str:
    """Write bytes for people: `34 MB`, `1.2 GB`."""
    if size >= 10**9:
        return f"{size / 10**9:.1f} GB"
    return f"{max(1, -(-size // 10**6))} MB"


def memory_text(memory: Memory) -> str:
    """Write it in one clause."""
    first, last = size_text(memory.at_once), size_text(memory.full)
    return f"{first} of kernel memory, {last} with every set full"
