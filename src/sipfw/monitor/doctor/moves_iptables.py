"""Port moves in the tables of iptables: REDIRECT, DNAT and TPROXY."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.save_text import split_words
from sipfw.monitor.doctor.port_moves import EVERY_PORT, PROTOS, PortMove, bits, bits_of_list
from sipfw.ruleset.match import L4Proto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.kernel.xtables.save_text import SavedRule
    from sipfw.monitor.doctor.rules import XtablesListing
    from sipfw.ruleset.addresses import IpAddress

# TPROXY is for mangle; what leaves this host by itself does not come from outside.
_TABLES = frozenset({"nat", "mangle"})
_START = "PREROUTING"

_PORT_OPTIONS = ("--dport", "--dports", "--ports", "--ctorigdstport")
_PORTS_OPTION = {"REDIRECT": "--to-ports", "DNAT": "--to-destination", "TPROXY": "--on-port"}
# `192.0.2.1:5060-5070/7000`, `[2001:db8::1]:5060`, `:5060`, and ranges of addresses.
_TARGET = re.compile(
    r"(?:\[([0-9a-fA-F:.]+)(?:\]?-\[?[0-9a-fA-F:.]+)?\]|([0-9.]+)(?:-[0-9.]+)?)?"
    r":(\d{1,5})(?:-(\d{1,5}))?(?:/\d{1,5})?"
)
_NUMBERS = {"17": L4Proto.UDP, "6": L4Proto.TCP, "udp": L4Proto.UDP, "tcp": L4Proto.TCP}


@dataclass(frozen=True, slots=True)
class _Packets:
    """Which packets come to a place: their transports and ports."""

    protos: frozenset[L4Proto]
    ports: int

    def under(self, words: tuple[str, ...]) -> _Packets:
        """Return those that a rule is for."""
        protos, ports = self.protos, self.ports
        for index, word in enumerate(words[:-1]):
            negated = words[index - 1] == "!"
            if word == "-p" and words[index + 1] != "all":
                named = frozenset(filter(None, [_NUMBERS.get(words[index + 1])]))
                protos &= PROTOS - named if negated else named
            elif word in _PORT_OPTIONS:
                named_ports = bits_of_list(words[index + 1].split(","))
                ports &= EVERY_PORT & ~named_ports if negated else named_ports
        return _Packets(protos, ports)


def moves_of_iptables(listing: XtablesListing) -> Iterator[PortMove]:
    """Yield what one table does with packets from outside, chain by chain as they reach it."""
    table = listing.table
    if table.name not in _TABLES:
        return
    waiting = [(_START, _Packets(PROTOS, EVERY_PORT))]
    reached = set(waiting)
    while waiting:
        name, packets = waiting.pop()
        chain = table.chain(name)
        for rule in () if chain is None else chain.rules:
            words = split_words(rule.line)
            here = packets.under(words)
            if _is_loopback(words) or not here.protos or not here.ports:
                continue
            step = rule.target or "", here
            if table.chain(step[0]) is not None and step not in reached:
                reached.add(step)
                waiting.append(step)
            yield from _move(rule, words, here, f"{listing.program} {table.name} {name}")


def _is_loopback(words: tuple[str, ...]) -> bool:
    return any(
        word == "-i" and words[index + 1] == "lo" and words[index - 1] != "!"
        for index, word in enumerate(words[:-1])
    )


def _move(
    rule: SavedRule, words: tuple[str, ...], here: _Packets, where: str
) -> Iterator[PortMove]:
    option = _PORTS_OPTION.get(rule.target or "")
    if option is None or option not in words[:-1]:
        return
    text = words[words.index(option) + 1]
    found = _TARGET.fullmatch(text if rule.target == "DNAT" else f":{text}")
    # Port 0 of TPROXY, and a target without a port, leave the port as it is.
    if found is not None and int(found[3]):
        to = bits(int(found[3]), int(found[4] or found[3]))
        address = _address(found[1] or found[2])
        yield PortMove(here.protos, here.ports, to, address, where, rule.line)


def _address(text: str | None) -> IpAddress | None:
    with suppress(ValueError):
        return None if text is None else ip_address(text)
    return None
