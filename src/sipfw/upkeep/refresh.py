"""Follows host names and block lists of the applied policy: new elements for their sets.

The rules stay as they are, and so do the generations; the record of what is live follows. What
decides is the stored policy of the generation in force, not a file that may have been edited since.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.compare.sets import compare_elements
from sipfw.compiler.context import Context
from sipfw.compiler.layers.sets import all_sets
from sipfw.deploy.activate import stored
from sipfw.deploy.applied import Applied, read_applied, write_applied
from sipfw.deploy.generations import Damaged
from sipfw.deploy.lists.follow import ask_sources, is_due, keep, lists_of, read_all
from sipfw.deploy.lists.sets import feed_of, read_policy, with_lists
from sipfw.deploy.names.answers import standards
from sipfw.deploy.names.cache import read_names, recalled, remember, resolve_or_recall
from sipfw.deploy.names.resolve import host_names
from sipfw.deploy.repair import settle
from sipfw.deploy.transaction import signals_later
from sipfw.errors import BackendError
from sipfw.host.files import require_writable
from sipfw.host.locks import state_lock
from sipfw.host.privilege import require_root
from sipfw.kernel.backend import Options, backend_of
from sipfw.manual.trusted_names import asked_for_trust, follow_trusts, read_trusted_names
from sipfw.policy.merge import Origins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sipfw.compare.expected import Expectation, ExpectedSet
    from sipfw.compare.sets import Elements
    from sipfw.deploy.activate import Firewall
    from sipfw.deploy.lists.files import KnownList
    from sipfw.deploy.lists.follow import Lists
    from sipfw.deploy.names.cache import Resolution
    from sipfw.deploy.names.resolve import Address, Lookup
    from sipfw.host.files import Layout
    from sipfw.policy.model import Policy
    from sipfw.ruleset.model import AddressSet, Ruleset

# Nobody's addresses: put in for a name, they show which sets the name goes into.
_NOBODY = (ip_network("0.0.0.0/32"), ip_network("::/128"))


@dataclass(frozen=True, slots=True)
class SetUpdate:
    """What one set of the kernel got and lost."""

    set: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """Which block lists are asked: those that are due, all with `force`, and `accept`ed ones.

    What is accepted may be empty or have shrunk.
    """

    force: bool = False
    accept: tuple[str, ...] = ()


DUE = RefreshRequest()


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What the names and lists of a generation mean now, and what that changed in the kernel.

    Of `lost` names it is not known what they meant before, so their sets lost nothing. `asked`
    are the block lists whose source was asked.
    """

    generation: int
    resolution: Resolution
    changes: tuple[SetUpdate, ...]
    lost: tuple[str, ...]
    notes: tuple[str, ...]
    lists: Lists
    asked: tuple[str, ...] = ()


def refresh(
    layout: Layout,
    options: Options,
    *,
    cached: bool = False,
    due_only: bool = False,
    lookup: Lookup | None = None,
    wish: RefreshRequest = DUE,
) -> Refreshed | None:
    """Resolve names and fetch lists of what is live, update its sets; None when nothing is live.

    With `cached` nobody is asked: the last good answers count, at boot for example. With `due_only`
    names whose answers still count are not asked, only what is in grace may end. Refused
    while a change waits to be confirmed: until then it must stay what the operator is looking at.
    """
    require_root()
    applied = _applied(layout)
    if applied is None:
        return None
    policy = read_policy(layout, _number(applied))
    names = {**asked_for_trust(read_trusted_names(layout)), **host_names(policy)}
    known = read_names(layout)
    # Without the lock: a source that is down must not keep an operator's apply waiting.
    copies = read_all(layout, policy)
    asked = {} if cached else _asked(policy, copies, wish)
    resolution = (
        recalled(names, known)
        if cached
        else resolve_or_recall(
            names, known, standards(policy, layout), due_only=due_only, lookup=lookup
        )
    )
    lists = lists_of(policy, copies | asked, resolution.addresses)
    with signals_later(), state_lock(layout):
        notes = settle(layout, options)
        now = _applied(layout)
        if now is None or now.generation != applied.generation:
            raise BackendError(
                "another firewall went live meanwhile", hint="run sipfw refresh again"
            )
        if not names and not policy.feeds:
            return Refreshed(_number(now), resolution, (), (), notes, lists)
        require_writable(layout)
        lost = tuple(name for name, _ in resolution.failures if name not in known)
        if not cached:
            # A lost name is no name that never had an address: the next answer will tell.
            remember(layout, _without(resolution, lost))
            keep(layout, policy, asked)
        changes = _follow(layout, now, policy, resolution.addresses, lost=lost, lists=lists)
    if not cached:
        notes = (*notes, *follow_trusts(layout, resolution.addresses))
    return Refreshed(_number(now), resolution, changes, lost, notes, lists, tuple(asked))


def _asked(
    policy: Policy, copies: Mapping[str, KnownList], wish: RefreshRequest
) -> dict[str, KnownList]:
    unknown = set(wish.accept) - {feed.name for feed in policy.feeds}
    if unknown:
        raise BackendError(
            f"the live policy has no block list {min(unknown)}", hint="see sipfw feeds"
        )
    now = time.time()
    due = [
        feed
        for feed in policy.feeds
        if wish.force or feed.name in wish.accept or is_due(feed, copies[feed.name], now)
    ]
    return ask_sources(due, copies, accept=wish.accept)


