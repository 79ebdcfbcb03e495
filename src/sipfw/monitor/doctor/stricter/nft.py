"""nft's listing as ways: the expressions that are understood, and everything else as unsure.

A rule with a verdict map becomes one rule for each of its entries.
"""

from __future__ import annotations

import re
from copy import copy
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import TYPE_CHECKING

from sipfw.lower.nftables_plan import TABLE
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.stricter.conditions import Condition
from sipfw.monitor.doctor.stricter.ways import ForeignRule, ForeignVerdict, HookChains
from sipfw.monitor.doctor.stricter.xtables import all_but, port_range
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from sipfw.monitor.doctor.rules import NftBlock, XtablesListing
    from sipfw.monitor.doctor.stricter.conditions import Network

    _Read: TypeAlias = tuple[Condition, ForeignVerdict, str]

_FAMILIES = {
    "inet": frozenset(Family),
    "ip": frozenset({Family.IP}),
    "ip6": frozenset({Family.IP6}),
}
_NFPROTO = {"ipv4": Family.IP, "ipv6": Family.IP6}
_HOOKS = frozenset({"input", "prerouting"})
_TOKEN = re.compile(r'"[^"]*"|\{[^{}]*\}|[^\s{}"]+')
_VERDICTS = {
    "accept": ForeignVerdict.ACCEPT,
    "drop": ForeignVerdict.DROP,
    "reject": ForeignVerdict.DROP,
    "return": ForeignVerdict.RETURN,
    "queue": ForeignVerdict.ACCEPT,
    "continue": ForeignVerdict.NONE,
}
_LEADS = {"jump": ForeignVerdict.JUMP, "goto": ForeignVerdict.GOTO}
_PROTOCOLS = frozenset({"tcp", "udp", "th", "sctp", "dccp", "udplite"})
_SERVICES = {"sip": 5060, "sip-tls": 5061, "sips": 5061, "ssh": 22, "http": 80, "https": 443}
# Statements that change nothing for the packet, with how many words follow them.
_STATEMENTS = {"counter": 0, "packets": 1, "bytes": 1, "comment": 1, "log": 0, "prefix": 1}
_STATEMENTS |= {"name": 1, "level": 1, "group": 1, "snaplen": 1, "queue-threshold": 1}
_NETWORK = {"ip": Family.IP, "ip6": Family.IP6}
_NUMBERS = {"6": "tcp", "17": "udp"}
_KEYS = {
    ("ip", "saddr"): "source",
    ("ip6", "saddr"): "source",
    ("ip", "protocol"): "protocol",
    ("ip6", "nexthdr"): "protocol",
    ("meta", "l4proto"): "protocol",
    ("meta", "nfproto"): "family",
    ("tcp", "dport"): "port",
    ("udp", "dport"): "port",
    ("th", "dport"): "port",
    ("ct", "state"): "state",
    ("fib", "daddr type"): "type",
}


def ways(blocks: Sequence[NftBlock], xtables: Sequence[XtablesListing]) -> Iterator[HookChains]:
    """Return the base chains that packets to this host pass, without ours.

    Those that iptables-nft has listed are left out: nft shows them too.
    """
    listed = {
        (str(Family.IP6 if item.program.startswith("ip6") else Family.IP), item.table.name, chain)
        for item in xtables
        if item.program.endswith("-nft")
        for chain in (head.name for head in item.table.chains)
    }
    chains: dict[tuple[str, str], list[NftBlock]] = {}
    for block in blocks:
        if block.kind == "chain" and (block.family, block.table) != ("inet", TABLE):
            chains.setdefault((block.family, block.table), []).append(block)
    for (family, table), found in chains.items():
        known = {
            block.name: tuple(_rules(block, numbered=block.hook is not None)) for block in found
        }
        for block in found:
            if block.hook not in _HOOKS or family not in _FAMILIES:
                continue
            if (family, table, block.name) in listed:
                continue
            yield HookChains(
                f"nft {family} {table} {block.name}",
                _FAMILIES[family],
                block.name,
                block.drops,
                known,
                ("nft", family, table, block.name),
                xtables=False,
            )


def _rules(block: NftBlock, *, numbered: bool) -> Iterator[ForeignRule]:
    for place, line in enumerate(block.lines):
        for asks, verdict, chain in _Reader(line).read():
            yield ForeignRule(line, asks, verdict, chain, place=place if numbered else None)


