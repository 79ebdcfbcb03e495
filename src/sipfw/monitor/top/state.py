"""What sets, limits and the log tell about sources."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.kernel.backend import backend_of
from sipfw.kernel.state.limits import Standing, source_limits
from sipfw.monitor.top.source import DroppedSource, plain_id, seen_again, source_prefix
from sipfw.ruleset.match import InSet, RateAbove, SeenAtLeast
from sipfw.ruleset.rule import Drop, Log, Reset
from sipfw.ruleset.source import source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sipfw.deploy.activate import Firewall
    from sipfw.deploy.manual_list import ManualEntry
    from sipfw.kernel.netlink.nflog import Logged
    from sipfw.kernel.state.limits import LimitTable, SourceBucket
    from sipfw.kernel.state.members import Member
    from sipfw.monitor.report import SetReport
    from sipfw.ruleset.addresses import IpAddress, IpNetwork
    from sipfw.ruleset.model import Chain, Ruleset
    from sipfw.ruleset.rule import Rule


# Sets whose members are dropped, the longest first; all of a source's bans are one line.
BANS = (names.SET_BANNED, names.SET_BANNED_TCP, names.SET_BLOCKED)
SHUT = (names.SET_BARRED, names.SET_SHUT, names.SET_NO_REGISTER)
LOGINS = {
    names.SET_BARRED: "too many refused logins: its logins are dropped",
    names.SET_SHUT: "too many refused logins: those of one port are dropped",
    names.SET_NO_REGISTER: "too many challenges: logins of one port are dropped",
    names.SET_LEARNED_FAILURES: "the switch refuses its logins; a ban follows if that goes on",
    names.SET_FAILURES: "the switch refuses its requests; a ban follows if that goes on",
}
# Their buckets are a memory of first packets, and no limit of anybody.
_MEMORIES = {names.CROWD, f"{names.CROWD}{names.TCP_ENDING}"}


def holds_bans(sets: Iterable[SetReport]) -> bool:
    """Tell whether there is anybody for a look to see."""
    wanted = {f"{name}{family}" for name in (*BANS, *SHUT) for family in "46"}
    return any(item.entries and item.name.removeprefix("sipfw-") in wanted for item in sets)


def from_sets(
    ruleset: Ruleset,
    members: Mapping[str, Sequence[Member]],
    now: float,
    by_hand: Mapping[IpAddress, ManualEntry] | None = None,
) -> Iterator[DroppedSource]:
    """Return who is banned, and whom the switch refuses; `now` is when the members were read.

    A ban by hand has a time of its own, so the set does not tell when it began: `by_hand` does.
    """
    sets = {item.name: item for item in ruleset.sets if item.dynamic}
    held: set[IpNetwork] = set()
    for name in BANS:
        rule = _asking(ruleset, name)
        if rule is None or name not in sets:
            continue
        for item in members.get(name, ()):
            network = source_of(item.address, sets[name].prefix)
            held.add(network)
            first = _began(item, sets[name].timeout, now)
            if name == names.SET_BLOCKED:
                kept = (by_hand or {}).get(item.address)
                first = None if kept is None else float(kept.since)
            yield DroppedSource(
                network,
                "banned",
                rule.id,
                rule.summary,
                first=first,
                left=item.left,
            )
    prefix = source_prefix(ruleset)
    for name, reason in LOGINS.items():
        for item in members.get(name, ()) if name in sets else ():
            network = source_of(item.address, prefix)
            if network in held:
                continue
            # The entry's own counter counts looks at it as well, so it is no number of refusals.
            yield DroppedSource(
                network,
                "replies",
                name,
                reason,
                last=_began(item, sets[name].timeout, now),
                left=item.left,
            )


def _asking(ruleset: Ruleset, name: str) -> Rule | None:
    """Return the rule that asks a set about the source: that of plain SIP, where there is one."""
    found = [
        (chain.name not in {names.SOURCES, names.STREAMS}, rule)
        for chain in ruleset.chains
        for rule in chain.rules
        if any(isinstance(match, InSet) and match.set == name for match in rule.matches)
    ]
    return min(found, key=lambda item: item[0])[1] if found else None


def _began(item: Member, timeout: int | None, now: float) -> float | None:
    """Return when the entry got its time; None for one that was given another than the set's."""
    if item.left is None or timeout is None or item.left > timeout:
        return None
    return now - (timeout - item.left)


def from_limits(firewall: Firewall) -> tuple[list[DroppedSource], list[str]]:
    """Return who is above a limit of its own, and what the kernel does not show."""
    chains = [chain for chain in firewall.ruleset.chains if chain.name not in _MEMORIES]
    rules = [
        (match, chain, rule)
        for chain in chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, RateAbove | SeenAtLeast)
    ]
    state = backend_of(firewall.backend, ipset=firewall.ipset).limits()
    tables = state.read(source_limits(replace(firewall.ruleset, chains=tuple(chains))))
    found: list[DroppedSource] = []
    for table in tables:
        chain, rule = next((c, r) for match, c, r in rules if match == table.limit)
        found += _above(table, chain, rule)
    notes = []
    if any(table.cut for table in tables):
        notes.append("more sources have a limit of their own than are read")
    if any(one.standing is Standing.UNKNOWN for table in tables for one in table.buckets):
        notes.append("nftables does not show who is above a limit; an NFLOG group would")
    return found, notes


def _above(table: LimitTable, chain: Chain, rule: Rule) -> Iterator[DroppedSource]:
    found: dict[IpNetwork, DroppedSource] = {}
    for item in table.buckets:
        if item.standing is not Standing.EXCEEDED:
            continue
        last = _last_seen(item, table)
        old = found.get(item.network)
        # A source may have a bucket for each of its ports.
        if old is None or (last or 0.0) > (old.last or 0.0):
            found[item.network] = DroppedSource(
                item.network,
                chain.layer.value,
                rule.id,
                rule.summary,
                last=last,
                left=None if item.expires is None else round(item.expires),
            )
    yield from found.values()


def _last_seen(item: SourceBucket, table: LimitTable) -> float | None:
    """Return when a bucket was last used: each packet gives it its whole life again."""
    if item.expires is None or isinstance(table.limit, SeenAtLeast):
        return None
    return time.time() - max(table.limit.lifetime - item.expires, 0.0)


def log_group(ruleset: Ruleset) -> int | None:
    """Return the NFLOG group that the ruleset logs to, None without one."""
    for chain in ruleset.chains:
        for rule in chain.rules:
            if isinstance(rule.action, Log) and rule.action.group is not None:
                return rule.action.group
    return None


def from_log(ruleset: Ruleset, packets: Iterable[Logged]) -> list[DroppedSource]:
    """Return whom the kernel has logged as dropped."""
    dropped = {
        rule.action.prefix: (chain, last)
        for chain in ruleset.chains
        for rule in chain.rules
        if isinstance(rule.action, Log)
        for last in chain.rules
        if isinstance(last.action, Drop | Reset)
    }
    prefix = source_prefix(ruleset)
    found: dict[tuple[IpNetwork, str], DroppedSource] = {}
    for item in packets:
        if item.prefix not in dropped:
            continue
        chain, rule = dropped[item.prefix]
        key = (source_of(item.source, prefix), rule.id)
        seen = DroppedSource(
            key[0],
            chain.layer.value,
            plain_id(rule.id),
            rule.summary,
            1,
            item.moment,
            item.moment,
        )
        found[key] = seen_again(found.get(key), seen)
    return list(found.values())
