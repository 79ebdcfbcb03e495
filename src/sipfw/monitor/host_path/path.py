"""All hooks of this host in the order in which a packet meets them, and what it is at each.

Followed on the way are what takes a packet out of connection tracking and what sends it to another
port or host. Bridges and what another host does are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from sipfw.compare.foreign import Verdict
from sipfw.host.own_addresses import own_addresses
from sipfw.host.proc_net import lines_of, way_to
from sipfw.monitor.host_path import nft, xtables
from sipfw.monitor.host_path.fit import ESTABLISHED, INVALID, NEW, UNTRACKED, Grant
from sipfw.monitor.host_path.members import ForeignSets
from sipfw.monitor.host_path.ways import default_end
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sipfw.compare.foreign import Sent
    from sipfw.host.runner import Runner
    from sipfw.monitor.doctor.rules import HostRules
    from sipfw.monitor.host_path.ways import End, HookChains, Step
    from sipfw.ruleset.addresses import IpAddress

# netfilter_ipv4.h, NF_IP_PRI_CONNTRACK: before it no packet belongs to a connection.
_CONNTRACK = -200
_INCOMING = {"ingress": 0, "prerouting": 1, "input": 2}
_OUTGOING = {"output": 0, "postrouting": 1, "egress": 2}
_STAGES = {**_INCOMING, **_OUTGOING}
_SENDS = frozenset({Verdict.SEND, Verdict.REDIRECT})


@dataclass(frozen=True, slots=True)
class Visit:
    """A packet at a hook. `end` is where it leaves it, as far as nothing has to be guessed.

    `untracked` are the rules there that took it out of connection tracking, or into another zone.
    `moved` is what it is behind a rule that sends it on; `away` is the other host that it then
    goes to.
    """

    way: HookChains
    grant: Grant
    end: End
    untracked: tuple[Step, ...] = ()
    moved: Grant | None = None
    away: IpAddress | None = None


class HostPath:
    """The rules of one host as hooks in order."""

    def __init__(self, rules: HostRules, proc: Path, runner: Runner | None = None) -> None:
        sets = None if runner is None else ForeignSets(runner)
        found = [
            way
            for listing in rules.xtables
            for way in xtables.ways(listing, None if sets is None else sets.ipset)
        ]
        look, listing = (None, None) if sets is None else (sets.nft, sets.elements)
        # Of two hooks of one priority the younger is asked first (nf_hook_entries_grow), and nft
        # lists the older first.
        found += reversed(list(nft.ways(rules.nft, rules.xtables, look, listing)))
        self.ways = sorted(found, key=lambda way: (_STAGES[way.hook], way.priority))
        self._proc = proc

    @cached_property
    def own(self) -> frozenset[IpAddress]:
        """The addresses of this host that others can reach."""
        return frozenset(
            item
            for item in own_addresses(self._proc)
            if not (item.is_loopback or item.is_link_local or item.is_multicast)
        )

    @cached_property
    def acting(self) -> list[HookChains]:
        """The hooks in which rules of others can change what happens to a packet."""
        return [way for way in self.ways if way.may_drop or way.changes]

    def placed(self, grant: Grant, interfaces: frozenset[str]) -> Grant:
        """Return it with the interfaces between, and the addresses of this host."""
        own = frozenset(item for item in self.own if (item.version == 6) == (grant.family == "ip6"))
        near = frozenset(item for item in own if self._interface_of[item] in interfaces)
        return replace(
            grant,
            interfaces=interfaces,
            own=own,
            near=near,
            marked=self._marks,
            queues=self._queues,
        )

    @cached_property
    def _marks(self) -> bool:
        return any(step.rule.marks for way in self.ways for step in way.foreign)

    @cached_property
    def _queues(self) -> frozenset[int]:
        """The queues that a program takes packets from (nfnetlink_queue.c, seq_show)."""
        rows = lines_of(self._proc / "net/netfilter/nfnetlink_queue")
        first = (row.split()[0] for row in rows if row.strip())
        return frozenset(int(word) for word in first if word.isdecimal())

    @cached_property
    def _interface_of(self) -> dict[IpAddress, str | None]:
        # The route to the network of an address leads through the interface that has it.
        return {item: way_to(item, self._proc) for item in self.own}

    def travel(self, grant: Grant, ways: Sequence[HookChains] | None = None) -> Iterator[Visit]:
        """Yield each hook that the packets meet, and go on behind what drops them.

        With `ways`, these hooks of it alone.
        """
        order = _OUTGOING if grant.answer else _INCOMING
        tracked = grant.state != UNTRACKED
        for way in self.ways if ways is None else ways:
            if way.hook not in order or not _is_for(way, grant):
                continue
            if way.kind == "nat" and (not tracked or grant.answer):
                continue
            here = replace(grant, state=_state(way, grant, tracked=tracked))
            end, changed = default_end(way, here)
            tracked = tracked and not any(step.rule.untracks for step in changed)
            moved, away = self._moved(end, grant)
            yield Visit(way, here, end, tuple(changed), moved, away)
            if away is not None:
                return
            grant = moved or grant

    def _moved(self, end: End, grant: Grant) -> tuple[Grant | None, IpAddress | None]:
        if end.rule is None or end.rule.verdict not in _SENDS:
            return None, None
        sent = next((item for item in end.rule.sent if _is_of(item, grant.ports)), None)
        if sent is None:
            return None, None
        address = next(iter(sent.addresses), None)
        away = None if address is None or self._is_here(address) else address
        if sent.ports is None:
            return None, away
        ports = PortRange(sent.ports.first, sent.ports.first)
        return replace(grant, ports=ports, asked=grant.asked or grant.ports), away

    def _is_here(self, address: IpAddress) -> bool:
        return address.is_loopback or address in self.own


def _is_of(sent: Sent, ports: PortRange) -> bool:
    return sent.of is None or (sent.of.first <= ports.first and ports.last <= sent.of.last)


def _is_for(way: HookChains, grant: Grant) -> bool:
    if grant.family not in way.families:
        return False
    return not (way.devices and grant.interfaces and grant.interfaces.isdisjoint(way.devices))


def _state(way: HookChains, grant: Grant, *, tracked: bool) -> str:
    if not tracked:
        return UNTRACKED
    # nf_ct_get() finds no connection yet, which both packet filters call invalid.
    if way.priority <= _CONNTRACK or way.hook == "ingress":
        return INVALID
    return grant.state if grant.state in {NEW, ESTABLISHED} else NEW
