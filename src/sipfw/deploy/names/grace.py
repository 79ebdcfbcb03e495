"""How the addresses of a name follow its answers: new ones at once, those that are gone later.

Answers rotate, and a resolver may leave out a part: an address goes when no answer has listed it
for the time of `names.grace`. Times are the host's clock, because they must outlive a boot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.words import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.deploy.names.answers import Answer, Standards
    from sipfw.deploy.names.resolve import Address


@dataclass(frozen=True, slots=True)
class NameAddress:
    """An address of a name, the record it came from, and since when no answer has listed it."""

    network: Address
    via: str = ""
    missing: float | None = None


@dataclass(frozen=True, slots=True)
class KnownName:
    """The last good answer, when it came, and when to ask again, in seconds since 1970.

    `members` holds what that answer listed and what is gone for less than the grace.
    """

    members: tuple[NameAddress, ...]
    time: float
    due: float = 0.0

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Return what is in force, IPv4 first."""
        found = (member.network for member in self.members)
        return tuple(sorted(found, key=lambda item: (item.version, int(item.network_address))))


def is_due(known: KnownName | None, now: float, longest: int) -> bool:
    """Tell whether to ask again; so it is after a clock has gone back."""
    return known is None or not known.members or not now < known.due <= now + longest


def followed(
    known: KnownName | None, answer: Answer, now: float, bounds: Standards, *, admin: bool = False
) -> tuple[KnownName, tuple[str, ...]]:
    """Return what is in force behind this answer, and what is worth saying.

    Behind an incomplete answer nothing has gone: what it lacks may be in the part that is missing.
    What root takes out of the hosts file is gone at once: that is an order and no rotation.
    """
    names, grace = bounds.names, 0 if answer.local else bounds.names.grace
    listed = tuple(NameAddress(item.network, item.via) for item in answer.listed)
    present = {member.network for member in listed}
    absent = [
        member for member in (known.members if known else ()) if member.network not in present
    ]
    if answer.incomplete is None:
        absent = [_missing(member, now) for member in absent]
    kept = _kept(absent, now, grace, bounds if admin else None)
    # The youngest absence first: where there is no room for all, it is the likeliest to return.
    kept.sort(key=lambda member: now if member.missing is None else member.missing, reverse=True)
    room = names.max_addresses - len(listed)
    ttl = min(max(answer.ttl, names.min_ttl), names.max_ttl)
    remarks = [*answer.remarks]
    if answer.incomplete is not None:
        remarks.append(
            f"a part of the answer is missing ({answer.incomplete}); nothing is taken out"
        )
    gone = [str(item.network.network_address) for item in kept[:room] if item.missing == now]
    if gone and known is not None:
        remarks.append(
            f"listed no more: {', '.join(gone)}; trusted for another {format_duration(grace)}"
        )
    return KnownName((*listed, *kept[:room]), now, now + ttl), tuple(remarks)


def still(known: KnownName, now: float, bounds: Standards, *, admin: bool = False) -> KnownName:
    """Return what is in force of a name that was not asked, or did not answer."""
    kept = _kept(known.members, now, bounds.names.grace, bounds if admin else None)
    return replace(known, members=tuple(kept))


def _missing(member: NameAddress, now: float) -> NameAddress:
    # A clock that has gone back must not keep an address for ever.
    if member.missing is None or member.missing > now:
        return replace(member, missing=now)
    return member


def _kept(
    members: Iterable[NameAddress], now: float, grace: int, admins: Standards | None
) -> list[NameAddress]:
    """Leave out whose grace is over, except an administrator who is logged in from there."""
    return [
        member
        for member in members
        if member.missing is None
        or now - member.missing < grace
        or (admins is not None and member.network.network_address in admins.logged_in)
    ]