class _Reader:
    """Reads one line from left to right."""

    def __init__(self, line: str) -> None:
        self._tokens: list[str] = _TOKEN.findall(line)
        self._at = 0
        self._asks = Condition()

    def read(self) -> Iterator[_Read]:
        """Return what the line asks and does, more than once where it has a verdict map."""
        while (token := self._next()) is not None:
            if token in _VERDICTS or token in _LEADS:
                yield self._verdict(self._asks, [token, self._next() or ""])
                return
            behind = self._at
            try:
                key = self._expression(token)
            except ValueError:
                # Word by word, so that no verdict is taken for a value.
                self._asks.unsure, self._at, key = True, behind, ""
            if self._peek() == "vmap":
                yield from self._map(key)
                return

    def _verdict(self, asks: Condition, words: Sequence[str]) -> _Read:
        if words[0] in _LEADS:
            return asks, _LEADS[words[0]], words[1].strip('"') if len(words) > 1 else ""
        return asks, _VERDICTS.get(words[0], ForeignVerdict.NONE), ""

    def _map(self, key: str) -> Iterator[_Read]:
        """Read `vmap { established : accept, new : jump more }`; a named map tells nothing."""
        self._next()
        for entry in _listed(self._next() or ""):
            value, _, verdict = entry.rpartition(" : ")
            asks = copy(self._asks)
            try:
                self._ask(asks, key, [value.strip()], negated=False)
            except ValueError:
                asks.unsure = True
            yield self._verdict(asks, verdict.split() or [""])

    def _next(self) -> str | None:
        token = self._peek()
        self._at += 1
        return token

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _expression(self, token: str) -> str:
        """Read one expression or statement; ValueError where it is not understood.

        Returns the key of an expression: what `vmap` behind it asks.
        """
        if token in _STATEMENTS:
            self._at += _STATEMENTS[token]
            return ""
        key = self._key(token)
        if self._peek() == "vmap":
            return key
        if self._peek() == ".":
            raise ValueError("several things at once")
        negated = self._peek() == "!="
        if negated or self._peek() == "==":
            self._next()
        value = self._next() or ""
        # `tcp flags syn / fin,syn,rst,ack`, and masks of other kinds.
        if self._peek() in {"/", "&", "|"}:
            raise ValueError("a mask")
        self._ask(self._asks, key, _listed(value), negated=negated)
        return key

    def _key(self, word: str) -> str:
        """Name what is asked, and note what the name alone says."""
        if word in {"iif", "iifname"}:
            return "interface"
        second = self._next() or ""
        if word in _NETWORK:
            self._asks.family = _NETWORK[word]
        elif word in _PROTOCOLS - {"th"}:
            self._asks.protocols = frozenset({word})
        elif word in {"icmp", "icmpv6"}:
            self._asks.never = True
        elif word == "fib":
            second = f"{second} {self._next()}"
        key = _KEYS.get((word, second))
        if key is None:
            raise ValueError(f"{word} {second}")
        return key

    def _ask(self, asks: Condition, key: str, values: Sequence[str], *, negated: bool) -> None:
        match key:
            case "interface":
                names = frozenset(item.strip('"') for item in values)
                if negated:
                    asks.not_interfaces = names
                else:
                    asks.interfaces = names
            case "source":
                _source(asks, values, negated=negated)
            case "port":
                ranges = [_port_range(item) for item in values]
                asks.ports = tuple(all_but(ranges) if negated else ranges)
            case "protocol":
                names = frozenset(_NUMBERS.get(item, item) for item in values)
                asks.protocols = frozenset({"tcp", "udp"} - names) if negated else names
            case "family":
                family = _NFPROTO.get(values[0])
                if family is None:
                    raise ValueError(values[0])
                asks.never |= negated or asks.family not in (None, family)
                asks.family = family
            case "state":
                asks.never |= negated == ("new" in values)
            case "type":
                asks.never |= negated == ("local" in values)
            case _:
                raise ValueError(key)


def _source(asks: Condition, values: Sequence[str], *, negated: bool) -> None:
    if values[0].startswith("@"):
        asks.unsure |= asks.in_set is not None
        asks.in_set = not negated
        return
    networks: list[Network] = []
    for item in values:
        first, dash, last = item.partition("-")
        if dash:
            networks += list(summarize_address_range(ip_address(first), ip_address(last)))
        else:
            networks.append(ip_network(item, strict=False))
    if negated:
        asks.not_sources = tuple(networks)
    else:
        asks.sources = tuple(networks)


def _port_range(text: str) -> PortRange:
    first, dash, last = text.partition("-")
    if first in _SERVICES and not dash:
        return PortRange(_SERVICES[first], _SERVICES[first])
    return port_range(first, last if dash else first)


def _listed(text: str) -> list[str]:
    """Return the values of `5060`, `established,related` and `{ 22, 80-81 }`."""
    return [item.strip() for item in text.strip("{} ").split(",") if item.strip()] or [""]
