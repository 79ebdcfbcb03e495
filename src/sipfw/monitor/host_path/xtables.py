"""iptables' listings as ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.monitor.host_path.ways import ChainSteps, HookChains
from sipfw.ruleset.model import Base, Hook, Priority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.monitor.doctor.rules import XtablesListing
    from sipfw.monitor.host_path.fit import Members

# netfilter_ipv4.h. What this host sends passes OUTPUT and POSTROUTING.
_HOOKS = {
    "raw": {"PREROUTING": -300, "OUTPUT": -300},
    "mangle": {"PREROUTING": -150, "INPUT": -150, "OUTPUT": -150, "POSTROUTING": -150},
    "nat": {"PREROUTING": -100, "OUTPUT": -100},
    "filter": {"INPUT": 0, "OUTPUT": 0},
    "security": {"INPUT": 50, "OUTPUT": 50},
}


def ways(listing: XtablesListing, members: Members | None = None) -> Iterator[HookChains]:
    """Return the hooks of a table that packets to this host pass, and those that it sends."""
    hooks = _HOOKS.get(listing.table, {})
    built_in = [chain.name for chain in listing.chains if chain.name in hooks]
    chains = ChainSteps(
        {chain.name: chain.rules for chain in listing.chains},
        built_in,
        (chain.name for chain in listing.chains if not chain.ours),
    )
    for head in listing.chains:
        if head.name not in hooks:
            continue
        yield HookChains(
            f"{listing.program} {listing.table} {head.name}",
            frozenset({listing.family}),
            head.name,
            head.denies,
            chains,
            (listing.program, *(() if listing.table == "filter" else ("-t", listing.table))),
            xtables=True,
            hook=head.name.lower(),
            priority=hooks[head.name],
            kind="nat" if listing.table == "nat" else "filter",
            ours=_ours(listing.table, head.name),
            members=members,
        )


def _ours(table: str, chain: str) -> Base | None:
    try:
        return Base(Hook(chain.lower()), Priority(table))
    except ValueError:
        return None
