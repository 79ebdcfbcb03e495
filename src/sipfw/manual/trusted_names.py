"""Host names that are trusted for a time: one file of root's, and the guests that they bring.

The book of trusts holds addresses; this file says which of them a name has brought, so that they
can go with the name's answers. Times are seconds since 1970.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.manual import MOST_GUESTS
from sipfw.deploy.manual_list import Book, ManualEntry, checked_reason
from sipfw.deploy.names.resolve import TRUSTS, may_be_a_peer, name_of
from sipfw.host.files import cannot_write, read_private, write_atomically
from sipfw.host.privilege import WHO
from sipfw.kernel.state.members import SetEntry, SetRemoval
from sipfw.manual.addresses import trusted_already
from sipfw.manual.ban_sets import COUNTED, KEPT_OUT, exits
from sipfw.manual.change import Order, carry_out_order
from sipfw.plain_data import from_plain, to_plain
from sipfw.policy.types import is_host_name
from sipfw.ruleset.addresses import IpAddress  # noqa: TC001 - an annotation that is read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sipfw.deploy.names.resolve import Address
    from sipfw.host.files import Layout
    from sipfw.manual.change import InForce

FORMAT = 1
MOST_NAMES = 64
_LAST_MOMENT = 1 << 36


@dataclass(frozen=True, slots=True)
class TrustedName:
    """A name, as `Hostname.key` has it, and the addresses it has brought into the book."""

    key: str
    since: int
    until: int
    reason: str
    who: str
    brought: tuple[IpAddress, ...] = ()

    def guest(self, address: IpAddress) -> ManualEntry:
        """Return the entry of an address in the book."""
        return ManualEntry(address, self.since, self.until, self.reason, self.who)


def read_trusted_names(layout: Layout, *, now: float | None = None) -> dict[str, TrustedName]:
    """Return the names whose time has not come, by key. A file that cannot be read has none."""
    moment = time.time() if now is None else now
    try:
        data = json.loads(read_private(layout.trusted_names))
    except (OSError, ValueError, RecursionError):
        return {}
    items = data.get("names") if isinstance(data, dict) and data.get("format") == FORMAT else None
    found = [_read(item) for item in items] if isinstance(items, list) else []
    return {item.key: item for item in found if item is not None and item.until > moment}


def write_trusted_names(layout: Layout, found: Mapping[str, TrustedName]) -> None:
    """Replace the file; without a name there is none. Raises BackendError."""
    path = layout.trusted_names
    if not found:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        return
    items = [to_plain(item) for item in found.values()]
    for item in items:
        item["name"] = item.pop("key")
    write_atomically(path, json.dumps({"format": FORMAT, "names": items}, indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class Followed:
    """What an answer about trusted names orders; `after` is what the file says then."""

    order: Order
    after: Mapping[str, TrustedName]
    texts: tuple[str, ...] = ()


def follow_trusts(layout: Layout, addresses: Mapping[str, tuple[Address, ...]]) -> tuple[str, ...]:
    """Bring the guests of trusted names to these addresses; say what has changed.

    A name that is not in `addresses` keeps what it has.
    """
    if not read_trusted_names(layout):
        return ()
    done: list[Followed] = []

    def decide(now: InForce) -> Order:
        found = read_trusted_names(layout)
        # A refresh makes no rules: behind a rollback there may be none for guests.
        text = "the rules in force have no place for trusted names; sipfw trust makes it"
        nothing = Followed(Order({}, ()), found, (text,))
        known = now.has(names.SET_GUESTS)
        done.append(followed_names(now, found, addresses) if known else nothing)
        return done[-1].order

    carry_out_order(layout, decide)
    write_trusted_names(layout, done[-1].after)
    return done[-1].texts


def followed_names(
    now: InForce, found: Mapping[str, TrustedName], addresses: Mapping[str, tuple[Address, ...]]
) -> Followed:
    """Return what these names mean for the book and the set."""
    book = now.pages[Book.TRUSTS].entries
    brought = {address for item in found.values() for address in item.brought}
    owners = trusted_already(now.ruleset)
    after = {}
    for key, item in found.items():
        networks = addresses.get(key)
        current = item.brought if networks is None else [n.network_address for n in networks]
        # What is trusted by hand by its own address stays as it was ordered.
        mine = [a for a in current if (a in brought or a not in book) and owners.of(a) is None]
        after[key] = replace(item, brought=tuple(mine))
    wanted = {
        address: item.guest(address)
        for item in sorted(after.values(), key=lambda item: item.until)
        for address in item.brought
    }
    gone = [address for address in brought if address not in wanted]
    if _too_many({*wanted, *(address for address in book if address not in gone)}):
        return Followed(Order({}, ()), found, (f"no room: {MOST_GUESTS:,} are trusted for a time",))
    fresh = {address: kept for address, kept in wanted.items() if book.get(address) != kept}
    changes: dict[IpAddress, ManualEntry | None] = {**fresh}
    changes |= {address: None for address in gone if address in book}
    edits: list[SetEntry | SetRemoval] = [
        SetEntry(names.SET_GUESTS, address, _left(kept)) for address, kept in fresh.items()
    ]
    edits += [
        SetRemoval(names.SET_GUESTS, address) for address in gone if now.has(names.SET_GUESTS)
    ]
    edits += exits(now, (*KEPT_OUT, *COUNTED), {now.key(address) for address in fresh})
    return Followed(
        Order({Book.TRUSTS: changes}, tuple(edits)),
        after,
        (
            *(f"trusted for a time by its name: {a}" for a in wanted if a not in brought),
            *(f"trusted no longer, its name has moved on: {address}" for address in gone),
        ),
    )


def name_that_brought(found: Mapping[str, TrustedName], address: IpAddress) -> str | None:
    """Return the bare name behind a guest."""
    return next((name_of(key) for key, item in found.items() if address in item.brought), None)


def disown(layout: Layout, addresses: Iterable[IpAddress]) -> None:
    """Note that these are trusted by their own address now: no name takes them out again."""
    found, own = read_trusted_names(layout), set(addresses)
    if any(own & set(item.brought) for item in found.values()):
        after = {
            key: replace(item, brought=tuple(a for a in item.brought if a not in own))
            for key, item in found.items()
        }
        write_trusted_names(layout, after)


def asked_for_trust(keys: Iterable[str]) -> dict[str, str]:
    """Return the names with the field that `resolve_or_recall` wants."""
    return dict.fromkeys(keys, TRUSTS)


def _too_many(addresses: Iterable[IpAddress]) -> bool:
    count = Counter(address.version for address in addresses)
    return any(number > MOST_GUESTS for number in count.values())


def _left(kept: ManualEntry) -> int:
    return max(kept.left(time.time()), 1)


def _read(item: object) -> TrustedName | None:
    """Return an entry; None for one that this module did not write."""
    if not isinstance(item, dict):
        return None
    try:
        plain = {"key" if name == "name" else name: value for name, value in item.items()}
        found = from_plain(plain, TrustedName)
        found = replace(found, reason=checked_reason(found.reason))
    except ValueError:
        return None
    sound = (
        is_host_name(name_of(found.key))
        and all(may_be_a_peer(address) for address in found.brought)
        and 0 <= found.since < found.until < _LAST_MOMENT
        and WHO.fullmatch(found.who) is not None
    )
    return found if sound else None
