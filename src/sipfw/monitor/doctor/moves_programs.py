"""Port moves that no packet filter lists: virtual services of the kernel, and Docker's proxies.

Reads /proc. What stands there was written by others: what cannot be read moves nothing.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from typing import TYPE_CHECKING

from sipfw.host.proc_net import lines_of
from sipfw.monitor.doctor.port_moves import EVERY_PORT, PROTOS, PortMove
from sipfw.ruleset.match import L4Proto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.ruleset.addresses import IpAddress

# ip_vs_ctl.c, ip_vs_info_seq_show: `UDP  C0000201:1B9E rr`, `TCP  [2001:...:0001]:1B9E rr`,
# `FWM  00000001 rr`, and below each `  -> C000020A:13C4 Masq 1 0 0`.
_SERVICE = re.compile(r"(UDP|TCP|FWM) +(?:(\S+):)?([0-9A-F]{4}|[0-9A-F]{8}) .*")
_SERVER = re.compile(r"  -> (\[[0-9a-fA-F:]+\]|[0-9A-F]{8}):([0-9A-F]{4}) .*")
_PROXY = "docker-proxy"


def moves_of_ipvs(proc: Path) -> Iterator[PortMove]:
    """Yield what IPVS sends to its servers; it works in LOCAL_IN, behind every judging rule."""
    protos, ports, service = PROTOS, 0, ""
    for line in lines_of(proc / "net" / "ip_vs"):
        if head := _SERVICE.fullmatch(line):
            marked = head[1] == "FWM"
            protos = PROTOS if marked else frozenset({L4Proto(head[1].lower())})
            # Port 0 is a persistent service for all of them (ipvsadm(8)).
            ports = EVERY_PORT if marked or int(head[3], 16) == 0 else 1 << int(head[3], 16)
            service = line.strip()
        elif ports and (found := _SERVER.fullmatch(line)):
            port = int(found[2], 16)
            to = 1 << port if port else ports
            line_text = f"{service} {line.strip()}"
            yield PortMove(protos, ports, to, _hex_address(found[1]), "IPVS", line_text)


def _hex_address(text: str) -> IpAddress | None:
    with suppress(ValueError):
        if text.startswith("["):
            return IPv6Address(text.strip("[]"))
        return IPv4Address(int(text, 16))
    return None


def moves_of_proxies(proc: Path) -> Iterator[PortMove]:
    """Yield the ports for which a docker-proxy of this network namespace listens."""
    own = _namespace(proc / "self")
    for comm in proc.glob("[0-9]*/comm"):
        if lines_of(comm)[:1] != [_PROXY] or _namespace(comm.parent) != own:
            continue
        words = "".join(lines_of(comm.parent / "cmdline")[:1]).split("\0")
        options = {option.lstrip("-"): value for option, value in pairwise(words)}
        with suppress(KeyError, ValueError):
            proto = L4Proto(options["proto"])
            port, to = int(options["host-port"]), int(options["container-port"])
            if 0 < port < 65536 and 0 < to < 65536:
                address = ip_address(options["container-ip"])
                where, line = f"{_PROXY} {comm.parent.name}", " ".join(words[1:]).strip()
                yield PortMove(frozenset({proto}), 1 << port, 1 << to, address, where, line)


def _namespace(process: Path) -> str | None:
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:
        return None
