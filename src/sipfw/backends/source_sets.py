"""What the kernel's sets say about one source: in or not, for how long still, how often.

Asks for the one element, because whole sets are long; `set_members` reads those.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sipfw.backends import nft_elements
from sipfw.backends.limit_state import Standing, XtLimits
from sipfw.errors import BackendError
from sipfw.lower.naming import set_name
from sipfw.lower.nftables_match import NETS, SUFFIX
from sipfw.ruleset.match import L4Proto, SeenAtLeast
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from sipfw.backends.runner import Runner
    from sipfw.ruleset.model import AddressSet

IpAddress: TypeAlias = "IPv4Address | IPv6Address"

_PROC_NET = Path("/proc/net")
_NUMBERS = {L4Proto.UDP: 17, L4Proto.TCP: 6}


@dataclass(frozen=True, slots=True)
class Held:
    """A set's answer about one source.

    `present` is None where the kernel cannot tell; `left` in seconds, None for one that stays;
    `packets` is the entry's own counter, None where the set shows none.
    """

    present: bool | None
    left: float | None = None
    packets: int | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """Transport and source port: the further parts of a key that names them."""

    proto: L4Proto
    port: int


class SourceSets(Protocol):
    """The sets of one backend. Raises BackendError where the kernel does not let itself be read."""

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look a source up; `door` for a set whose elements have a port."""
        ...


class IpsetSets:
    """ipsets. A test does not count as a packet, and is an answer without a listing."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look a source up; only who is in a set with times costs a listing."""
        name = set_name(item.name, _family(source))
        key = str(source) if door is None else f"{source},{door.proto}:{door.port}"
        done = self._runner.run(["ipset", "test", name, key])
        if done.returncode != 0:
            if "is NOT in set" in done.stderr:
                return Held(present=False)
            if "does not exist" in done.stderr:
                return Held(None)
            raise BackendError(f"ipset: cannot read {name}: {done.stderr.strip()}")
        return self._times(name, source) if item.dynamic else Held(present=True)

    def _times(self, name: str, source: IpAddress) -> Held:
        listing = self._runner.run(["ipset", "save", name]).stdout
        start = f"add {name} {source} "
        line = next((line for line in listing.splitlines() if line.startswith(start)), start)
        words = line.removeprefix(start).split()
        options = dict(zip(words[::2], words[1::2], strict=False))
        left, packets = options.get("timeout"), options.get("packets")
        return Held(
            present=True,
            # 0 means that the element stays (ipset(8)).
            left=int(left) or None if left is not None else None,
            packets=None if packets is None else int(packets),
        )


class NftSets:
    """Sets of our nftables table."""

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look a source up. A set that is not there is as good as an empty one."""
        suffix, key = SUFFIX[_family(source)], source.packed
        if door is not None:
            key += bytes([_NUMBERS[door.proto], 0, 0, 0]) + door.port.to_bytes(2, "big") + b"\0\0"
        # Networks of a static set have a set of their own, see `lower.nftables_match.parts`.
        both = (item.name,) if item.dynamic or door is not None else (item.name, item.name + NETS)
        for name in both:
            found = nft_elements.element(name + suffix, key)
            if found is not None:
                return Held(present=True, left=found.left)
        return Held(present=False)


class RecentSets:
    """The xt_recent lists that stand in for sets on a host without ipset; see `lower.setless`."""

    def __init__(self, proc_net: Path = _PROC_NET) -> None:
        self._limits = XtLimits(proc_net)

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look a source up: it is in a list for as long as the set's timeout."""
        del door
        window = SeenAtLeast(item.name, 1, item.timeout or 0)
        table = self._limits.ask(window, source)
        if table is None:
            return Held(None)
        for bucket in table.buckets:
            if bucket.standing is Standing.UNKNOWN:
                return Held(None)
            return Held(bucket.standing is Standing.EXCEEDED, bucket.expires)
        return Held(present=False)


def source_sets(backend: str, runner: Runner, *, ipset: bool = True) -> SourceSets:
    """Return the sets of the backend of that name (`deploy.targets.target`)."""
    if backend == "nftables":
        return NftSets()
    return IpsetSets(runner) if ipset else RecentSets()


def _family(address: IpAddress) -> Family:
    return Family.IP if address.version == 4 else Family.IP6
