"""Sources that are trusted for a time by hand, as peers are; the policy stays as it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.manual import MOST_GUESTS
from sipfw.deploy.manual_list import Book, ManualEntry
from sipfw.host.privilege import who
from sipfw.kernel.state.members import SetEntry, SetRemoval
from sipfw.kernel.state.timeouts import require_fitting
from sipfw.manual.addresses import trusted_already, unusable
from sipfw.manual.ban_sets import COUNTED, KEPT_OUT, exits
from sipfw.manual.change import Order, carry_out_order, in_force, refuse
from sipfw.manual.trusted_names import disown, name_that_brought, read_trusted_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from sipfw.diagnostics import Diagnostic
    from sipfw.host.files import Layout
    from sipfw.manual.change import InForce, Obeyed
    from sipfw.ruleset.addresses import IpAddress

LONGEST_TRUST = 30 * 86400


@dataclass(frozen=True, slots=True)
class Guest:
    """One trusted source; `left` in seconds, `name` is the host name that brought it."""

    kept: ManualEntry
    left: int
    in_kernel: bool
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """Whose trust was ended, and who had none."""

    ended: tuple[IpAddress, ...]
    strangers: tuple[IpAddress, ...]
    done: Obeyed


def trust(layout: Layout, addresses: Sequence[IpAddress], seconds: int, reason: str) -> Obeyed:
    """Trust these addresses so long, all of them or none; that ends their bans, also by hand.

    In IPv6 a ban is about a prefix, and ends for all of it.
    """

    def decide(now: InForce) -> Order:
        asked = list(dict.fromkeys(addresses))
        refuse([*_refusals(now, asked), *_too_many(now, asked)])
        require_fitting(seconds, now.set_kind)
        since = int(time.time())
        guests = {a: ManualEntry(a, since, since + seconds, reason, who()) for a in asked}
        bans = now.pages[Book.BANS].entries
        sources = {now.key(address) for address in asked}
        unbanned = [source for source in bans if source in sources]
        edits: list[SetEntry | SetRemoval] = [SetEntry(names.SET_GUESTS, a, seconds) for a in asked]
        edits += exits(now, (*KEPT_OUT, *COUNTED), sources)
        return Order({Book.TRUSTS: guests, Book.BANS: dict.fromkeys(unbanned)}, tuple(edits))

    done = carry_out_order(layout, decide)
    disown(layout, addresses)
    return done


def end_trust(layout: Layout, addresses: Collection[IpAddress]) -> Ended:
    """End the trust of these sources; the rule stays until the next apply and asks an empty set.

    Raises BackendError for one that a name would bring back.
    """
    ended: list[IpAddress] = []
    strangers: list[IpAddress] = []

    def decide(now: InForce) -> Order:
        by_name = read_trusted_names(layout)
        refuse(
            f"{address} is trusted by its name; sipfw trust --end {name}"
            for address in addresses
            if (name := name_that_brought(by_name, address)) is not None
        )
        on_book = now.pages[Book.TRUSTS].entries
        inside = _inside(now)
        for address in dict.fromkeys(addresses):
            (ended if address in inside or address in on_book else strangers).append(address)
        edits = tuple(SetRemoval(names.SET_GUESTS, a) for a in ended if a in inside)
        return Order({Book.TRUSTS: {a: None for a in ended if a in on_book}}, edits)

    done = carry_out_order(layout, decide)
    return Ended(tuple(ended), tuple(strangers), done)


def list_trusts(layout: Layout) -> tuple[tuple[Guest, ...], tuple[Diagnostic, ...]]:
    """Return who is trusted for a time, the next to end first. Changes nothing."""
    now = in_force(layout)
    page = now.pages[Book.TRUSTS]
    inside, moment = _inside(now), time.time()
    by_name = read_trusted_names(layout)
    found = [
        Guest(item, item.left(moment), address in inside, name_that_brought(by_name, address))
        for address, item in page.entries.items()
    ]
    return tuple(sorted(found, key=lambda item: item.left)), page.faults


def _inside(now: InForce) -> set[IpAddress]:
    if not now.has(names.SET_GUESTS):
        return set()
    members = now.members.read([names.SET_GUESTS])
    return {item.address for item in members.get(names.SET_GUESTS, ())}


def _refusals(now: InForce, asked: Iterable[IpAddress]) -> Iterator[str]:
    owners = trusted_already(now.ruleset)
    for address in asked:
        if (reason := unusable(address) or owners.of(address)) is not None:
            yield f"{address} {reason}; there is nothing to trust for a time"


def _too_many(now: InForce, asked: Iterable[IpAddress]) -> Iterator[str]:
    wanted = {*now.pages[Book.TRUSTS].entries, *asked}
    if any(sum(a.version == version for a in wanted) > MOST_GUESTS for version in (4, 6)):
        yield f"more than {MOST_GUESTS:,} temporary trusts; put lasting peers into the policy"
