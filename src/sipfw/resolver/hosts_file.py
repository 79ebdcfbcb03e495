"""The names in /etc/hosts: what root has written there counts before DNS, as for every program."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipfw.ruleset.addresses import IpAddress

HOSTS = Path("/etc/hosts")
# Lists against advertising have a hundred thousand lines and 3 MB.
_LARGEST = 1 << 24


def read_hosts(path: Path = HOSTS) -> dict[str, tuple[IpAddress, ...]]:
    """Return addresses by name in lower case; what is no entry is left out, see hosts(5)."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST).decode("ascii", "replace")
    except OSError:
        return {}
    found: dict[str, dict[IpAddress, None]] = {}
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = ip_address(words[0].partition("%")[0])
        except ValueError:
            continue
        for name in words[1:]:
            found.setdefault(name.rstrip(".").lower(), {})[address] = None
    return {name: tuple(addresses) for name, addresses in found.items()}
