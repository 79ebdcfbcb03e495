"""How many tracked TCP connections a network holds, and who talks SIP with this host.

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
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from sipfw.host.runner import Runner
    from sipfw.ruleset.match import PortRange

# Reading more takes longer than an operator waits for one answer.
_MOST = 50_000

_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_PROC_NET = Path("/proc/net")
_ENTRY = re.compile(r"\btcp +6 \d+ (\w+) src=(\S+) dst=\S+ sport=\d+ dport=(\d+)")
_TALK = re.compile(
    r"\b(?:udp|tcp) +\d+ \d+ (?:[A-Z_0-9]+ )?src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)"
    r".*\[ASSURED\]"
)

# nf_conncount forgets these at its next look (already_closed in nf_conncount.c).
_CLOSED = {"TIME_WAIT", "CLOSE"}


def tcp_connections(
    network: IPv4Network | IPv6Network,
    ports: Collection[PortRange],
    runner: Runner,
    proc_net: Path = _PROC_NET,
) -> int | None:
    """Return the open connections of a network to these ports; None if nobody tells."""
    text = _listing("tcp", network.version, runner, proc_net)
    if text is None:
        return None
    return sum(
        state not in _CLOSED
        and any(item.first <= int(port) <= item.last for item in ports)
        and ip_address(source) in network
        for state, source, port in _ENTRY.findall(text)
    )


def sip_talkers(
    own: Collection[IPv4Address | IPv6Address],
    ports: Collection[PortRange],
    runner: Runner,
    proc_net: Path = _PROC_NET,
) -> list[IPv4Address | IPv6Address] | None:
    """Return who talks with the SIP ports of this host, in both directions; None if nobody tells.

    ASSURED, packets both ways (nf_conntrack_proto_udp.c), is no proof of a friend: a scanner that
    is answered is so, too.
    """
    texts = [
        _listing(proto, version, runner, proc_net) for proto in ("udp", "tcp") for version in (4, 6)
    ]
    if None in texts:
        return None
    found: dict[IPv4Address | IPv6Address, None] = {}
    for text in {item for item in texts if item is not None}:
        for first, second, *numbers in _TALK.findall(text):
            if any(item.first <= int(number) <= item.last for number in numbers for item in ports):
                ends = ip_address(first), ip_address(second)
                if (ends[0] in own) != (ends[1] in own):
                    found[ends[ends[0] in own]] = None
    return sorted(found, key=lambda item: (item.version, int(item)))


def _listing(proto: str, version: int, runner: Runner, proc_net: Path) -> str | None:
    try:
        if int(_COUNT.read_text("ascii")) > _MOST:
            return None
        return (proc_net / "nf_conntrack").read_text("ascii", errors="replace")
    except (OSError, ValueError):
        # Many kernels leave the file out (CONFIG_NF_CONNTRACK_PROCFS).
        pass
    try:
        done = runner.run(["conntrack", "-L", "-p", proto, "-f", f"ipv{version}"])
    except MissingProgramError:
        return None
    return done.stdout if done.returncode == 0 else None
