"""What the kernel's sets say about one source: in or not, for how long still, how often.

Asks for the one element, because whole sets are long; `set_members` reads those. Only which ports
of a source are in a set nobody tells without a listing.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sipfw.errors import BackendError
from sipfw.kernel.netlink import elements as nft_elements
from sipfw.kernel.state.limits import Standing, XtLimits
from sipfw.kernel.xtables.ipset_text import elements_of
from sipfw.lower.naming import set_name
from sipfw.lower.nftables_match import SUFFIX, name_of_networks
from sipfw.ruleset.match import L4Proto, SeenAtLeast
from sipfw.ruleset.rule import Family
from sipfw.ruleset.source import Door, key_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.host.runner import Runner
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.model import AddressSet

_PROC_NET = Path("/proc/net")
_NUMBERS = {L4Proto.UDP: 17, L4Proto.TCP: 6}
_PROTOS = {number: proto for proto, number in _NUMBERS.items()}
_BYTES = {Family.IP: 4, Family.IP6: 16}
Target: TypeAlias = "tuple[IpAddress, Door]"
# As many as nf_tables lists in a tenth of a second.
_MOST = 20_000


@dataclass(frozen=True, slots=True)
class Held:
    """A set's answer about one source.

    `present` is None where the kernel cannot tell; `left` in seconds, None for one that stays;
    `packets` and `bytes` are the entry's own counters, None where the set shows none.
    """

    present: bool | None
    left: float | None = None
    packets: int | None = None
    bytes: int | None = None


class SourceSets(Protocol):
    """The sets of one backend. Raises BackendError where the kernel does not let itself be read.

    `first_counts` is how often the packet that makes an entry of a counted set is counted by the
    time that the next rule looks at it; 0 where there are no such entries.
    """

    @property
    def first_counts(self) -> int:
        """Return how often a packet is counted that makes an entry and then looks at it."""
        ...

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look a source up; `door` for a set whose elements have a port."""
        ...

    def doors(self, item: AddressSet, source: IpAddress) -> Mapping[Door, Held] | None:
        """Return what a set of endpoints holds of an address; None where it is too long to read.

        Raises LookupError where the lists of this backend know no ports; ask `held` then.
        """
        ...

    def vacant(self, item: AddressSet, family: Family) -> bool | None:
        """Tell whether a set holds nothing at all; None where nobody tells."""
        ...

    def targets(self, name: str) -> Mapping[Target, Held]:
        """Return all that a set of targets holds; nothing where there is no such set."""
        ...


