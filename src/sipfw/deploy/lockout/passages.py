"""Follows the route to everybody who is logged in, outward through each tunnel that ends here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.deploy.lockout.carried import Carrier, Passage
from sipfw.deploy.lockout.kernel_tunnels import (
    WIREGUARD,
    ways_of_ipsec,
    ways_of_kernel,
    ways_of_wireguard,
)
from sipfw.deploy.lockout.userspace_carriers import other_end, servants, unowned_udp, ways_into
from sipfw.host import openvpn_client
from sipfw.host.network import Link, NetworkFacts, address_or_none
from sipfw.host.proc_net import lines_of, speaks_netlink, ways_to
from sipfw.host.processes import Process, printable, read_processes
from sipfw.host.sockets import SocketKind, read_sockets
from sipfw.ruleset.addresses import IpProto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sipfw.host.sessions import Session
    from sipfw.ruleset.addresses import IpAddress

_PROC = Path("/proc")

_ON_TOP = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", "hsr"})
_WITH_PORTS = frozenset({"bridge", "bond", "team", "batadv"})
_IPSEC_LINKS = frozenset({"vti", "vti6", "xfrm"})
_VRF = "vrf"
_IKE = 500
# linux/netlink.h.
_NETLINK_XFRM = 6
# Tunnels within tunnels, and far ends of one proxy: more than any host has who is not hostile.
_DEEPEST = 8
_MOST_ENDS = 32


def placed(session: Session, facts: NetworkFacts, proc: Path = _PROC) -> Session:
    """Return the session with the interface that all routing tables together name.

    Where the main table has several routes that are equally good, nobody knows the interface.
    """
    if session.interface == "lo" or session.client.is_loopback:
        return session
    if session.address is not None and session.address.is_loopback:
        # A transparent proxy of this host shows the client's address (IP_TRANSPARENT).
        return replace(session, interface="lo")
    if session.client.is_link_local:
        # It has a route through every interface, and lives behind one of them.
        seen = {name for name, _ in facts.neighbours(session.client)}
        return replace(session, interface=session.interface or _only(seen))
    if len(ways_to(session.client, proc)) > 1:
        return session
    place = None if session.address is None else facts.holder_of(session.address)
    master = facts.links[place].master if place else None
    if master and master in facts.links and facts.links[master].kind == _VRF:
        # The input hook sees the VRF, not its member (vrf_ip_rcv in drivers/net/vrf.c).
        return replace(session, interface=master)
    found = facts.route(session.client, session.address).interface
    return replace(session, interface=found or session.interface)


def passages(sessions: Iterable[Session], facts: NetworkFacts, proc: Path = _PROC) -> list[Passage]:
    """Return the tunnels and proxies of this host through which these sessions come."""
    sessions = list(sessions)
    if not sessions:
        return []
    trail = _Trail(facts, proc)
    found: dict[tuple[str, tuple[Carrier, ...]], Passage] = {}
    for session in sessions:
        for passage in trail.of(session):
            # One finding for everybody who comes by the same tunnel, the first one is named.
            found.setdefault((passage.name, passage.ways), passage)
    return list(found.values())


def _only(names: set[str]) -> str | None:
    return names.pop() if len(names) == 1 else None


class _Trail:
    """Follows one address at a time; what was read of the host counts for all."""

    def __init__(self, facts: NetworkFacts, proc: Path) -> None:
        self._facts = facts
        self._proc = proc
        self._ipsec_is_used = speaks_netlink(_NETLINK_XFRM, proc)
        self._sockets = read_sockets(proc)
        self._processes = read_processes(proc)

    def of(self, session: Session) -> Iterator[Passage]:
        if session.interface == "lo":
            found = self._proxies(session)
        else:
            names = (
                {session.interface} if session.interface else ways_to(session.client, self._proc)
            )
            found = [
                Passage(session, name, way)
                for interface in sorted(names)
                for name, way in self._outside(session.client, session.address, interface)
            ]
        yield from found
        seen = {session.client}
        for _ in range(_DEEPEST):
            # The tunnels through which the outer packets come themselves.
            ends = {way.far: way for item in found for way in item.ways if way.far not in seen}
            seen |= {end for end in ends if end is not None}
            found = [
                Passage(session, name, outer)
                for end, way in list(ends.items())[:_MOST_ENDS]
                if end is not None
                for name, outer in self._outside(end, way.own, way.interface)
            ]
            yield from found

    def _proxies(self, session: Session) -> list[Passage]:
        end = other_end(session, self._sockets)
        if end is None:
            return []
        holders = self._processes.holding(end.inode)
        # What it has opened itself is the way out of a client that runs on this host.
        ways = tuple(way for way in ways_into(holders, self._sockets) if not way.dialled)
        if not ways:
            return []
        return [Passage(session, f"the proxy {holders[0].name}", self._located(ways))]

    def _outside(
        self, client: IpAddress, own: IpAddress | None, interface: str | None
    ) -> Iterator[tuple[str, tuple[Carrier, ...]]]:
        """Yield what carries the packets of one address, by the name of each tunnel."""
        matching = [
            item
            for item in (self._facts.templates() if self._ipsec_is_used else ())
            if client in item.source and (own is None or own in item.destination)
        ]
        direct = [item for item in matching if not item.by_link]
        yield from self._ipsec("IPsec", ways_of_ipsec(direct, client, self._facts))
        for link, far in self._below(interface, client):
            name = f"the tunnel {printable(link.name)} ({link.kind or link.type})"
            if link.kind in _IPSEC_LINKS:
                keyed = [item for item in matching if item.by_link]
                yield from self._ipsec(name, ways_of_ipsec(keyed, client, self._facts))
            elif (ways := self._ways(link, client, far)) is not None:
                for part in _all_needed(ways):
                    yield name, self._located(part)

    def _ipsec(
        self, name: str, ways: tuple[Carrier, ...]
    ) -> Iterator[tuple[str, tuple[Carrier, ...]]]:
        if ways:
            yield name, self._located(ways)
            if self._has_udp(_IKE):
                exchange = Carrier(IpProto.UDP, _IKE, far=ways[0].far)
                yield f"the key exchange of {name}", self._located((exchange,))

    def _ways(
        self, link: Link, client: IpAddress, far: list[IpAddress]
    ) -> tuple[Carrier, ...] | None:
        """Return its ways, none where nobody can tell them; None where it is no tunnel."""
        if link.kind in WIREGUARD:
            unowned = unowned_udp(self._processes, self._sockets)
            return ways_of_wireguard(link.name, client, self._facts, unowned)
        if link.kind.startswith("ovpn"):
            return self._served(link, client, lambda item: item.name == openvpn_client.NAME)
        if link.kind == "tun":
            return self._served(link, client, lambda item: link.name in item.tunnels)
        if link.kind == "ppp" or link.type == "ppp":
            if self._has_l2tp() and self._facts.l2tp_tunnels():
                return ways_of_kernel(replace(link, kind="l2tp"), client, self._facts, far)
            return self._served(link, client, lambda item: item.ppp)
        return ways_of_kernel(link, client, self._facts, far)

    def _served(
        self, link: Link, client: IpAddress, serves: Callable[[Process], bool]
    ) -> tuple[Carrier, ...] | None:
        group = servants(link.name, self._processes, serves, self._sockets)
        if group is None:
            return ()
        if any("wireguard" in item.name or "boringtun" in item.name for item in group):
            return ways_of_wireguard(
                link.name,
                client,
                self._facts,
                [item for item in self._sockets.all if self._is_udp_of(item.inode, group)],
            )
        ways = ways_into(group, self._sockets)
        if any(item.name == openvpn_client.NAME and self._dials(item) for item in group):
            ways = tuple(replace(way, dialled=True) for way in ways)
        return ways or None

    def _dials(self, process: Process) -> bool:
        return openvpn_client.dials(self._proc / process.pid)

    def _is_udp_of(self, inode: str, group: Sequence[Process]) -> bool:
        kinds = {item.inode for item in self._sockets.all if item.kind is SocketKind.UDP}
        return inode in kinds and any(inode in item.sockets for item in group)

    def _below(
        self, interface: str | None, client: IpAddress
    ) -> Iterator[tuple[Link, list[IpAddress]]]:
        """Yield what carries an interface: itself, or what it stands on or consists of.

        With each link come the far ends behind which its table has the client.
        """
        waiting, seen = [interface], set()
        while waiting:
            name = waiting.pop()
            if name is None or name in seen:
                continue
            seen.add(name)
            link = self._link(name)
            if link.kind in _ON_TOP:
                waiting.append(link.below)
            elif link.kind == _VRF:
                waiting.append(self._facts.route(client, vrf=name).interface)
            elif link.kind in _WITH_PORTS:
                waiting += self._ports(name, client)
            else:
                yield link, self._far(link, client)

    def _link(self, name: str) -> Link:
        known = self._facts.links.get(name)
        if known is not None:
            return known
        kind = "tun" if any(name in item.tunnels for item in self._processes) else ""
        return Link(name, kind, "", {}, None, None, ())

    def _ports(self, bridge: str, client: IpAddress) -> list[str | None]:
        """Return the port behind which a bridge has the client, or all of them."""
        ports = [item.name for item in self._facts.links.values() if item.master == bridge]
        macs = self._hardware(client)
        chosen = [
            name
            for name in ports
            if any(entry.get("mac") in macs for entry in self._facts.forwarding(name))
        ]
        return [*(chosen or ports)]

    def _far(self, link: Link, client: IpAddress) -> list[IpAddress]:
        """Return the far ends that VXLAN has for the client, or sends everything to."""
        if link.kind != "vxlan":
            return []
        table = self._facts.forwarding(link.name)
        macs = self._hardware(client)
        ends = [
            [address_or_none(entry.get("dst")) for entry in table if fits(str(entry.get("mac")))]
            for fits in (macs.__contains__, lambda mac: set(mac) <= set("0:"))
        ]
        known = [[item for item in some if item is not None] for some in ends]
        return known[0] or [item for item in known[1] if not item.is_multicast]

    def _hardware(self, client: IpAddress) -> set[str]:
        return {mac for _, mac in self._facts.neighbours(self._facts.route(client).hop)}

    def _located(self, ways: Iterable[Carrier]) -> tuple[Carrier, ...]:
        """Add the interface: of the route to the far end, else of the address it is bound to."""
        found = []
        for way in ways:
            far: list[IpAddress | None] = [*(self._senders(way) if way.far is None else ())]
            for end in far or [way.far]:
                if end is not None:
                    place = self._facts.route(end, way.own, mark=way.mark).interface
                else:
                    place = None if way.own is None else self._facts.holder_of(way.own)
                found.append(replace(way, far=end, interface=place))
        return tuple(dict.fromkeys(found))

    def _senders(self, way: Carrier) -> list[IpAddress]:
        """Return who sends to a way, where that is one: anybody may send there, from anywhere."""
        if way.protocol is not IpProto.UDP:
            return []
        found = [
            end
            for end in self._facts.senders(way.port)
            if way.own is None or way.own.version == end.version
        ]
        return found if len(found) == 1 else []

    def _has_l2tp(self) -> bool:
        """Tell whether it may be asked for: the question itself would load the module."""
        modules = lines_of(self._proc / "modules")
        return not modules or any(line.startswith("l2tp_") for line in modules)

    def _has_udp(self, port: int) -> bool:
        return any(item.kind is SocketKind.UDP and item.port == port for item in self._sockets.all)


def _all_needed(ways: tuple[Carrier, ...]) -> list[tuple[Carrier, ...]]:
    """Split what replaces each other; PPTP needs its TCP connection and its GRE."""
    ports = tuple(way for way in ways if way.protocol is not IpProto.OTHER)
    numbers = tuple(way for way in ways if way.protocol is IpProto.OTHER)
    return [part for part in (ports, numbers) if part] or [()]
