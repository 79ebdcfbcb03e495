"""Which protocols and tunnels this host is seen to use, told by /proc and `ip`. Changes nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from sipfw.errors import BackendError
from sipfw.host.proc_net import from_hex, lines_of
from sipfw.monitor.doctor.listening import holders, listeners

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sipfw.host.runner import Runner
    from sipfw.monitor.doctor.listening import Listener

# IANA's numbers, those that a telephone host may carry beside UDP, TCP and ICMP.
NAMES = {
    2: "IGMP",
    4: "IPIP",
    41: "IPv6 in IPv4",
    47: "GRE",
    50: "ESP (IPsec)",
    51: "AH (IPsec)",
    88: "EIGRP",
    89: "OSPF",
    103: "PIM",
    112: "VRRP",
    115: "L2TPv3",
    124: "IS-IS over IPv4",
    132: "SCTP",
    136: "UDP-Lite",
}
# What every host has, what the host layer knows, and sockets that only send (IPPROTO_RAW).
_NO_PROTOCOL = frozenset({0, 1, 6, 17, 58, 255})
# RFC 5771: the groups by which these protocols find each other; IGMP does not carry them.
_GROUPS = {
    "224.0.0.5": 89,
    "224.0.0.6": 89,
    "224.0.0.10": 88,
    "224.0.0.13": 103,
    "224.0.0.18": 112,
}
_DEVICES = {
    "gre": 47,
    "gretap": 47,
    "erspan": 47,
    "ip6gre": 47,
    "ip6gretap": 47,
    "ip6erspan": 47,
    "ipip": 4,
    "sit": 41,
    "vti": 50,
    "vti6": 50,
    "xfrm": 50,
}
# Kinds of devices that carry their packets in UDP, and the kernel's port (IANA's).
_UDP_DEVICES = {"vxlan": 4789, "geneve": 6081, "wireguard": 51820, "bareudp": 6635, "gtp": 2152}
UDP_SERVICES = {
    500: "IKE (IPsec)",
    4500: "IPsec through NAT",
    1194: "OpenVPN",
    1701: "L2TP",
    2152: "GTP",
    4789: "VXLAN",
    6081: "Geneve",
    8472: "VXLAN",
    51820: "WireGuard",
}
_DAEMONS = {"keepalived": 112, "vrrpd": 112, "ospfd": 89, "ospf6d": 89, "pptpd": 47, "pimd": 103}
_ENTRIES = 50_000
# A DHCP client is answered through a packet socket, which no rule sees.
_CLIENTS = frozenset({68, 546})


@dataclass(frozen=True, slots=True)
class Use:
    """A protocol, or with `port` one of UDP or TCP, that somebody uses here, and what shows it.

    `interface` is where its packets come in, None where nothing tells.
    """

    protocol: str
    evidence: str
    port: int | None = None
    number: int | None = None
    interface: str | None = None
    tunnel: bool = False


def in_use(proc: Path, runner: Runner) -> list[Use]:
    """Look everywhere; what cannot be read shows nothing. Each protocol is told once."""
    found = listeners(proc)
    uses = [
        *_groups(proc),
        *_raw(proc, found),
        *_daemons(proc),
        *_sctp(proc),
        *_devices(runner),
        *_ipsec(runner),
        *_tracked(proc),
        *_services(proc, found),
    ]
    told: dict[tuple[str, int | None, str | None], Use] = {}
    known = {(item.protocol, item.port) for item in uses if item.interface is not None}
    for item in uses:
        if item.interface is None and (item.protocol, item.port) in known:
            continue
        told.setdefault((item.protocol, item.port, item.interface), item)
    return list(told.values())


def _named(number: int, evidence: str, interface: str | None = None) -> Use:
    name = NAMES.get(number, f"IP protocol {number}")
    return Use(name, evidence, number=number, interface=interface)


def _groups(proc: Path) -> Iterator[Use]:
    """Read /proc/net/igmp: a line for each interface, then an indented one for each group."""
    interface = ""
    for line in lines_of(proc / "net" / "igmp")[1:]:
        words = line.split()
        with suppress(IndexError, ValueError):
            if not line.startswith("\t"):
                interface = words[1].rstrip(":")
                continue
            group = from_hex(words[0])
            evidence = f"{interface} is in the group {group}"
            if str(group) in _GROUPS:
                yield _named(_GROUPS[str(group)], evidence, interface)
            elif not group.packed.startswith(b"\xe0\x00\x00") and interface != "lo":
                # RFC 4541, 2.1.2: switches forward 224.0.0.0/24 without asking for it.
                yield _named(2, evidence, interface)


def _raw(proc: Path, found: Iterable[Listener]) -> Iterator[Use]:
    sockets = {item.inode: item for item in found if item.proto == "raw"}
    names = holders(proc, sockets.keys()) if sockets else {}
    for item in sockets.values():
        if item.port not in _NO_PROTOCOL:
            who = names.get(item.inode, "somebody")
            yield _named(item.port, f"{who} has a raw socket for it")


def _daemons(proc: Path) -> Iterator[Use]:
    names = {line for path in proc.glob("[0-9]*/comm") for line in lines_of(path)[:1]}
    for name, number in _DAEMONS.items():
        if name in names:
            yield _named(number, f"{name} runs")


def _sctp(proc: Path) -> Iterator[Use]:
    if any(lines_of(proc / "net" / "sctp" / name)[1:] for name in ("eps", "assocs")):
        yield _named(132, "there is an SCTP endpoint")


def _devices(runner: Runner) -> Iterator[Use]:
    for link in _links(runner):
        name, info = str(link.get("ifname", "?")), link.get("linkinfo")
        kind = str(info.get("info_kind", "")) if isinstance(info, dict) else ""
        data = info.get("info_data") if isinstance(info, dict) else None
        # Templates of the modules, which carry nothing: gre0, tunl0, sit0.
        if "UP" not in (link.get("flags") or ()):
            continue
        evidence = f"{name} is a device of kind {kind}"
        if kind in _DEVICES:
            yield _named(_DEVICES[kind], evidence)
        elif kind in _UDP_DEVICES:
            port = data.get("port") if isinstance(data, dict) else None
            # A WireGuard device does not tell its port here; its socket does.
            if kind != "wireguard" or isinstance(port, int):
                usual = _UDP_DEVICES[kind]
                yield Use("UDP", evidence, port if isinstance(port, int) else usual, tunnel=True)
        elif kind == "ip6tnl":
            yield _named(41, evidence)
            yield _named(4, evidence)


def _links(runner: Runner) -> list[dict[str, Any]]:
    try:
        links = json.loads(runner.run(["ip", "-j", "-d", "link", "show"]).stdout or "[]")
    except (BackendError, ValueError, RecursionError):
        return []
    found = links if isinstance(links, list) else []
    return [item for item in found if isinstance(item, dict)]


def _ipsec(runner: Runner) -> Iterator[Use]:
    """Read `ip xfrm state`: associations, with the port where they go through NAT."""
    try:
        text = runner.run(["ip", "xfrm", "state"]).stdout
    except BackendError:
        return
    for block in text.split("\nsrc "):
        if "encap type espinudp" in block:
            yield Use("UDP", "there is an IPsec association through NAT", 4500, tunnel=True)
        elif "proto esp" in block:
            yield _named(50, "there is an IPsec association")
        elif "proto ah" in block:
            yield _named(51, "there is an IPsec association")


def _tracked(proc: Path) -> Iterator[Use]:
    """Read `ipv4 2 unknown 112 300 src=... dst=...` of connection tracking."""
    seen = set(_NO_PROTOCOL)
    try:
        with (proc / "net" / "nf_conntrack").open(encoding="ascii", errors="replace") as file:
            for line in islice(file, _ENTRIES):
                words = line.split()
                if len(words) < 6 or not words[3].isdecimal() or int(words[3]) in seen:
                    continue
                seen.add(int(words[3]))
                ends = " ".join(word for word in words if word.startswith(("src=", "dst=")))[:80]
                yield _named(int(words[3]), f"connection tracking knows {ends}")
    except OSError:
        return


def _services(proc: Path, found: Iterable[Listener]) -> Iterator[Use]:
    """Yield listening ports that others can reach.

    A port of the range for clients that a program holds is taken for a client's. What no process
    holds is the kernel's own, so a tunnel's; in a container nobody's processes may be seen.
    """
    ports = [item for item in found if item.proto != "raw" and not item.is_local]
    names = holders(proc, {item.inode for item in ports}) if ports else {}
    first, last = _client_ports(proc)
    for item in sorted(ports, key=lambda each: (each.proto, each.port)):
        holder = names.get(item.inode)
        is_client = item.proto == "udp" and first <= item.port <= last
        if item.proto == "udp" and (item.port in _CLIENTS or (is_client and holder)):
            continue
        kernel = item.proto == "udp" and holder is None and bool(names)
        tunnel = kernel or (item.proto == "udp" and item.port in UDP_SERVICES)
        evidence = holder or ("the kernel" if kernel else "a program that is not seen")
        yield Use(item.proto.upper(), evidence, item.port, tunnel=tunnel)


def _client_ports(proc: Path) -> tuple[int, int]:
    """Return where the kernel takes ports of clients from."""
    words = " ".join(lines_of(proc / "sys/net/ipv4/ip_local_port_range")).split()
    try:
        return int(words[0]), int(words[1])
    except (IndexError, ValueError):
        return 32768, 60999
