"""The sets that hold what counts against a source, and what it has earned: who is in, and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.kernel.state.members import SetRemoval

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sipfw.kernel.state.members import Member
    from sipfw.manual.change import InForce
    from sipfw.ruleset.addresses import IpAddress

# Who is in one of these is kept out: by packets, by hand, or with his logins.
KEPT_OUT = (
    names.SET_BLOCKED,
    names.SET_BANNED,
    names.SET_BANNED_TCP,
    names.SET_BARRED,
    names.SET_SHUT,
    names.SET_NO_REGISTER,
)
# By these the next refused login would keep him out again.
COUNTED = (
    names.SET_FAILURES,
    names.SET_LEARNED_FAILURES,
    names.SET_WRONG,
    names.SET_CHALLENGES,
    names.SET_UNANSWERED,
    names.SET_REFUSED_CALLS,
    names.SET_MASKED,
)
# A learned source may send RTP, what is pending becomes learned, and a guest passes before the
# wall.
EARNED = (
    names.SET_LEARNED,
    names.SET_FORMER,
    names.SET_CALLERS,
    names.SET_REGISTERED,
    names.SET_PENDING,
    names.SET_RINGING,
    names.SET_DIALLING,
    names.SET_GUESTS,
)


def members_of(now: InForce, wanted: Iterable[str]) -> dict[str, tuple[Member, ...]]:
    """Read those of the sets that this firewall has."""
    return now.members.read([name for name in wanted if now.has(name)])


def exits(now: InForce, wanted: Iterable[str], sources: Collection[IpAddress]) -> list[SetRemoval]:
    """Take these sources out of the sets, endpoints with all their ports."""
    if not sources:
        return []
    return [
        SetRemoval(name, item.address, item.door)
        for name, members in members_of(now, wanted).items()
        for item in members
        if now.key(item.address) in sources
    ]
