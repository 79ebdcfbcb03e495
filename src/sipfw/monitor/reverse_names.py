"""Names of sources by reverse DNS, on request only: an attacker may own the answer.

A name is cut to what a host name may hold, so that it cannot steer a terminal, and nobody waits
for a slow name server longer than a few seconds in all.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from queue import Empty, Queue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

_SECONDS = 4.0
_AT_ONCE = 16
_LONGEST = 80
_STRANGE = re.compile(r"[^A-Za-z0-9._-]")


def reverse_names(
    networks: Sequence[IPv4Network | IPv6Network],
    lookup: Callable[[str], str] | None = None,
    seconds: float = _SECONDS,
) -> dict[str, str]:
    """Return the names of single addresses by network; those without an answer are left out."""
    ask = lookup or _ask_dns
    waiting: Queue[IPv4Network | IPv6Network] = Queue()
    for network in networks:
        if network.num_addresses == 1:
            waiting.put(network)
    found: dict[str, str] = {}

    def work() -> None:
        while True:
            try:
                network = waiting.get_nowait()
            except Empty:
                return
            try:
                name = ask(str(network.network_address))
            except OSError:
                continue
            found[str(network)] = _STRANGE.sub("?", name)[:_LONGEST]

    # Daemons: the resolver cannot be interrupted, and the command must end.
    workers = [
        threading.Thread(target=work, daemon=True) for _ in range(min(_AT_ONCE, waiting.qsize()))
    ]
    for worker in workers:
        worker.start()
    until = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(until - time.monotonic(), 0.0))
    return dict(found)


def _ask_dns(address: str) -> str:
    return socket.gethostbyaddr(address)[0]
