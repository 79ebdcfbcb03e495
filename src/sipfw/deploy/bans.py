"""Bans by hand, and what is banned now, by hand or by packets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.backends.set_members import Entry, Exit
from sipfw.compiler import names
from sipfw.deploy.manual_addresses import protected, unusable
from sipfw.deploy.manual_change import Order, carry_out_order, in_force, refuse
from sipfw.deploy.manual_file import Book, Kept
from sipfw.deploy.privilege import who
from sipfw.policy.types import MAX_DURATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sipfw.backends.set_members import IpAddress, Member
    from sipfw.deploy.files import Layout
    from sipfw.deploy.manual_change import InForce, Obeyed
    from sipfw.diagnostics import Diagnostic

MANUAL = "manual"
_REPLIES = "replies"
_RATE = "rate-limit"
_EITHER = "automatic"
_CAUSES = {MANUAL: "by hand", _EITHER: "by packets"}

_REFUSED = "the switch refused its logins"
_TOO_MUCH = "above its rate ceiling"


@dataclass(frozen=True, slots=True)
class Wish:
    """A ban that is asked for; without `until`, in seconds since 1970, for the usual time."""

    address: IpAddress
    reason: str = ""
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Ban:
    """One banned address; `left` in seconds, None where the kernel tells none.

    `layer` is `manual`, or the layer of the rule that banned: `replies`, `rate-limit`, or
    `automatic` where it can no longer be told which. `cause` is the same in the words of the
    documentation.
    """

    address: IpAddress
    layer: str
    left: int | None
    reason: str
    who: str

    @property
    def cause(self) -> str:
        """Say what banned it: `by hand`, a layer, or `by packets` where either layer may have."""
        return _CAUSES.get(self.layer, self.layer)


@dataclass(frozen=True, slots=True)
class Bans:
    """Who is banned now, by hand first, and what is worth saying about it."""

    found: tuple[Ban, ...]
    faults: tuple[Diagnostic, ...]
    missing: tuple[IpAddress, ...]


@dataclass(frozen=True, slots=True)
class Freed:
    """Whom an unban has freed, and who was not banned."""

    freed: tuple[IpAddress, ...]
    strangers: tuple[IpAddress, ...]
    done: Obeyed


def ban(layout: Layout, wishes: Sequence[Wish], seconds: int | None = None) -> Obeyed:
    """Ban by hand, `seconds` long or as the policy says; all of them or none.

    Raises BackendError with one line for each address that must not be banned.
    """

    def decide(now: InForce) -> Order:
        asked = {wish.address: wish for wish in wishes}
        refuse([*_unbannable(now, asked), *_too_many(now, asked)])
        moment = int(time.time())
        usual = moment + (seconds or now.policy.bans.duration)
        banned = [_kept(wish, moment, usual) for wish in asked.values()]
        edits: list[Entry | Exit] = []
        # A learned source may send RTP, and one that is a guest would pass before the wall.
        for name in (names.SET_LEARNED, names.SET_PENDING, names.SET_GUESTS):
            if now.has(name):
                edits += [Exit(name, item.address) for item in banned]
        edits += [Entry(names.SET_BLOCKED, item.address, item.left(moment)) for item in banned]
        return Order({Book.BANS: {item.address: item for item in banned}}, tuple(edits))

    return carry_out_order(layout, decide)


def unban(layout: Layout, addresses: Iterable[IpAddress] | None) -> Freed:
    """Free these addresses, or all with None, and forget their failures."""
    freed: list[IpAddress] = []
    strangers: list[IpAddress] = []

    def decide(now: InForce) -> Order:
        inside = _addresses(now)
        on_book = now.pages[Book.BANS].entries
        banned = inside[names.SET_BLOCKED] | inside[names.SET_BANNED] | set(on_book)
        chosen = sorted(banned, key=_order) if addresses is None else dict.fromkeys(addresses)
        for address in chosen:
            (freed if address in banned else strangers).append(address)
        edits = [Exit(n, a) for n, members in inside.items() for a in chosen if a in members]
        return Order({Book.BANS: {a: None for a in chosen if a in on_book}}, tuple(edits))

    done = carry_out_order(layout, decide)
    return Freed(tuple(freed), tuple(strangers), done)


def list_bans(layout: Layout) -> Bans:
    """Return who is banned in the kernel now. Changes nothing."""
    now = in_force(layout)
    page = now.pages[Book.BANS]
    sets = [name for name in _SETS if now.has(name)]
    members = now.members.read(sets)
    failures = {item.address: item for item in members.get(names.SET_FAILURES, ())}
    by_hand = members.get(names.SET_BLOCKED, ())
    found = [_by_hand(item, page.entries.get(item.address)) for item in by_hand]
    for item in members.get(names.SET_BANNED, ()):
        kept = page.entries.get(item.address)
        # Rules that are older than the ban have no wall for it.
        if kept is not None and not now.has(names.SET_BLOCKED):
            found.append(_by_hand(item, kept))
        else:
            layer, reason = _why(now, failures.get(item.address))
            found.append(Ban(item.address, layer, item.left, reason, "sipfw"))
    present = {item.address for item in found}
    missing = tuple(address for address in page.entries if address not in present)
    found.sort(key=lambda item: (item.layer != MANUAL, _order(item.address)))
    return Bans(tuple(found), page.faults, missing)


_SETS = (names.SET_BLOCKED, names.SET_BANNED, names.SET_FAILURES)


def _kept(wish: Wish, since: int, usual: int) -> Kept:
    # The end of a list's entry may have come while it was read.
    until = usual if wish.until is None else max(wish.until, since + 1)
    return Kept(wish.address, since, min(until, since + MAX_DURATION), wish.reason, who())


def _unbannable(now: InForce, asked: Iterable[IpAddress]) -> Iterator[str]:
    owners = protected(now.ruleset, now.policy, now.addresses)
    guests = now.pages[Book.TRUSTS].entries
    for address in asked:
        if (reason := unusable(address) or owners.of(address)) is not None:
            yield f"{address} {reason}; it cannot be banned"
        elif address in guests:
            yield f"{address} is trusted for a time; end that first: sipfw trust --end {address}"


def _too_many(now: InForce, asked: Mapping[IpAddress, Wish]) -> Iterator[str]:
    size = now.policy.bans.size
    for version in (4, 6):
        wanted = {*now.pages[Book.BANS].entries, *asked}
        count = sum(address.version == version for address in wanted)
        if count > size:
            yield (
                f"{count:,} bans by hand in IPv{version} are more than the set takes ({size:,}); "
                "raise bans.size in the policy and apply it"
            )


def _addresses(now: InForce) -> dict[str, set[IpAddress]]:
    present = now.members.read([name for name in _SETS if now.has(name)])
    return {name: {item.address for item in present.get(name, ())} for name in _SETS}


def _by_hand(item: Member, kept: Kept | None) -> Ban:
    reason = "" if kept is None else kept.reason
    return Ban(item.address, MANUAL, item.left, reason, "unknown" if kept is None else kept.who)


def _why(now: InForce, failure: Member | None) -> tuple[str, str]:
    """Tell what led to a ban, as far as the sets still show it.

    A failure is remembered for `learning.window` and a ban for longer, and an nftables element
    does not tell how many there were.
    """
    learning, limits = now.policy.learning, now.policy.limits
    if not learning.enabled:
        return _RATE, _TOO_MUCH
    enough = failure is not None and (failure.packets or 0) >= learning.failures
    if enough or limits.per_source is None:
        return _REPLIES, _REFUSED
    return _EITHER, f"{_REFUSED}, or {_TOO_MUCH}"


def _order(address: IpAddress) -> tuple[int, int]:
    return address.version, int(address)
