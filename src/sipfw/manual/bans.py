"""Bans by hand, and what is banned now, by hand or by packets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.deploy.manual_list import Book, ManualEntry
from sipfw.host.privilege import who
from sipfw.kernel.state.members import SetEntry, SetRemoval
from sipfw.kernel.state.timeouts import fitting, require_fitting
from sipfw.manual.addresses import protected, unusable
from sipfw.manual.ban_sets import COUNTED, EARNED, KEPT_OUT, exits, members_of
from sipfw.manual.change import Order, carry_out_order, in_force, refuse
from sipfw.manual.offenders import forget_offenders, grown, read_offenders, remember_bans
from sipfw.manual.sources import sources_in, too_wide
from sipfw.policy.quantities import MAX_DURATION
from sipfw.ruleset.match import CountAbove, L4Proto

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from sipfw.diagnostics import Diagnostic
    from sipfw.host.files import Layout
    from sipfw.kernel.state.members import Member
    from sipfw.manual.addresses import Owners
    from sipfw.manual.change import InForce, Obeyed
    from sipfw.manual.sources import Named
    from sipfw.ruleset.addresses import IpAddress, IpNetwork

MANUAL = "manual"
_REPLIES = "replies"
_RATE = "rate-limit"
_EITHER = "automatic"
_CAUSES = {MANUAL: "by hand", _EITHER: "by packets"}

_REFUSED = "the switch refused its logins"
_TOO_MUCH = "above its rate ceiling"
_TOOL = "an attack tool"

_EVERY_TRANSPORT = (L4Proto.UDP, L4Proto.TCP)


@dataclass(frozen=True, slots=True)
class BanRequest:
    """A ban that is asked for; without `until`, in seconds since 1970, for the usual time.

    A network stands for every source in it.
    """

    address: Named
    reason: str = ""
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Ban:
    """One banned source; `left` in seconds, None where the kernel tells none.

    `address` is the first one of `source`, which is how people read it. `over` are the transports
    that are banned. `layer` is `manual`, or the layer of the rule that banned: `replies`,
    `rate-limit`, or `automatic` where it can no longer be told which. `cause` is the same in the
    words of the documentation. `since` is in seconds since 1970, None where nothing tells; packets
    that ban once more make it later.
    """

    address: IpAddress
    layer: str
    left: int | None
    reason: str
    who: str
    over: tuple[L4Proto, ...] = _EVERY_TRANSPORT
    network: IpNetwork | None = None
    since: float | None = None

    @property
    def source(self) -> str:
        """Write whom it is about: one address bare."""
        whole = self.network is None or self.network.num_addresses == 1
        return str(self.address) if whole else str(self.network)

    @property
    def cause(self) -> str:
        """Say what banned it: `by hand`, a layer, or `by packets` where either layer may have."""
        return _CAUSES.get(self.layer, self.layer)


@dataclass(frozen=True, slots=True)
class ActiveBans:
    """Who is banned now, by hand first, and what is worth saying about it."""

    found: tuple[Ban, ...]
    faults: tuple[Diagnostic, ...]
    missing: tuple[IpAddress | IpNetwork, ...]


@dataclass(frozen=True, slots=True)
class Freed:
    """Whom an unban has freed, and who was not banned."""

    freed: tuple[IpAddress | IpNetwork, ...]
    strangers: tuple[IpAddress | IpNetwork, ...]
    done: Obeyed


def ban(layout: Layout, wishes: Sequence[BanRequest], seconds: int | None = None) -> Obeyed:
    """Ban by hand, `seconds` long or as the policy says; all of them or none.

    Raises BackendError with one line for each address that must not be banned.
    """

    def decide(now: InForce) -> Order:
        refuse(too_wide(now, [wish.address for wish in wishes]))
        asked = {key: wish for wish in wishes for key in sources_in(now, wish.address)}
        refuse([*_unbannable(now, asked), *_too_many(now, asked)])
        moment = int(time.time())
        lengths = _lengths(layout, now, asked, seconds)
        banned = {key: _kept(wish, key, moment, lengths[key]) for key, wish in asked.items()}
        require_fitting(max(kept.left(moment) for kept in banned.values()), now.set_kind)
        edits: list[SetEntry | SetRemoval] = [*exits(now, EARNED, banned)]
        edits += [
            SetEntry(names.SET_BLOCKED, key, kept.left(moment)) for key, kept in banned.items()
        ]
        return Order({Book.BANS: banned}, tuple(edits))

    def done(now: InForce, order: Order) -> None:
        if now.policy.bans.growth > 1:
            remember_bans(layout, filter(None, order.books[Book.BANS].values()))

    return carry_out_order(layout, decide, done)


def _lengths(
    layout: Layout, now: InForce, asked: Iterable[IpAddress], seconds: int | None
) -> dict[IpAddress, int]:
    """Return how long each is banned: as ordered, or as the policy says, and longer each time."""
    bans = now.policy.bans
    if seconds is not None or bans.growth == 1:
        return dict.fromkeys(asked, seconds or bans.duration)
    known = read_offenders(layout)
    longest = fitting(MAX_DURATION, now.set_kind)
    counts = {key: known[key].count if key in known else 0 for key in asked}
    return {key: grown(bans.duration, bans.growth, count, longest) for key, count in counts.items()}


def unban(layout: Layout, addresses: Iterable[Named] | None) -> Freed:
    """Free these addresses and networks, or all with None, and forget their failures."""
    wanted = None if addresses is None else list(addresses)
    freed: list[IpAddress | IpNetwork] = []
    strangers: list[IpAddress | IpNetwork] = []

    def decide(now: InForce) -> Order:
        refuse(too_wide(now, wanted or ()))
        on_book = now.pages[Book.BANS].entries
        kept_out = {
            now.key(item.address)
            for members in members_of(now, KEPT_OUT).values()
            for item in members
        }
        banned = kept_out | set(on_book)
        free: list[IpAddress | IpNetwork] = []
        chosen = sorted(banned, key=_order)
        if wanted is not None:
            chosen, free = _split(now, wanted, banned)
        freed[:] = [now.shown(key) for key in chosen]
        strangers[:] = free
        edits = exits(now, (*KEPT_OUT, *COUNTED), {*chosen, *map(now.key, _single(free))})
        return Order({Book.BANS: {a: None for a in chosen if a in on_book}}, tuple(edits))

    def forgive(_: InForce, order: Order) -> None:
        forget_offenders(layout, order.books[Book.BANS])

    done = carry_out_order(layout, decide, forgive)
    return Freed(tuple(freed), tuple(strangers), done)


def _split(
    now: InForce, wanted: Iterable[Named], banned: Collection[IpAddress]
) -> tuple[list[IpAddress], list[IpAddress | IpNetwork]]:
    """Return the banned sources of what is wanted, and what of it has none."""
    chosen: dict[IpAddress, None] = {}
    free: dict[IpAddress | IpNetwork, None] = {}
    for named in wanted:
        keys = list(sources_in(now, named))
        inside = [key for key in keys if key in banned]
        chosen |= dict.fromkeys(inside)
        if not inside:
            free[now.shown(keys[0]) if len(keys) == 1 else named] = None
    return list(chosen), list(free)


def _single(found: Iterable[IpAddress | IpNetwork]) -> Iterator[IpAddress]:
    """Return the first addresses: a stranger's failures are forgotten too."""
    for item in found:
        yield item if isinstance(item, IPv4Address | IPv6Address) else item.network_address


