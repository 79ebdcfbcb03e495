"""What each trusted network sent, where the live rules tell them apart.

A short list of peers stands in the rules themselves, one rule a network, and each rule counts. A
set counts nothing by member, so of a peer in a long list nothing is known.
"""

from __future__ import annotations

import json
import re
from ipaddress import collapse_addresses, ip_network
from typing import TYPE_CHECKING, Any

from sipfw.monitor.report import Count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sipfw.compare.live import Live
    from sipfw.ruleset.addresses import IpNetwork


_SOURCE = re.compile(r"(?<!! )-s (\S+) ")


def source_counts(live: Live, chain: str) -> dict[IpNetwork, Count]:
    """Return what the rules of a chain counted that ask for one source network each."""
    found: dict[IpNetwork, Count] = {}
    for item in live.chains:
        if item.name != chain:
            continue
        for rule in item.rules:
            network = _source(rule.line)
            if network is not None:
                old = found.get(network, Count(0, 0))
                found[network] = Count(old.packets + rule.packets, old.bytes + rule.bytes)
    return found


def count_of(networks: Iterable[IpNetwork], counts: Mapping[IpNetwork, Count]) -> Count | None:
    """Return what came from these networks, None where a rule counts others along with them."""
    wanted = _collapsed(networks)
    own = [item for item in counts if any(_inside(item, network) for network in wanted)]
    if not wanted or _collapsed(own) != wanted:
        return None
    return Count(sum(counts[item].packets for item in own), sum(counts[item].bytes for item in own))


def _collapsed(networks: Iterable[IpNetwork]) -> list[IpNetwork]:
    items = list(networks)
    four = collapse_addresses(item for item in items if item.version == 4)
    six = collapse_addresses(item for item in items if item.version == 6)
    return [*four, *six]


def _inside(one: IpNetwork, other: IpNetwork) -> bool:
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type] # same version


def _source(line: str) -> IpNetwork | None:
    """Read the source of a rule as iptables-save or libnftables-json writes it."""
    if line.startswith("["):
        text = _nft_source(line)
    else:
        found = _SOURCE.search(line)
        text = None if found is None else found[1]
    try:
        return None if text is None else ip_network(text)
    except ValueError:
        return None


def _nft_source(line: str) -> str | None:
    try:
        statements: Any = json.loads(line)
        for statement in statements:
            match = statement.get("match", {})
            left, right = match.get("left"), match.get("right")
            if match.get("op") != "==" or left.get("payload", {}).get("field") != "saddr":
                continue
            if isinstance(right, str):
                return right
            return f"{right['prefix']['addr']}/{right['prefix']['len']}"
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return None
