"""What the kernel tells of links, routes, bridges, IPsec and WireGuard, through iproute2 and wg.

Every answer may be missing: a program that is not there, fails, or prints something else tells
nothing. Keys of WireGuard are never asked for.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from sipfw.errors import BackendError
from sipfw.host.runner import SubprocessRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sipfw.host.runner import Runner
    from sipfw.ruleset.addresses import IpAddress, IpNetwork

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. `kind` is rtnetlink's (`vxlan`, `wireguard`), empty for hardware.

    `below` is the interface it stands on, `master` the bridge or VRF it belongs to. `xdp` tells
    whether an XDP program judges its packets (IFLA_XDP, in iproute2 since 4.13).
    """

    name: str
    kind: str
    type: str
    data: Mapping[str, Any]
    below: str | None
    master: str | None
    addresses: tuple[IpAddress, ...]
    xdp: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where a packet leaves, None where nobody tells, and who on that link gets it."""

    interface: str | None
    hop: IpAddress


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """One peer of a WireGuard interface. `keepalive` is in seconds, 0 where it sends none."""

    allowed: tuple[IpNetwork, ...]
    endpoint: IpAddress | None
    keepalive: int


@dataclass(frozen=True, slots=True)
class Template:
    """What IPsec asks of packets between two networks; `far` is None where it is the client.

    `by_link` tells that it holds for what comes through a vti or xfrm interface only.
    """

    source: IpNetwork
    destination: IpNetwork
    protocol: str
    far: IpAddress | None
    by_link: bool = False


@dataclass
class NetworkFacts:
    """Asks the host, each question once."""

    runner: Runner = field(default_factory=SubprocessRunner)
    _texts: dict[tuple[str, ...], str | None] = field(default_factory=dict)

    @cached_property
    def links(self) -> Mapping[str, Link]:
        """Return the interfaces by name; empty where nobody tells."""
        found = [_link(item) for item in self._list("ip", "-j", "-d", "address", "show")]
        return {link.name: link for link in found if link is not None}

    def route(
        self, address: IpAddress, source: IpAddress | None = None, *, mark: str = "", vrf: str = ""
    ) -> Route:
        """Return the way that a packet to `address` would take."""
        words = ["ip", "-j", "route", "get", str(address)]
        if source is not None and not source.is_unspecified:
            words += ["from", str(source)]
        words += ["mark", mark] if mark else []
        words += ["vrf", vrf] if vrf else []
        for item in self._list(*words):
            if isinstance(item.get("dev"), str):
                return Route(item["dev"], address_or_none(item.get("gateway")) or address)
        return Route(None, address)

    def neighbours(self, address: IpAddress) -> list[tuple[str, str]]:
        """Return where an address was seen on a link: interface and hardware address."""
        return [
            (str(item.get("dev")), str(item["lladdr"]))
            for item in self._list("ip", "-j", "neighbour", "show", "to", str(address))
            if item.get("lladdr")
        ]

    def forwarding(self, link: str) -> list[Mapping[str, Any]]:
        """Return the table that tells behind which port or far end a hardware address is."""
        return self._list("bridge", "-j", "fdb", "show", "dev", link)

    def templates(self) -> list[Template]:
        """Return what IPsec asks of packets that come in."""
        text = self._text("ip", "xfrm", "policy", "list", "dir", "in") or ""
        return [item for block in _blocks(text) for item in _templates(block)]

    def over_udp(self, far: IpAddress) -> tuple[int, ...]:
        """Return the local ports to which a far end of IPsec wraps its packets into UDP."""
        text = self._text("ip", "xfrm", "state", "list", "src", str(far)) or ""
        found = re.findall(r"^\s*encap type espinudp\S* sport \d+ dport (\d+)", text, re.MULTILINE)
        return tuple(sorted({int(port) for port in found}))

    def fou_ports(self) -> list[int]:
        """Return the UDP ports whose packets are unwrapped by foo-over-udp."""
        return _numbers(self._list("ip", "-j", "fou", "show"), "port")

    def l2tp_tunnels(self) -> list[tuple[int, IpAddress | None]]:
        """Return local UDP port and far end of L2TP tunnels; port 0 is one over bare IP."""
        return [
            (port if isinstance(port := item.get("local_port", 0), int) else 0, peer)
            for item in self._list("ip", "-j", "l2tp", "show", "tunnel")
            for peer in (address_or_none(item.get("peer")),)
        ]

    def wireguard(self, link: str) -> tuple[int, str, list[WireguardPeer]] | None:
        """Return the port, the mark and the peers; None where the tool does not tell."""
        port = (self._text("wg", "show", link, "listen-port") or "").strip()
        if not port.isdecimal():
            return None
        mark = (self._text("wg", "show", link, "fwmark") or "").strip()
        allowed, endpoints, keepalives = (
            self._by_key(link, what)
            for what in ("allowed-ips", "endpoints", "persistent-keepalive")
        )
        peers = [
            WireguardPeer(
                _networks(words.split()),
                _endpoint(endpoints.get(key, "")),
                int(keepalives[key]) if keepalives.get(key, "").isdecimal() else 0,
            )
            for key, words in allowed.items()
        ]
        return int(port), "" if mark == "off" else mark, peers

    def senders(self, port: int) -> list[IpAddress]:
        """Return who has sent to a UDP port of this host, as far as it was tracked."""
        found: dict[IpAddress, None] = {}
        for family in ("ipv4", "ipv6"):
            words = ("-L", "-f", family, "-p", "udp", "--orig-port-dst", str(port))
            for line in (self._text("conntrack", *words) or "").splitlines():
                source = re.search(r"\bsrc=(\S+)", line)
                address = address_or_none(source[1]) if source else None
                if address is not None:
                    found[address] = None
        return list(found)

    def holder_of(self, address: IpAddress) -> str | None:
        """Return the interface that has this address of the host."""
        return next((item.name for item in self.links.values() if address in item.addresses), None)

    def _by_key(self, link: str, what: str) -> dict[str, str]:
        lines = (self._text("wg", "show", link, what) or "").splitlines()
        return {key: rest for key, _, rest in (line.partition("\t") for line in lines)}

    def _list(self, *argv: str) -> list[Any]:
        text = self._text(*argv)
        with suppress(ValueError, RecursionError):
            found = json.loads(text or "[]")
            return [item for item in found if isinstance(item, dict) and item]
        return []

    def _text(self, *argv: str) -> str | None:
        if argv not in self._texts:
            try:
                done = self.runner.run(argv, timeout=_SECONDS)
            except BackendError:
                self._texts[argv] = None
            else:
                self._texts[argv] = None if done.returncode else done.stdout
        return self._texts[argv]


def address_or_none(text: object) -> IpAddress | None:
    """Read an address that a program printed; `any` and 0.0.0.0 are none."""
    try:
        address = ip_address(str(text).partition("%")[0])
    except ValueError:
        return None
    return None if address.is_unspecified else address


def _link(item: Mapping[str, Any]) -> Link | None:
    name, info = item.get("ifname"), item.get("linkinfo") or {}
    if not isinstance(name, str) or not isinstance(info, dict):
        return None
    data, own = info.get("info_data"), item.get("addr_info")
    addresses = [
        address_or_none(entry.get("local"))
        for entry in (own if isinstance(own, list) else [])
        if isinstance(entry, dict)
    ]
    return Link(
        name,
        str(info.get("info_kind", "")),
        str(item.get("link_type", "")),
        data if isinstance(data, dict) else {},
        item.get("link"),
        item.get("master"),
        tuple(address for address in addresses if address is not None),
        bool(item.get("xdp")),
    )


def _blocks(text: str) -> Iterator[list[str]]:
    """Split a listing of policies: each begins at the margin with `src A dst B`."""
    block: list[str] = []
    for line in text.splitlines():
        if block and not line.startswith(("\t", " ")):
            yield block
            block = []
        block.append(line)
    if block:
        yield block


def _templates(block: Sequence[str]) -> Iterator[Template]:
    ends = re.match(r"src (\S+) dst (\S+)", block[0])
    if ends is None:
        return
    networks = _networks(ends.groups())
    if len(networks) != 2:
        return
    by_link = any(re.search(r"\b(mark|if_id) ", line) for line in block[1:])
    for line, following in zip(block, [*block[1:], ""], strict=True):
        outer = re.match(r"\s+tmpl src (\S+) dst", line)
        kind = re.match(r"\s+proto (\S+)", following)
        if outer and kind:
            yield Template(*networks, kind[1], address_or_none(outer[1]), by_link)


def _networks(words: Sequence[str]) -> tuple[IpNetwork, ...]:
    found = []
    for word in words:
        with suppress(ValueError):
            found.append(ip_network(word))
    return tuple(found)


def _endpoint(text: str) -> IpAddress | None:
    return address_or_none(text.strip().rpartition(":")[0].strip("[]"))


def _numbers(items: Sequence[Mapping[str, Any]], key: str) -> list[int]:
    return sorted({item[key] for item in items if isinstance(item.get(key), int)})
