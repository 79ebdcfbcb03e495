"""How much of the Internet a block list covers: one that names everybody is no block list."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from sipfw.feeds.errors import FeedError
from sipfw.feeds.ranges import BITS, Span, distinct, span_of, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.policy.feed import Feed
    from sipfw.policy.types import Network

# RFC 6890 and its registry, without the documentation networks.
SPECIAL_NETWORKS = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/3",
    )
)
# What IANA has given to the registries (ipv6-unicast-address-assignments, 2024); 2001::/16 as one.
_GIVEN = tuple(
    IPv6Network(text)
    for text in (
        "2001::/16",
        "2003::/18",
        "2400::/12",
        "2410::/12",
        "2600::/12",
        "2610::/23",
        "2620::/23",
        "2630::/12",
        "2800::/12",
        "2a00::/12",
        "2a10::/12",
        "2c00::/12",
    )
)
_GIVEN_SPANS = distinct(span_of(network) for network in _GIVEN)
_SPACE = {
    4: (1 << 32) - sum(network.num_addresses for network in SPECIAL_NETWORKS),
    6: sum(network.num_addresses for network in _GIVEN),
}


def require_coverage(networks: Sequence[Network], feed: Feed) -> None:
    """Raise FeedError where a list covers more of a family than `max_coverage`.

    Only address space that somebody can have counts, on both sides.
    """
    for version, space in _SPACE.items():
        mine = [item for item in networks if item.version == version]
        # What overlaps counts twice here: good enough to let nearly every list through quickly.
        if sum(1 << (BITS[version] - item.prefixlen) for item in mine) * feed.max_coverage <= space:
            continue
        spans = distinct(map(span_of, mine))
        covered = _size(spans)
        if version == 6:
            covered -= _size(without(spans, _GIVEN_SPANS))
        if covered * feed.max_coverage > space:
            raise FeedError(
                f"covers {100 * covered / space:.1f} % of all IPv{version} addresses in use, and "
                f"max_coverage is 1/{feed.max_coverage}; raise max_coverage, or use a shorter list"
            )


def _size(spans: Iterable[Span]) -> int:
    return sum(last - first + 1 for first, last in spans)