def _without(resolution: Resolution, lost: tuple[str, ...]) -> Resolution:
    failures = tuple(item for item in resolution.failures if item[0] not in lost)
    return replace(resolution, failures=failures)


def _applied(layout: Layout) -> Applied | None:
    return read_applied(layout) if layout.state.exists() else None


def _number(applied: Applied) -> int:
    if applied.generation is None:
        raise BackendError(
            "what is live was applied by an older sipfw, which did not keep its policy",
            hint="apply again",
        )
    return applied.generation


def _follow(
    layout: Layout,
    applied: Applied,
    policy: Policy,
    addresses: Mapping[str, tuple[Address, ...]],
    *,
    lost: Iterable[str],
    lists: Lists,
) -> tuple[SetUpdate, ...]:
    """Bring kernel and record to these addresses and lists; sets of `lost` names lose nothing."""
    firewall = stored(layout, _number(applied), lists=False)
    if isinstance(firewall, Damaged):
        raise BackendError(
            f"generation {firewall.number} is damaged: {firewall.reason}", hint="apply again"
        )
    # In what is compared the lists are the same: only host names can make other rules.
    firewall = replace(firewall, ruleset=with_lists(firewall.ruleset, lists.networks))
    wanted = _wanted(firewall, policy, addresses)
    spared = (
        _changed_names(wanted, _wanted(firewall, policy, {**addresses, **_nobody(lost)}))
        if lost
        else set()
    )
    left_alone = _without_copy(firewall, lists)
    recorded = {item.name: item for item in applied.expectation.sets}
    new = [
        _spared(item, recorded[item.name]) if item.name in spared else item
        for item in wanted.sets
        if item.elements is not None and item.name in recorded and item.of not in left_alone
    ]
    new = [item for item in new if not _difference(item, recorded[item.name]).same]
    if new:
        backend_of(firewall.backend, ipset=firewall.ipset).fill(new)
        by_name = {item.name: item for item in new}
        sets = tuple(by_name.get(item.name, item) for item in applied.expectation.sets)
        write_applied(layout, replace(applied, expectation=replace(applied.expectation, sets=sets)))
    return tuple(_change(item, recorded[item.name]) for item in new)


def _without_copy(firewall: Firewall, lists: Lists) -> set[str]:
    """Name the sets of lists of which nothing is on file: what is live of them stays."""
    return {
        item.name
        for item in firewall.ruleset.sets
        if (name := feed_of(item.name)) is not None and name not in lists.networks
    }


def _wanted(
    firewall: Firewall, policy: Policy, addresses: Mapping[str, tuple[Address, ...]]
) -> Expectation:
    """Describe the generation with these addresses. Raises BackendError where rules would differ.

    They would on a host without ipset, where every address is a rule.
    """
    chosen = backend_of(firewall.backend, ipset=firewall.ipset)
    was, now = (
        chosen.expectation(item)
        for item in (firewall.ruleset, _with_addresses(firewall.ruleset, policy, addresses))
    )
    names = [[item.name for item in each.sets] for each in (was, now)]
    if (was.chains, was.jumps, names[0]) != (now.chains, now.jumps, names[1]):
        raise BackendError(
            "a host name has new addresses, and in this firewall they stand in rules",
            hint="apply again",
        )
    return now


def _with_addresses(
    ruleset: Ruleset, policy: Policy, addresses: Mapping[str, tuple[Address, ...]]
) -> Ruleset:
    nothing, probe = _members(policy, {}), _members(policy, _nobody(host_names(policy)))
    named = {name for name, item in probe.items() if item != nothing.get(name)}
    members = _members(policy, addresses)
    return replace(
        ruleset,
        sets=tuple(
            replace(
                item,
                networks=members[item.name].networks,
                endpoints=members[item.name].endpoints,
            )
            if item.name in named
            else item
            for item in ruleset.sets
        ),
    )


def _members(policy: Policy, addresses: Mapping[str, tuple[Address, ...]]) -> dict[str, AddressSet]:
    return {item.name: item for item in all_sets(Context(policy, Origins(), addresses))}


def _nobody(names: Iterable[str]) -> dict[str, tuple[Address, ...]]:
    return dict.fromkeys(names, _NOBODY)


def _changed_names(one: Expectation, other: Expectation) -> set[str]:
    return {a.name for a, b in zip(one.sets, other.sets, strict=True) if a.elements != b.elements}


def _spared(item: ExpectedSet, recorded: ExpectedSet) -> ExpectedSet:
    return replace(item, elements=tuple(dict.fromkeys((*_elements(recorded), *_elements(item)))))


def _elements(item: ExpectedSet) -> tuple[str, ...]:
    return item.elements or ()


def _difference(new: ExpectedSet, old: ExpectedSet) -> Elements:
    return compare_elements(_elements(new), _elements(old))


def _change(new: ExpectedSet, old: ExpectedSet) -> SetUpdate:
    difference = _difference(new, old)
    return SetUpdate(new.name, difference.missing, difference.extra)
