"""Members of our dynamic sets: who is in, for how long still; in and out by hand.

Sets are named as the ruleset names them. One question reads whole sets, because ipset tells the
time that is left of an element only in a listing, and a listing of 10,000 takes some 30 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sipfw.errors import BackendError
from sipfw.kernel.netlink import elements as nft_elements
from sipfw.kernel.state.sources import nft_door
from sipfw.kernel.xtables.ipset_text import elements_of
from sipfw.lower.naming import set_name
from sipfw.lower.nftables_plan import TABLE
from sipfw.ruleset.match import L4Proto
from sipfw.ruleset.rule import Family
from sipfw.ruleset.source import Door

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from sipfw.host.runner import Completed, Runner
    from sipfw.ruleset.addresses import IpAddress


_TIMEOUT = 30.0
_EVERY = 1 << 32


@dataclass(frozen=True, slots=True)
class Member:
    """One address in a set; `left` in seconds, None for one that stays.

    It is the first one of a prefix where the set keeps sources so. `packets` is the entry's own
    counter, None where the set has none; `door` is the rest of an endpoint.
    """

    address: IpAddress
    left: int | None = None
    packets: int | None = None
    door: Door | None = None


@dataclass(frozen=True, slots=True)
class SetEntry:
    """An address to be put into the set of that name, for so many seconds."""

    set: str
    address: IpAddress
    seconds: int


@dataclass(frozen=True, slots=True)
class SetRemoval:
    """An address, or an endpoint, to be taken out of the set of that name, if it is in."""

    set: str
    address: IpAddress
    door: Door | None = None


class Members(Protocol):
    """The dynamic sets of one backend."""

    def read(self, names: Iterable[str]) -> dict[str, tuple[Member, ...]]:
        """Return the members of both families by set.

        A set that is not there is left out, or as good as an empty one.
        """
        ...

    def edit(self, edits: Sequence[SetEntry | SetRemoval]) -> None:
        """Put in and take out, in this order. An address that is in gets its new time.

        Raises BackendError; nftables has then changed nothing, ipset what stood before the fault.
        """
        ...


class IpsetMembers:
    """Members of ipsets."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def read(self, names: Iterable[str]) -> dict[str, tuple[Member, ...]]:
        """Return the members of both families by set."""
        return _both_families(names, self._members)

    def edit(self, edits: Sequence[SetEntry | SetRemoval]) -> None:
        """Put in and take out."""
        if not edits:
            return
        text = "".join(f"{_ipset_line(edit)}\n" for edit in edits)
        done = self._runner.run(["ipset", "restore", "-exist"], stdin=text, timeout=_TIMEOUT)
        _require(done, "ipset")

    def _members(self, name: str, family: Family) -> tuple[Member, ...] | None:
        done = self._runner.run(["ipset", "save", set_name(name, family)], timeout=_TIMEOUT)
        if done.returncode != 0:
            if "does not exist" in done.stderr:
                return None
            raise BackendError(f"ipset: cannot read {name}: {done.stderr.strip()}")
        return tuple(_ipset_member(item) for item in elements_of(done.stdout))


class NftMembers:
    """Members of the sets of our nftables table."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def read(self, names: Iterable[str]) -> dict[str, tuple[Member, ...]]:
        """Return the members of both families by set."""
        return _both_families(names, self._members)

    def edit(self, edits: Sequence[SetEntry | SetRemoval]) -> None:
        """Put in and take out, in one transaction."""
        if not edits:
            return
        present = self.read({edit.set for edit in edits})
        inside = {
            name: {(item.address, item.door) for item in members}
            for name, members in present.items()
        }
        lines = [line for edit in edits for line in _nft_lines(edit, inside)]
        text = "".join(f"{line}\n" for line in lines)
        _require(self._runner.run(["nft", "-f", "-"], stdin=text, timeout=_TIMEOUT), "nft")

    def _members(self, name: str, family: Family) -> tuple[Member, ...]:
        # nft would read all sets of the table before it answers about one.
        found = nft_elements.elements(nft_set_name(name, family), _EVERY)
        size = 4 if family is Family.IP else 16
        return tuple(_nft_member(item, size) for item in found)


def _both_families(
    names: Iterable[str], read: Callable[[str, Family], tuple[Member, ...] | None]
) -> dict[str, tuple[Member, ...]]:
    """Join the members of both families; a set that is there in neither is left out."""
    found: dict[str, tuple[Member, ...]] = {}
    for name in names:
        for family in Family:
            members = read(name, family)
            if members is not None:
                found[name] = found.get(name, ()) + members
    return found


def nft_set_name(name: str, family: Family) -> str:
    """Return the name of a set of ours in our nftables table."""
    return f"{name}{4 if family is Family.IP else 6}"


def _family(address: IpAddress) -> Family:
    return Family.IP if address.version == 4 else Family.IP6


def _ipset_member(text: str) -> Member:
    """Read `192.0.2.1 timeout 59 packets 3 bytes 900`, or `192.0.2.1,udp:5060 timeout 59`."""
    key, *words = text.split()
    address, _, end = key.partition(",")
    proto, _, port = end.partition(":")
    options = dict(zip(words[::2], words[1::2], strict=False))
    left, packets = options.get("timeout"), options.get("packets")
    return Member(
        ip_address(address),
        # 0 means that the element stays (ipset(8)).
        int(left) or None if left is not None else None,
        None if packets is None else int(packets),
        Door(L4Proto(proto), int(port)) if end else None,
    )


def _ipset_line(edit: SetEntry | SetRemoval) -> str:
    name = set_name(edit.set, _family(edit.address))
    if isinstance(edit, SetEntry):
        return f"add {name} {edit.address} timeout {edit.seconds}"
    end = "" if edit.door is None else f",{edit.door.proto}:{edit.door.port}"
    return f"del {name} {edit.address}{end}"


def _nft_member(item: nft_elements.Element, size: int) -> Member:
    """Read an element whose key is an address, or an address with a transport and a port."""
    address, door = ip_address(item.key[:size]), None
    if len(item.key) > size:
        door = nft_door(item.key[size:])
    return Member(address, None if item.left is None else int(item.left), item.packets, door)


_NftKey: TypeAlias = "tuple[IpAddress, Door | None]"


def _nft_lines(edit: SetEntry | SetRemoval, inside: dict[str, set[_NftKey]]) -> Iterator[str]:
    """Say an edit to nft.

    An element that is there keeps its time when it is added again, so it is taken out first, in
    the same transaction. Taking out what is not there is an error, and it may have expired since
    it was read: adding it before makes sure.
    """
    members = inside.setdefault(edit.set, set())
    place = f"inet {TABLE} {nft_set_name(edit.set, _family(edit.address))}"
    door = edit.door if isinstance(edit, SetRemoval) else None
    end = "" if door is None else f" . {door.proto} . {door.port}"
    if (edit.address, door) in members:
        yield f"add element {place} {{ {edit.address}{end} }}"
        yield f"delete element {place} {{ {edit.address}{end} }}"
    if isinstance(edit, SetRemoval):
        members.discard((edit.address, door))
        return
    members.add((edit.address, None))
    yield f"add element {place} {{ {edit.address} timeout {edit.seconds}s }}"


def _require(done: Completed, program: str) -> None:
    if done.returncode == 0:
        return
    lines: Collection[str] = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = next(iter(lines), f"exit status {done.returncode}")
    raise BackendError(f"{program}: {said}", hint="see sipfw verify: a set may be gone or full")
