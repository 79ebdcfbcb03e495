"""The laboratory: a softswitch and the hosts around it, each in a namespace of its own.

The switch is the hub: every host has one link to it and a default route through it, and the
switch sends whatever it has no better route for to the attacker, who stands for the internet.
Nothing here knows which firewall is under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from lab import namespaces
from lab.channel import LabError
from lab.handles import Family, family_of
from lab.node import Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST_SYSCTLS = (
    "net.ipv4.ip_forward=0",
    # Until duplicate address detection ends, no neighbour is asked for a forwarded packet.
    # The kernel takes the larger of the two values.
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
)
SWITCH_SYSCTLS = (
    *HOST_SYSCTLS,
    # A switch on a border link sees any source; reverse-path checks would hide spoofed ones.
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
)


@dataclass(frozen=True, slots=True)
class Link:
    """The documentation networks between one host and the switch, both /24 and /64."""

    network4: str
    network6: str
    host_number: int

    def address(self, number: int, family: Family) -> str:
        if family == "ip6":
            return f"{self.network6}::{number:x}"
        return f"{self.network4}.{number}"

    def interface_addresses(self, number: int) -> tuple[str, str]:
        return f"{self.address(number, 'ip')}/24", f"{self.address(number, 'ip6')}/64"


LINKS: Mapping[str, Link] = MappingProxyType(
    {
        "carrier": Link("203.0.113", "2001:db8:5", 10),
        "attacker": Link("198.51.100", "2001:db8:66", 66),
        "office": Link("192.0.2", "2001:db8:2", 100),
    }
)
SWITCH_NUMBER = 1


class Host(Node):
    """A machine beside the switch."""

    def __init__(self, role: str, namespace: str, link: Link) -> None:
        super().__init__(role, namespace)
        self.link = link
        self.address4 = link.address(link.host_number, "ip")
        self.address6 = link.address(link.host_number, "ip6")

    def address(self, family: Family) -> str:
        return self.address6 if family == "ip6" else self.address4

    def add_address(self, address: str) -> None:
        """Give the host one more address of its network, usable at once as `source`."""
        length = "64" if family_of(address) == "ip6" else "24"
        namespaces.batch([f"address add {address}/{length} dev eth0"], self.namespace)

    def send_fragments(
        self,
        destination: str,
        sport: int,
        dport: int,
        payload: bytes,
        split_at: int | Sequence[int],
        *,
        source: str | None = None,
    ) -> int:
        own = self.address(family_of(destination))
        return super().send_fragments(
            destination, sport, dport, payload, split_at, source=source or own
        )


class Switch(Node):
    """The machine under attack; its links are named after the hosts behind them."""

    def address_for(self, host: Host, family: Family = "ip") -> str:
        """Return the address under which `host` reaches the switch."""
        return host.link.address(SWITCH_NUMBER, family)


class Lab:
    """Build the namespaces on entry and remove every trace of them on exit."""

    def __init__(
        self, hosts: Sequence[str] = ("carrier", "attacker"), *, forward: bool = False
    ) -> None:
        unknown = set(hosts) - set(LINKS)
        if unknown:
            msg = f"unknown hosts {sorted(unknown)}; choose from {sorted(LINKS)}"
            raise ValueError(msg)
        prefix = namespaces.fresh_prefix()
        self._forward = forward
        self.switch = Switch("switch", f"{prefix}switch")
        self.hosts = {role: Host(role, f"{prefix}{role}", LINKS[role]) for role in hosts}

    @property
    def carrier(self) -> Host:
        return self.hosts["carrier"]

    @property
    def attacker(self) -> Host:
        return self.hosts["attacker"]

    @property
    def office(self) -> Host:
        return self.hosts["office"]

    def __enter__(self) -> Self:
        reason = namespaces.unavailable_reason()
        if reason is not None:
            raise LabError(reason)
        namespaces.sweep()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def nodes(self) -> list[Node]:
        return [self.switch, *self.hosts.values()]

    def reset(self) -> None:
        """Close all sinks and sockets, so that the next test can have the same ports."""
        for node in self.nodes:
            node.reset()

    def close(self) -> None:
        """Remove the lab; safe to call twice."""
        try:
            for node in self.nodes:
                node.close()
        finally:
            namespaces.remove([node.namespace for node in self.nodes])

    def _build(self) -> None:
        hosts = list(self.hosts.values())
        namespaces.batch(f"netns add {node.namespace}" for node in (self.switch, *hosts))
        # Before the links exist: a new interface copies rp_filter from "default".
        forwarding = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        extra = forwarding if self._forward else ()
        namespaces.set_sysctls(self.switch.namespace, (*SWITCH_SYSCTLS, *extra))
        for host in hosts:
            namespaces.set_sysctls(host.namespace, HOST_SYSCTLS)
        # Both ends are born in their namespaces, so the root namespace never sees a link.
        namespaces.batch(
            f"link add name eth0 netns {host.namespace} type veth"
            f" peer name {host.role} netns {self.switch.namespace}"
            for host in hosts
        )
        for host in hosts:
            namespaces.batch(_host_commands(host), host.namespace)
        namespaces.batch(_switch_commands(hosts), self.switch.namespace)


def _interface_commands(interface: str, link: Link, number: int) -> list[str]:
    address4, address6 = link.interface_addresses(number)
    return [
        f"link set dev {interface} up",
        f"address add {address4} dev {interface}",
        f"address add {address6} dev {interface}",
    ]


def _host_commands(host: Host) -> list[str]:
    link = host.link
    return [
        "link set dev lo up",
        *_interface_commands("eth0", link, link.host_number),
        f"route add default via {link.address(SWITCH_NUMBER, 'ip')}",
        f"route add ::/0 via {link.address(SWITCH_NUMBER, 'ip6')}",
    ]


def _switch_commands(hosts: list[Host]) -> list[str]:
    commands = ["link set dev lo up"]
    for host in hosts:
        commands += _interface_commands(host.role, host.link, SWITCH_NUMBER)
    beyond = next((host for host in hosts if host.role == "attacker"), hosts[0] if hosts else None)
    if beyond is not None:
        commands += [
            f"route add default via {beyond.address4}",
            f"route add ::/0 via {beyond.address6}",
        ]
    return commands
