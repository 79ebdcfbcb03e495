"""One order by hand from its checks to the kernel: the rules it needs, the book, the sets.

All of it under one lock, so that no apply can come between. When the sets cannot be changed, the
book is as it was; a rule that was made for nothing stays, and drops and trusts nobody.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.collapsed import collapsed
from sipfw.compiler.context import Context
from sipfw.compiler.layers.sets import all_sets
from sipfw.compiler.manual import with_by_hand
from sipfw.deploy.activate import current, stored
from sipfw.deploy.applied import read_applied
from sipfw.deploy.apply import outcome_of
from sipfw.deploy.generations import Content, Damaged, prune, write_generation
from sipfw.deploy.journal import Journal
from sipfw.deploy.lists.sets import feed_of, read_policy, without_lists
from sipfw.deploy.manual_list import Book, by_hand, by_source, read_page, write_page
from sipfw.deploy.names.cache import read_names, recalled
from sipfw.deploy.names.resolve import host_names
from sipfw.deploy.none_active import HINT, NOTHING
from sipfw.deploy.repair import settle, unfinished
from sipfw.deploy.transaction import carry_out, signals_later
from sipfw.errors import BackendError
from sipfw.host.files import require_writable
from sipfw.host.locks import state_lock
from sipfw.host.privilege import require_root
from sipfw.kernel.backend import Options, backend_of
from sipfw.kernel.state.members import SetEntry
from sipfw.policy.merge import Origins
from sipfw.ruleset.source import key_address, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sipfw.deploy.activate import Firewall
    from sipfw.deploy.apply import ApplyOutcome
    from sipfw.deploy.manual_list import ManualEntry, ManualList
    from sipfw.host.files import Layout
    from sipfw.kernel.state.members import Members, SetRemoval
    from sipfw.policy.model import Policy
    from sipfw.policy.types import Network
    from sipfw.ruleset.addresses import IpAddress, IpNetwork
    from sipfw.ruleset.match import PrefixLengths
    from sipfw.ruleset.model import AddressSet, Ruleset

# How long another command may hold the lock: an apply takes a second or two.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class InForce:
    """The firewall in force: what it was made of, its sets, and what was done to them by hand.

    `addresses` are the last good ones of the policy's host names, `prefix` is how much of an
    address is one source to a ban.
    """

    firewall: Firewall
    policy: Policy
    addresses: Mapping[str, tuple[Network, ...]]
    members: Members
    pages: Mapping[Book, ManualList]
    prefix: PrefixLengths

    @property
    def set_kind(self) -> str:
        """Name the kind of sets that this firewall has."""
        return backend_of(self.firewall.backend).facts.sets

    @property
    def ruleset(self) -> Ruleset:
        """Return the rules as the generation keeps them."""
        return self.firewall.ruleset

    def has(self, name: str) -> bool:
        """Tell whether this firewall has the set of that name."""
        return any(item.name == name for item in self.ruleset.sets)

    def source(self, address: IpAddress) -> IpNetwork:
        """Return whom a ban of this address is about."""
        return source_of(address, self.prefix)

    def shown(self, address: IpAddress) -> IpAddress | IpNetwork:
        """Return the same as people write it: one address bare."""
        found = self.source(address)
        return address if found.num_addresses == 1 else found

    def key(self, address: IpAddress) -> IpAddress:
        """Return the address under which sets and the book of bans keep that source."""
        return key_address(address, self.prefix)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to change: in the books, where None takes an address out, and then in the sets."""

    books: Mapping[Book, Mapping[IpAddress, ManualEntry | None]]
    edits: tuple[SetEntry | SetRemoval, ...]


@dataclass(frozen=True, slots=True)
class Obeyed:
    """What was ordered, and what that has brought with it.

    `made` is the new generation where rules were missing, `prefix` how much of an address is one
    source to a ban.
    """

    order: Order
    notes: tuple[str, ...]
    prefix: PrefixLengths
    made: ApplyOutcome | None = None


def in_force(layout: Layout) -> InForce:
    """Return what is live. Raises BackendError where nothing is, or it has no sets."""
    require_root()
    applied = read_applied(layout)
    if applied is None:
        raise BackendError(NOTHING, hint=HINT)
    if applied.generation is None:
        raise BackendError(
            "what is live was applied by an older sipfw, which did not keep its policy",
            hint="apply again",
        )
    firewall = stored(layout, applied.generation)
    if isinstance(firewall, Damaged):
        raise BackendError(
            f"generation {firewall.number} is damaged: {firewall.reason}", hint="apply again"
        )
    policy = read_policy(layout, firewall.generation)
    prefix = banned_prefix(firewall.ruleset) or Context(policy, Origins()).source
    return InForce(
        firewall,
        policy,
        recalled(host_names(policy), read_names(layout)).addresses,
        backend_of(firewall.backend, ipset=firewall.ipset).members(),
        {book: _page(layout, book, prefix) for book in Book},
        prefix,
    )


def banned_prefix(ruleset: Ruleset) -> PrefixLengths | None:
    """Return how much of an address these rules ban; None where nobody can be banned yet."""
    found = {item.name: item.prefix for item in ruleset.sets}
    return found.get(names.SET_BLOCKED, found.get(names.SET_BANNED))


