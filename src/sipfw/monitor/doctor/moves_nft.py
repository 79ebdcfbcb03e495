"""Port moves in nftables: redirect, dnat, tproxy, and a port that is written into the packet.

Lines are those of `nft -t list ruleset`, so the members of named sets and maps are asked for. What
cannot be read counts as every port: a way past is better named once too often.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sipfw.monitor.doctor.port_moves import EVERY_PORT, PROTOS, PortMove, bits_of, bits_of_list
from sipfw.ruleset.match import L4Proto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sipfw.monitor.doctor.rules import NftBlock
    from sipfw.ruleset.addresses import IpAddress

_FAMILIES = frozenset({"ip", "ip6", "inet"})
# In `input` a datagram's port may still be written over before its socket is looked up.
_HOOKS = frozenset({"prerouting", "input"})

_QUOTED = re.compile(r'"[^"\n]*"')
_LOOPBACK = re.compile(r'\biif(?:name)? "lo"')
_VALUE = r"\{[^}]*\}|@\S+|[\w-]+"
_PROTO = re.compile(
    rf"\b(?:meta l4proto|ip protocol|ip6 nexthdr) (!= )?(?!vmap )({_VALUE})|\b(udp|tcp) dport\b"
)
_DPORT = re.compile(
    rf"(\. )?\b(?:(?:udp|tcp|th) dport|ct original proto-dst) (!= )?(?!set |map |vmap )({_VALUE})"
    r"( \.)?"
)
_STATEMENT = re.compile(
    r"\b(?:redirect|tproxy(?: ip6?)?|dnat(?: ip6?)?(?: prefix)?(?: addr \. port)?) to (.+)"
    r"|\b(?:udp|tcp|th) dport set (.+)"
)
_MAP = re.compile(r"(.*?)\bv?map (\{[^}]*\}|@\S+)")
_KEY_IS_PORT = re.compile(r"(?:.*[^.\s] +|.*:|)(?:udp|tcp|th) dport")
_LEAD = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_TARGET = re.compile(r"(?:\[([0-9a-f:.]+)[^\]]*\]|([0-9.]+)(?:-[0-9.]+)?)?:(\d+(?:-\d+)?)(?:\s|$)")
_ADDRESS = re.compile(r"[0-9a-f]*[.:][0-9a-f.:]+")


@dataclass(frozen=True, slots=True)
class _Packets:
    """Which packets come to a place: their transports and ports."""

    protos: frozenset[L4Proto]
    ports: int


@dataclass(slots=True)
class _Table:
    """One table's chains, and a way to ask for the members of its sets and maps."""

    family: str
    name: str
    members: Callable[[str, str, str], str | None]
    chains: dict[str, NftBlock] = field(default_factory=dict)

    def listed(self, value: str) -> list[str] | None:
        """Return the elements of `{ a, b }` or `@name`; None where they cannot be had."""
        if value.startswith("@"):
            text = self.members(self.family, self.name, value[1:])
        else:
            text = value.strip("{} ")
        if text is None:
            return None
        return [item.strip() for item in _QUOTED.sub("", text).split(",") if item.strip()]


def moves_of_nft(
    blocks: Sequence[NftBlock], members: Callable[[str, str, str], str | None]
) -> Iterator[PortMove]:
    """Yield what the tables do with packets from outside, chain by chain as they reach it."""
    tables: dict[tuple[str, str], _Table] = {}
    for block in blocks:
        if block.kind == "chain" and block.family in _FAMILIES:
            key = block.family, block.table
            table = tables.setdefault(key, _Table(*key, members))
            table.chains[block.name] = block
    for table in tables.values():
        yield from _table_moves(table)


def _table_moves(table: _Table) -> Iterator[PortMove]:
    all_packets = _Packets(PROTOS, EVERY_PORT)
    waiting = [(name, all_packets) for name, chain in table.chains.items() if chain.hook in _HOOKS]
    reached = set(waiting)
    while waiting:
        name, packets = waiting.pop()
        where = f"nft {table.family} {table.name} {name}"
        for line in table.chains[name].lines:
            if _LOOPBACK.search(line):
                continue
            text = _QUOTED.sub("", line)
            here = _under(packets, text, table)
            if not here.protos or not here.ports:
                continue
            for step in _steps(text, here, table):
                if step[0] in table.chains and step not in reached:
                    reached.add(step)
                    waiting.append(step)
            for ports, to, address in _targets(text, here, table):
                yield PortMove(here.protos, ports, to, address, where, line)


def _under(packets: _Packets, text: str, table: _Table) -> _Packets:
    """Return those of the packets that a rule is for."""
    protos, ports = packets.protos, packets.ports
    for negated, value, transport in _PROTO.findall(text):
        words = {transport} if transport else set(table.listed(value) or L4Proto)
        named = frozenset(L4Proto(word) for word in words & {*L4Proto})
        protos &= PROTOS - named if negated else named
    for before, negated, value, behind in _DPORT.findall(text):
        # A part of a longer key says nothing by itself.
        if not before and not behind:
            listed = table.listed(value) if value[0] in "{@" else [value]
            if listed is None:
                continue
            named_ports = bits_of_list([item.split()[0] for item in listed])
            ports &= EVERY_PORT & ~named_ports if negated else named_ports
    return _Packets(protos, ports)


def _steps(text: str, here: _Packets, table: _Table) -> Iterator[tuple[str, _Packets]]:
    """Yield the chains to which a rule leads, and what gets there."""
    found = _MAP.search(text) if " vmap " in text else None
    if found is None:
        yield from ((name, here) for name in _LEAD.findall(text))
        return
    for key, value in _pairs(found, here, table):
        yield from ((name, _Packets(here.protos, key)) for name in _LEAD.findall(value))


def _targets(
    text: str, here: _Packets, table: _Table
) -> Iterator[tuple[int, int, IpAddress | None]]:
    """Yield ports, the ports that they become, and the address of a statement."""
    statement = _STATEMENT.search(text)
    if statement is None:
        return
    target = statement[1] or statement[2]
    if (mapped := _MAP.search(target)) is not None:
        for key, value in _pairs(mapped, here, table):
            yield key, _ports_in(value), _address_in(value)
    elif statement[2] is not None:
        yield here.ports, bits_of(target.split()[0]) or EVERY_PORT, None
    elif (found := _TARGET.match(target)) is not None:
        yield here.ports, bits_of(found[3]) or 0, _address_in(found[1] or found[2] or "")


def _pairs(found: re.Match[str], here: _Packets, table: _Table) -> Iterator[tuple[int, str]]:
    """Yield the ports of each key of a map, and its value; unknown ones are all of them."""
    listed = table.listed(found[2])
    if listed is None:
        yield here.ports, ""
        return
    by_port = _KEY_IS_PORT.fullmatch(found[1].rstrip()) is not None
    for item in listed:
        key, _, value = item.partition(" : ")
        ports = bits_of(key.split()[0]) if by_port else None
        yield here.ports & (EVERY_PORT if ports is None else ports), value.strip()


def _ports_in(value: str) -> int:
    """Read `5060`, `192.0.2.1 . 5060` or nothing, which may be any; an address alone has none."""
    last = value.rpartition(" . ")[2].split()
    if not last:
        return EVERY_PORT
    return bits_of(last[0]) or (0 if _ADDRESS.search(last[0]) else EVERY_PORT)


def _address_in(value: str) -> IpAddress | None:
    found = _ADDRESS.search(value)
    with suppress(ValueError):
        return None if found is None else ip_address(found[0])
    return None
