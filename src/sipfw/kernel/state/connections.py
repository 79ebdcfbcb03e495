"""How many tracked TCP connections a network holds.

The lists of connlimit and `ct count` cannot be read (nf_conncount). They hold no connection that
is not tracked, so what is counted here is the most that they hold.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.host.runner import MissingProgramError

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Network, IPv6Network

    from sipfw.host.runner import Runner
    from sipfw.ruleset.match import PortRange

# Reading more takes longer than an operator waits for one answer.
_MOST = 50_000

_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_PROC_NET = Path("/proc/net")
_ENTRY = re.compile(r"\btcp +6 \d+ (\w+) src=(\S+) dst=\S+ sport=\d+ dport=(\d+)")

# nf_conncount forgets these at its next look (already_closed in nf_conncount.c).
_CLOSED = {"TIME_WAIT", "CLOSE"}


def tcp_connections(
    network: IPv4Network | IPv6Network,
    ports: Collection[PortRange],
    runner: Runner,
    proc_net: Path = _PROC_NET,
) -> int | None:
    """Return the open connections of a network to these ports; None if nobody tells."""
    text = _listing(network.version, runner, proc_net)
    if text is None:
        return None
    return sum(
        state not in _CLOSED
        and any(item.first <= int(port) <= item.last for item in ports)
        and ip_address(source) in network
        for state, source, port in _ENTRY.findall(text)
    )


def _listing(version: int, runner: Runner, proc_net: Path) -> str | None:
    try:
        if int(_COUNT.read_text("ascii")) > _MOST:
            return None
        return (proc_net / "nf_conntrack").read_text("ascii", errors="replace")
    except (OSError, ValueError):
        # Many kernels leave the file out (CONFIG_NF_CONNTRACK_PROCFS).
        pass
    try:
        done = runner.run(["conntrack", "-L", "-p", "tcp", "-f", f"ipv{version}"])
    except MissingProgramError:
        return None
    return done.stdout if done.returncode == 0 else None