def _page(layout: Layout, book: Book, prefix: PrefixLengths) -> ManualList:
    """Read a book. Trust is about one address, whatever a source is to the rules."""
    page = read_page(layout, book)
    return by_source(page, prefix) if book is Book.BANS else page


def carry_out_order(
    layout: Layout,
    decide: Callable[[InForce], Order],
    done: Callable[[InForce, Order], None] | None = None,
) -> Obeyed:
    """Do what `decide` orders; it raises for what must not be.

    Where rules have to be made first it is asked once more, because that takes seconds. `done` is
    told of an order that was carried out, still under the lock.
    """
    # Before the lock, which would make the state folder.
    in_force(layout)
    with signals_later(), state_lock(layout, _PATIENCE):
        notes = _settle_the_dead(layout)
        now = in_force(layout)
        order = decide(now)
        made = None
        if lacking := _lacking(now, order):
            made = _with_rules(layout, now, lacking)
            now = in_force(layout)
            order = decide(now)
        before = _write(layout, order.books, now.prefix)
        try:
            now.members.edit(order.edits)
        except BaseException:
            with suppress(BackendError):
                _write(layout, before, now.prefix)
            raise
        if done is not None:
            done(now, order)
    faults = tuple(str(fault) for book in order.books for fault in now.pages[book].faults)
    return Obeyed(order, (*notes, *faults), now.prefix, made)


def refuse(faults: Iterable[str]) -> None:
    """Raise BackendError with one line each, if there are any."""
    lines = list(faults)
    if lines:
        raise BackendError("\n".join([*lines, "nothing was changed"]))


def _lacking(now: InForce, order: Order) -> list[Book]:
    needed = {edit.set for edit in order.edits if isinstance(edit, SetEntry)}
    return [book for book in Book if book.value in needed and not now.has(book.value)]


def _settle_the_dead(layout: Layout) -> tuple[str, ...]:
    """Take a change back whose command was killed; one that waits may go on waiting."""
    found = unfinished(layout)
    if found is None or (found.open and found.journal.seconds_left() > 0):
        return ()
    return settle(layout, Options())


def _write(
    layout: Layout,
    books: Mapping[Book, Mapping[IpAddress, ManualEntry | None]],
    prefix: PrefixLengths,
) -> dict[Book, dict[IpAddress, ManualEntry | None]]:
    """Write the books; return the change that undoes this one."""
    before: dict[Book, dict[IpAddress, ManualEntry | None]] = {}
    for book, changes in books.items():
        old = _page(layout, book, prefix).entries
        before[book] = {address: old.get(address) for address in changes}
        if changes:
            merged = {**old, **changes}
            write_page(layout, book, {a: item for a, item in merged.items() if item is not None})
    return before


def _with_rules(layout: Layout, now: InForce, lacking: Iterable[Book]) -> ApplyOutcome:
    """Make the same policy live once more, with the rules that the books need now."""
    # Raises while a change waits to be confirmed: this one would confirm it.
    settle(layout, Options())
    require_writable(layout)
    wanted = by_hand(layout)
    wanted = replace(wanted, **{book.value: True for book in lacking})
    ruleset = with_by_hand(
        replace(now.ruleset, sets=tuple(of_today(layout, now))),
        Context(now.policy, Origins()),
        wanted,
    )
    if ruleset.chains == now.ruleset.chains:
        raise BackendError("the live policy has no SIP port to guard", hint="nothing was changed")
    firewall, kept = now.firewall, without_lists(ruleset)
    content = Content(
        kept,
        firewall.backend,
        ipset=firewall.ipset,
        source=firewall.source,
        policy=json.dumps(now.policy.model_dump(mode="json", by_alias=True), indent=1),
        listing=backend_of(firewall.backend, ipset=firewall.ipset).listing(kept),
    )
    made = write_generation(layout, content, firewall.generation)
    # No look at ssh: for it nothing changes, and whoever forced this policy need not do so again.
    result, _ = carry_out(
        layout,
        Journal("apply", firewall.generation, made.number, (firewall.backend,)),
        replace(firewall, ruleset=ruleset, generation=made.number),
        Options(),
        looked_for=current(layout).expectation,
    )
    prune(layout, (made.number, firewall.generation))
    return outcome_of(result, made.number)


def of_today(layout: Layout, now: InForce) -> Iterable[AddressSet]:
    """Return the sets with the addresses that host names have had since the generation was made.

    Where an answer is lost, those of the generation stay as well: no peer may lose his trust here.
    """
    members = {i.name: i for i in all_sets(Context(now.policy, Origins(), now.addresses))}
    known = read_names(layout)
    lost = not all(name in known for name in host_names(now.policy))
    for item in now.ruleset.sets:
        today = members.get(item.name)
        if today is None or not item.resolved or feed_of(item.name) is not None:
            yield item
        elif lost:
            yield replace(
                item,
                networks=collapsed([*item.networks, *today.networks]),
                endpoints=tuple(sorted({*item.endpoints, *today.endpoints}, key=str)),
            )
        else:
            yield replace(item, networks=today.networks, endpoints=today.endpoints)