def list_bans(layout: Layout) -> ActiveBans:
    """Return who is banned in the kernel now, each source once. Changes nothing."""
    now = in_force(layout)
    page = now.pages[Book.BANS]
    members = members_of(now, _LISTED)
    by_hand = members.get(names.SET_BLOCKED, ())
    found = [_by_hand(now, item, page.entries.get(item.address)) for item in by_hand]
    for item in _by_packets(members):
        kept = page.entries.get(item.longest.address)
        # Rules that are older than the ban have no wall for it.
        if kept is not None and not now.has(names.SET_BLOCKED):
            found.append(_by_hand(now, item.longest, kept))
        else:
            found.append(_automatic(now, item, members))
    present = {item.address for item in found}
    missing = tuple(now.shown(address) for address in page.entries if address not in present)
    found.sort(key=lambda item: (item.layer != MANUAL, _order(item.address)))
    return ActiveBans(tuple(found), page.faults, missing)


_LISTED = (
    names.SET_BLOCKED,
    names.SET_BANNED,
    names.SET_BANNED_TCP,
    names.SET_FAILURES,
    names.SET_LEARNED_FAILURES,
)


@dataclass(frozen=True, slots=True)
class _Banned:
    """A source in the sets of bans: its longest one, and for which transports."""

    longest: Member
    over: tuple[L4Proto, ...]


def _by_packets(members: Mapping[str, Sequence[Member]]) -> list[_Banned]:
    sets = {L4Proto.UDP: names.SET_BANNED, L4Proto.TCP: names.SET_BANNED_TCP}
    found: dict[IpAddress, dict[L4Proto, Member]] = {}
    for proto, name in sets.items():
        for item in members.get(name, ()):
            found.setdefault(item.address, {})[proto] = item
    return [
        _Banned(max(bans.values(), key=lambda item: item.left or 0), tuple(bans))
        for bans in found.values()
    ]


