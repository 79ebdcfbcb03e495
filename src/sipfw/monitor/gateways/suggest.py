"""Findings as peers: commented lines of a starter policy, and those that a policy lacks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sipfw.kernel.detect import printable
from sipfw.monitor.gateways.look import Gateway
from sipfw.policy.types import Hostname

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.policy.model import Policy
    from sipfw.policy.types import Network

_LONGEST_NAME = 31
# So many places of one name are said to be where it was found.
_WHERE = 3


def commented_peers(gateways: Iterable[Gateway]) -> list[str]:
    """Write each name once, with all its places; one that overlaps another is only told."""
    grouped: dict[str, list[Gateway]] = {}
    for item in gateways:
        grouped.setdefault(item.name, []).append(item)
    hosts: set[Hostname] = set()
    networks: set[Network] = set()
    spans: list[tuple[int, int, int]] = []
    names: set[str] = set()
    lines = []
    for raw, items in grouped.items():
        new: list[Network | Hostname] = []
        met: list[Network | Hostname] = []
        # The widest first: no two places of a policy may overlap.
        for place in sorted({each for item in items for each in item.places}, key=_widest_first):
            if isinstance(place, Hostname):
                if place not in hosts:
                    new.append(place)
                    hosts.add(place)
            elif place not in networks:
                version, first, last = span = _span(place)
                overlaps = any(
                    version == other and first <= end and start <= last
                    for other, start, end in spans
                )
                (met if overlaps else new).append(place)
                if not overlaps:
                    networks.add(place)
                    spans.append(span)
        if not new and not met:
            continue
        where = [printable(item.where) for item in items]
        more = f" and {len(where) - _WHERE} more" if len(where) > _WHERE else ""
        lines.append(f"#  # seen in {', '.join(where[:_WHERE])}{more}")
        lines += [
            f"#  # {_plain(place)}, too, which overlaps one that stands here" for place in met
        ]
        if new:
            names.add(name := _safe_name(raw, names))
            listed = ", ".join(f"'{_plain(place)}'" for place in new)
            lines += [f'#  - name: "{name}"', f"#    signalling: [{listed}]"]
    return lines


def uncovered(
    policy: Policy, gateways: Iterable[Gateway], resolved: Iterable[Network]
) -> list[Gateway]:
    """Return the findings that no peer and no admin network covers, with the places that lack.

    `resolved` is what the host names of the policy mean now.
    """
    trusted = [place for peer in policy.trusted_peers for place in peer.signalling]
    trusted += policy.admin.networks
    names = {place.name for place in trusted if isinstance(place, Hostname)}
    networks = [place for place in trusted if not isinstance(place, Hostname)]
    inside = _Inside([*networks, *resolved])
    return [
        Gateway(item.where, item.name, lacking)
        for item in gateways
        if (
            lacking := tuple(
                place
                for place in item.places
                if (place.name not in names if isinstance(place, Hostname) else place not in inside)
            )
        )
    ]


def said(gateway: Gateway) -> str:
    """Return one line of what a policy lacks; it may hold whatever somebody wrote into a file."""
    places = ", ".join(map(_plain, gateway.places))
    return (
        f"{gateway.where}: {gateway.name[:60]} ({places}) is no peer of the policy: it is limited, "
        "and may be banned, as a stranger; add it below trusted_peers if it is yours"
    )


class _Inside:
    """Tells whether a network lies in one of many: by length of prefix, not one by one."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = set(networks)
        self._lengths = {(item.version, item.prefixlen) for item in self._networks}

    def __contains__(self, network: Network) -> bool:
        return any(wider in self._networks for wider in self._wider(network))

    def _wider(self, network: Network) -> Iterator[Network]:
        for version, length in self._lengths:
            if version == network.version and length <= network.prefixlen:
                yield network.supernet(new_prefix=length)


def _widest_first(place: Network | Hostname) -> tuple[int, int, str]:
    if isinstance(place, Hostname):
        return 0, 0, str(place)
    return place.version, place.prefixlen, str(place)


def _span(network: Network) -> tuple[int, int, int]:
    """Return numbers, to be compared two thousand times two thousand times."""
    return network.version, int(network.network_address), int(network.broadcast_address)


def _plain(place: Network | Hostname) -> str:
    if isinstance(place, Hostname) or place.prefixlen < place.max_prefixlen:
        return str(place)
    return str(place.network_address)


def _safe_name(raw: str, taken: set[str]) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", raw[:200].lower()).strip("-")[:_LONGEST_NAME].rstrip("-")
    plain = plain or "found"
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain[: _LONGEST_NAME - len(str(number)) - 1]}-{number}"
    return name
