"""Peers' host names to addresses, with a deadline, distrusting the answer."""

from __future__ import annotations

import queue
import socket
import threading
import time
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING

from sipfw.policy.types import Hostname

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sipfw.policy.model import Policy

Address = IPv4Network | IPv6Network

# A resolver that is down answers after 5 s times its attempts (resolv.conf(5)); an apply does not
# wait longer than this for all names together.
DEADLINE = 8.0

# More addresses than this behind one name is no carrier but a mistake or an attack.
_MOST_ADDRESSES = 64

# "This network" and the reserved class with the broadcast address (RFC 6890, 2.2.2): the policy
# file may not name them either.
_NEVER_A_SOURCE = frozenset({0, *range(240, 256)})


@dataclass(frozen=True, slots=True)
class Stale:
    """A name that has no answer now; what it meant `age` seconds ago stands in for it.

    `age` is None where the clock has gone back since.
    """

    name: str
    reason: str
    age: float | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """Addresses by name, and the names that have none with the reason.

    The addresses of `stale` names are the last good ones.
    """

    addresses: Mapping[str, tuple[Address, ...]]
    failures: tuple[tuple[str, str], ...]
    stale: tuple[Stale, ...] = ()


def host_names(policy: Policy) -> list[str]:
    """List the host names of a policy's peers, sorted, each once."""
    names = {
        entry.name
        for peer in policy.trusted_peers
        for entry in peer.signalling
        if isinstance(entry, Hostname)
    }
    return sorted(names)


def ask_dns(name: str) -> list[str]:
    """Return a name's addresses by the host's resolver. Raises OSError or UnicodeError."""
    answers = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    return [str(answer[4][0]) for answer in answers]


def resolve(
    names: Iterable[str],
    *,
    deadline: float = DEADLINE,
    lookup: Callable[[str], list[str]] = ask_dns,
) -> Resolution:
    """Look all names up at once. Never raises for a name: it lands in `failures`."""
    wanted = list(names)
    answers: queue.Queue[tuple[str, list[str] | str]] = queue.Queue()
    for name in wanted:
        # Daemon threads: one that hangs in the C library must not keep the command from ending.
        threading.Thread(target=_ask, args=(name, lookup, answers), daemon=True).start()
    end = time.monotonic() + deadline
    found: dict[str, tuple[Address, ...]] = {}
    failed: dict[str, str] = dict.fromkeys(wanted, "no answer in time")
    for _ in wanted:
        try:
            name, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        usable = answer if isinstance(answer, str) else _usable(answer)
        if isinstance(usable, str):
            failed[name] = usable
        else:
            found[name] = usable
            del failed[name]
    return Resolution(
        {name: found[name] for name in wanted if name in found}, tuple(sorted(failed.items()))
    )


def _ask(
    name: str,
    lookup: Callable[[str], list[str]],
    answers: queue.Queue[tuple[str, list[str] | str]],
) -> None:
    try:
        answers.put((name, lookup(name)))
    except (OSError, UnicodeError) as error:
        answers.put((name, getattr(error, "strerror", None) or str(error)))


def may_be_a_peer(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether packets can come from an address at all."""
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return False
    return address.version == 6 or int(address) >> 24 not in _NEVER_A_SOURCE


def _usable(texts: list[str]) -> tuple[Address, ...] | str:
    """Keep what may be a peer; a name that points to 0.0.0.0 or loopback is parked."""
    found = (ip_address(text.partition("%")[0]) for text in texts)
    addresses = {getattr(address, "ipv4_mapped", None) or address for address in found}
    kept = sorted((ip_network(address) for address in addresses if may_be_a_peer(address)), key=str)
    if not kept:
        return "the answer holds no usable address"
    if len(kept) > _MOST_ADDRESSES:
        return f"the answer holds {len(kept)} addresses"
    return tuple(kept)
