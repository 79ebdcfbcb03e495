"""iptables' listings as ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.monitor.doctor.stricter.ways import HookChains, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.monitor.doctor.rules import XtablesListing

_HOOKS = {
    "raw": ("PREROUTING",),
    "mangle": ("PREROUTING", "INPUT"),
    "filter": ("INPUT",),
    "security": ("INPUT",),
}


def ways(listing: XtablesListing) -> Iterator[HookChains]:
    """Return the hooks of a table that packets to this host pass."""
    for head in listing.chains:
        if head.name not in _HOOKS.get(listing.table, ()):
            continue
        yield HookChains(
            f"{listing.program} {listing.table} {head.name}",
            frozenset({listing.family}),
            head.name,
            head.denies,
            {
                chain.name: tuple(steps(chain.rules, numbered=chain is head))
                for chain in listing.chains
            },
            (listing.program, *(() if listing.table == "filter" else ("-t", listing.table))),
            xtables=True,
        )