class IpsetSets:
    """ipsets. A test does not count as a packet, and is an answer without a listing."""

    first_counts = 2

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look a source up; only who is in a set with times costs a listing."""
        name = set_name(item.name, _family(source))
        address = key_address(source, item.prefix) if item.dynamic else source
        key = str(address) if door is None else f"{address},{door.proto}:{door.port}"
        done = self._runner.run(["ipset", "test", name, key])
        if done.returncode != 0:
            if "is NOT in set" in done.stderr:
                return Held(present=False)
            if "does not exist" in done.stderr:
                return Held(None)
            raise BackendError(f"ipset: cannot read {name}: {done.stderr.strip()}")
        if not item.dynamic:
            return Held(present=True)
        found = (words[1:] for words in self._elements(name) if words[0] == key)
        return _entry(next(found, []))

    def doors(self, item: AddressSet, source: IpAddress) -> Mapping[Door, Held] | None:
        """Return what a set of endpoints holds of an address."""
        name, start = set_name(item.name, _family(source)), f"{source},"
        return {
            _door(words[0].removeprefix(start)): _entry(words[1:])
            for words in self._elements(name)
            if words[0].startswith(start)
        }

    def vacant(self, item: AddressSet, family: Family) -> bool | None:
        """Tell whether a set holds nothing at all."""
        return not self._elements(set_name(item.name, family))

    def targets(self, name: str) -> Mapping[Target, Held]:
        """Return all that a set of targets holds."""
        found = {}
        for family in Family:
            for words in self._elements(set_name(name, family)):
                address, _, door = words[0].partition(",")
                found[ip_address(address), _door(door)] = _entry(words[1:])
        return found

    def _elements(self, name: str) -> list[list[str]]:
        """Return the words of each element. A set that is gone by now is as good as empty."""
        listing = self._runner.run(["ipset", "save", name]).stdout
        return [line.split() for line in elements_of(listing)]


def _door(text: str) -> Door:
    proto, _, port = text.partition(":")
    return Door(L4Proto(proto), int(port))


def _entry(words: list[str]) -> Held:
    options = dict(zip(words[::2], words[1::2], strict=False))
    left, packets, volume = (options.get(name) for name in ("timeout", "packets", "bytes"))
    return Held(
        present=True,
        # 0 means that the element stays (ipset(8)).
        left=int(left) or None if left is not None else None,
        packets=None if packets is None else int(packets),
        bytes=None if volume is None else int(volume),
    )


class NftSets:
    """Sets of our nftables table; `names` are those of all sets of the ruleset."""

    first_counts = 1

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look a source up. A set that is not there is as good as an empty one."""
        suffix = SUFFIX[_family(source)]
        key = (key_address(source, item.prefix) if item.dynamic else source).packed
        if door is not None:
            key += bytes([_NUMBERS[door.proto], 0, 0, 0]) + door.port.to_bytes(2, "big") + b"\0\0"
        # Networks of a static set have a set of their own, see `lower.nftables_match.parts`.
        names = [item.name]
        if not item.dynamic and door is None:
            names.append(name_of_networks(item.name, self._names))
        for name in names:
            found = nft_elements.element(name + suffix, key)
            if found is not None:
                return Held(present=True, left=found.left)
        return Held(present=False)

    def doors(self, item: AddressSet, source: IpAddress) -> Mapping[Door, Held] | None:
        """Return what a set of endpoints holds of an address; the kernel lists whole sets only."""
        every = nft_elements.elements(item.name + SUFFIX[_family(source)], _MOST)
        if len(every) >= _MOST:
            return None
        size = len(source.packed)
        return {
            nft_door(each.key[size:]): Held(present=True, left=each.left)
            for each in every
            if each.key.startswith(source.packed)
        }

    def vacant(self, item: AddressSet, family: Family) -> bool | None:
        """Tell whether a set holds nothing at all."""
        return not nft_elements.elements(item.name + SUFFIX[family], 1)

    def targets(self, name: str) -> Mapping[Target, Held]:
        """Return all that a set of targets holds."""
        found = {}
        for family in Family:
            size = _BYTES[family]
            for each in nft_elements.elements(name + SUFFIX[family], _MOST):
                key = ip_address(each.key[:size]), nft_door(each.key[size:])
                found[key] = Held(present=True, left=each.left, packets=each.packets)
        return found


def nft_door(rest: bytes) -> Door:
    """Read what follows the address in the key of an endpoint: each part fills whole words."""
    return Door(_PROTOS[rest[0]], int.from_bytes(rest[4:6], "big"))


class RecentSets:
    """The xt_recent lists that stand in for sets, see `sipfw.lower.without_ipset`."""

    # Bytes are not counted there, and the packets of a list are asked by its own rules.
    first_counts = 0

    def __init__(self, proc_net: Path = _PROC_NET) -> None:
        self._limits = XtLimits(proc_net)
        self._proc_net = proc_net

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look a source up: it is in a list for as long as the set's timeout."""
        del door
        window = SeenAtLeast(item.name, 1, item.timeout or 0, prefix=item.prefix)
        table = self._limits.ask(window, source)
        if table is None:
            return Held(None)
        for bucket in table.buckets:
            if bucket.standing is Standing.UNKNOWN:
                return Held(None)
            return Held(bucket.standing is Standing.EXCEEDED, bucket.expires)
        return Held(present=False)

    def doors(self, item: AddressSet, source: IpAddress) -> Mapping[Door, Held] | None:
        """Raise LookupError: what is kept by endpoint elsewhere is kept by address here."""
        raise LookupError(f"{item.name} knows no ports of {source}")

    def vacant(self, item: AddressSet, family: Family) -> bool | None:
        """Tell whether a list is empty; None where it is not, as it keeps who was in it."""
        try:
            text = (self._proc_net / "xt_recent" / set_name(item.name, family)).read_text("ascii")
        except (OSError, ValueError):
            return None
        return None if text else True

    def targets(self, name: str) -> Mapping[Target, Held]:
        """Return nothing: no list stands in for such a set."""
        del name
        return {}


def _family(address: IpAddress) -> Family:
    return Family.IP if address.version == 4 else Family.IP6