def _automatic(now: InForce, item: _Banned, members: Mapping[str, Sequence[Member]]) -> Ban:
    address = item.longest.address
    layer, reason = _why(now, item, members)
    network = now.source(address)
    left, length = item.longest.left, now.policy.bans.duration
    since = None if left is None or left > length else time.time() - (length - left)
    return Ban(address, layer, left, reason, "sipfw", item.over, network, since)


def _kept(wish: BanRequest, key: IpAddress, since: int, length: int) -> ManualEntry:
    # The end of a list's entry may have come while it was read.
    until = since + length if wish.until is None else max(wish.until, since + 1)
    return ManualEntry(key, since, min(until, since + MAX_DURATION), wish.reason, who())


def _unbannable(now: InForce, asked: Mapping[IpAddress, BanRequest]) -> Iterator[str]:
    """Refuse who must not be banned: also where he only shares the prefix of who may be."""
    owners = protected(now.ruleset, now.policy, now.addresses)
    guests = {now.key(address): address for address in now.pages[Book.TRUSTS].entries}
    told: set[Named] = set()
    for key, wish in asked.items():
        if wish.address in told:
            continue
        fault = _why_not(now, key, wish.address, owners, guests)
        if fault is not None:
            # Of a network one of its faults is enough.
            told.add(wish.address)
            yield fault


def _why_not(
    now: InForce,
    key: IpAddress,
    named: Named,
    owners: Owners,
    guests: Mapping[IpAddress, IpAddress],
) -> str | None:
    alone = isinstance(named, IPv4Address | IPv6Address)
    address = named if isinstance(named, IPv4Address | IPv6Address) else key
    source = now.shown(key)
    reason = unusable(address) or unusable(key) or owners.of(address)
    inside = owners.inside(now.source(key))
    if reason is not None:
        said = f"{named} {reason}; it" if alone or named == source else f"{key} {reason}; {named}"
        return f"{said} cannot be banned"
    if inside is not None:
        network, whose = inside
        one = network.network_address if network.num_addresses == 1 else network
        return f"{source} cannot be banned: {one} in it {whose}"
    if key in guests:
        guest = guests[key]
        place = "" if guest == address else f" in {source}"
        return f"{guest}{place} is trusted for a time; end that first: sipfw trust --end {guest}"
    return None


def _too_many(now: InForce, asked: Mapping[IpAddress, BanRequest]) -> Iterator[str]:
    size = now.policy.bans.size
    for version in (4, 6):
        wanted = {*now.pages[Book.BANS].entries, *asked}
        count = sum(address.version == version for address in wanted)
        if count > size:
            yield (
                f"{count:,} bans by hand in IPv{version} are more than the set takes ({size:,}); "
                "raise bans.size in the policy and apply it"
            )


def _by_hand(now: InForce, item: Member, kept: ManualEntry | None) -> Ban:
    reason = "" if kept is None else kept.reason
    by = "unknown" if kept is None else kept.who
    network = now.source(item.address)
    since = None if kept is None else float(kept.since)
    return Ban(item.address, MANUAL, item.left, reason, by, network=network, since=since)


def _why(now: InForce, item: _Banned, members: Mapping[str, Sequence[Member]]) -> tuple[str, str]:
    """Tell what led to a ban, as far as the sets still show it.

    A failure is remembered for `learning.window` and a ban for longer, and an nftables element
    does not tell how many there were. Over TCP a ceiling resets and never bans.
    """
    learning, limits = now.policy.learning, now.policy.limits
    if not learning.enabled:
        return _RATE, _TOO_MUCH
    if L4Proto.TCP in item.over and now.policy.signalling.behind:
        return _EITHER, f"{_REFUSED}, or {_TOOL}"
    enough = any(
        failure.address == item.longest.address and (failure.packets or 0) >= _enough(now, name)
        for name in (names.SET_FAILURES, names.SET_LEARNED_FAILURES)
        for failure in members.get(name, ())
    )
    if enough or limits.per_source is None or L4Proto.TCP in item.over:
        return _REPLIES, _REFUSED
    return _EITHER, f"{_REFUSED}, or {_TOO_MUCH}"


def _enough(now: InForce, name: str) -> int:
    """Return how many failures in a counted set ban."""
    counts = (
        match.count + 1
        for chain in now.ruleset.chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, CountAbove) and match.set == name
    )
    return next(counts, now.policy.learning.failures)


def _order(address: IpAddress) -> tuple[int, int]:
    return address.version, int(address)
