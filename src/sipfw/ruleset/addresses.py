"""Addresses, networks and IP protocols, under the names that every room uses."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

IpAddress: TypeAlias = IPv4Address | IPv6Address
IpNetwork: TypeAlias = IPv4Network | IPv6Network


class IpProto(StrEnum):
    """What the packet carries; ICMP stands for ICMPv6 in family ip6, OTHER has no ports."""

    UDP = "udp"
    TCP = "tcp"
    ICMP = "icmp"
    OTHER = "another protocol"
