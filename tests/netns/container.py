"""A softswitch in a container: a namespace behind a bridge of the lab's switch, SIP published."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab import Family, Node, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared_host import SharedHost

ADDRESS: dict[Family, str] = {"ip": "192.0.2.10", "ip6": "2001:db8:2::10"}
GATEWAY: dict[Family, str] = {"ip": "192.0.2.1", "ip6": "2001:db8:2::1"}
LENGTH: dict[Family, str] = {"ip": "24", "ip6": "64"}
COMMAND: dict[Family, str] = {"ip": "iptables", "ip6": "ip6tables"}


def published(family: Family) -> str:
    """Return rules as Docker makes them for a container with 5060/udp and 5060/tcp published."""
    address = ADDRESS[family]
    target = f"[{address}]:5060" if family == "ip6" else f"{address}:5060"
    network = f"{GATEWAY[family]}/{LENGTH[family]}"
    dnat = "".join(
        f"-A DOCKER ! -i docker0 -p {proto} --dport 5060 -j DNAT --to-destination {target}\n"
        for proto in ("udp", "tcp")
    )
    accept = "".join(
        f"-A DOCKER -d {address} ! -i docker0 -o docker0 -p {proto} --dport 5060 -j ACCEPT\n"
        for proto in ("udp", "tcp")
    )
    return f"""\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {network} ! -o docker0 -j MASQUERADE
{dnat}COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
{accept}-A DOCKER-USER -j RETURN
COMMIT
"""


@contextmanager
def container(host: SharedHost) -> Iterator[Node]:
    """Start a container on the host and publish its SIP ports."""
    name = f"{namespaces.fresh_prefix()}container"
    namespaces.batch([f"netns add {name}"])
    node = Node("container", name)
    try:
        _connect(host.node.namespace, name)
        for family, command in COMMAND.items():
            host.tool(f"{command}-restore", "--noflush", text=published(family))
        yield node
    finally:
        node.close()
        namespaces.remove([name])


def _connect(outside: str, inside: str) -> None:
    namespaces.set_sysctls(
        inside, ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
    )
    namespaces.batch(
        [
            "link add docker0 type bridge",
            f"link add name voip type veth peer name eth0 netns {inside}",
            "link set voip master docker0",
            *(f"link set {each} up" for each in ("voip", "docker0")),
            *(f"address add {GATEWAY[f]}/{LENGTH[f]} dev docker0" for f in GATEWAY),
        ],
        outside,
    )
    namespaces.batch(
        [
            *(f"link set {each} up" for each in ("lo", "eth0")),
            *(f"address add {ADDRESS[f]}/{LENGTH[f]} dev eth0" for f in ADDRESS),
            f"route add default via {GATEWAY['ip']}",
            f"route add ::/0 via {GATEWAY['ip6']}",
        ],
        inside,
    )
