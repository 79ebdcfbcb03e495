"""Checks of ports: each has one use, and none is there twice."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from sipfw.policy.finding import Finding
from sipfw.policy.model import Policy, Transport
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator

# Each is an element of a set, for every network of the peer and both protocols.
_MOST_SOURCE_PORTS = 64


def port_faults(policy: Policy) -> Iterator[Finding]:
    """Yield what is wrong with the ports of a policy."""
    yield from _source_ports(policy)
    yield from _tcp_ports(policy)
    yield from _udp_ports(policy)
    yield from _media_ports(policy)
    yield from _sip_in_media(policy)


def _source_ports(policy: Policy) -> Iterator[Finding]:
    for index, peer in enumerate(policy.trusted_peers):
        number = sum(item.last - item.first + 1 for item in peer.source_ports)
        if number > _MOST_SOURCE_PORTS:
            message = (
                f"{number} ports are too many to look up; name at most {_MOST_SOURCE_PORTS}, or "
                "take source_ports out"
            )
            yield Finding(("trusted_peers", index, "source_ports"), message)


def _tcp_ports(policy: Policy) -> Iterator[Finding]:
    signalling = policy.signalling
    ssh = policy.admin.ssh_port
    taken = [(PortRange(ssh, ssh), "admin.ssh_port")]
    for transport in Transport:
        if transport is Transport.UDP:
            continue
        for index, ports in enumerate(getattr(signalling, transport.value)):
            clash = next((item for item in taken if ports.overlaps(item[0])), None)
            if clash is not None:
                message = f"TCP {_are(ports.shared(clash[0]))} also {clash[1]}; a port has one use"
                yield Finding(("signalling", transport.value, index), message)
            taken.append((ports, f"signalling.{transport}"))


def _udp_ports(policy: Policy) -> Iterator[Finding]:
    signalling = policy.signalling
    for one, other in combinations(range(len(signalling.udp)), 2):
        first, later = signalling.udp[one], signalling.udp[other]
        if first == later:
            message = f"{_are(later)} given twice; keep one"
            yield Finding(("signalling", "udp", other), message)
        elif first.overlaps(later):
            message = f"'{later}' overlaps '{first}'; join them"
            yield Finding(("signalling", "udp", other), message)


def _are(ports: PortRange) -> str:
    return f"port {ports} is" if ports.first == ports.last else f"ports {ports} are"


def _media_ports(policy: Policy) -> Iterator[Finding]:
    for one, other in combinations(range(len(policy.media.ports)), 2):
        if policy.media.ports[one].overlaps(policy.media.ports[other]):
            message = (
                f"'{policy.media.ports[other]}' overlaps '{policy.media.ports[one]}'; join them"
            )
            yield Finding(("media", "ports", other), message)


def _sip_in_media(policy: Policy) -> Iterator[Finding]:
    for index, ports in enumerate(policy.signalling.udp):
        for place, media in enumerate(policy.media.ports):
            if media.overlaps(ports):
                shared = media.shared(ports)
                what = (
                    f"port {shared} lies" if shared.first == shared.last else f"ports {shared} lie"
                )
                message = (
                    f"{what} inside the RTP range {media}; "
                    "move it or set media.ports to what the switch uses"
                )
                yield Finding(
                    ("signalling", "udp", index), message, related=("media", "ports", place)
                )
