"""Rules of nft's text as typed rules: what is understood, and everything else as unsure.

A rule with a verdict map has one entry for each of the map's.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import TYPE_CHECKING, Any

from sipfw.compare.foreign import (
    Asked,
    AskedPorts,
    Conditions,
    ForeignRule,
    PortSide,
    Verdict,
    port_range,
)
from sipfw.kernel.nft.sent_text import SERVICES, listed, sent, statement
from sipfw.ruleset.match import PortRange
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.compare.foreign import Sent
    from sipfw.kernel.nft.sent_text import Members
    from sipfw.ruleset.addresses import IpNetwork

_NFPROTO = {"ipv4": Family.IP, "ipv6": Family.IP6}
_TOKEN = re.compile(r'"[^"]*"|\{[^{}]*\}|[^\s{}"]+')
_VERDICTS = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.REJECT,
    "return": Verdict.RETURN,
    "queue": Verdict.QUEUE,
    "continue": Verdict.NONE,
    # From an ingress hook to another device: it never comes to this host.
    "fwd": Verdict.DROP,
}
_LEADS = {"jump": Verdict.JUMP, "goto": Verdict.GOTO}
_SENDS = {"dnat": Verdict.SEND, "redirect": Verdict.REDIRECT, "tproxy": Verdict.REDIRECT}
# What this host's rules do with packets in ways that nobody here follows.
_UNREAD = frozenset({"synproxy", "xt"})
# Such a word is no value: what follows is a comparison of another kind.
_OPERATORS = frozenset({"&", "|", "^", "!", "<", ">", "<=", ">=", "/", "<<", ">>"})
_PROTOCOLS = frozenset({"tcp", "udp", "sctp", "dccp", "udplite"})
_IMPLIED = re.compile(r"\b(tcp|udp) dport\b")
_WRITTEN = "written"
# `limit rate over 10/second burst 5 packets`, `quota over 25 mbytes used 3 bytes`.
_MEASURES = frozenset({"limit", "quota"})
_MEASURED = re.compile(
    r"rate|over|until|used|burst|packets|[kmg]?bytes|\d+(?:[kmg]?bytes)?(?:/\w+)?"
)
# How the comment of a rule of ours begins.
_OURS = 'comment "sipfw:'
# Statements that change nothing for the packet, with how many words follow them.
_STATEMENTS = {"counter": 0, "packets": 1, "bytes": 1, "comment": 1, "log": 0, "prefix": 1}
_STATEMENTS |= {"name": 1, "level": 1, "group": 1, "snaplen": 1, "queue-threshold": 1}
_UNTRACKS = "notrack"
_STATEMENTS |= {_UNTRACKS: 0}
# Behind this one a verdict may follow.
_ASKS_MORE = "tproxy"
_FAMILIES = {
    "ip": Family.IP,
    "ip6": Family.IP6,
    "icmp": Family.IP,
    "icmpv6": Family.IP6,
}
_NUMBERS = {"6": "tcp", "17": "udp"}
_INTERFACES = {
    "iif": "interface",
    "iifname": "interface",
    "oif": "out interface",
    "oifname": "out interface",
}
_QUEUES = re.compile(r"\bqueue\b.*?\b(?:num|to) (\d{1,5})(?:-(\d{1,5}))?")
_MOST_QUEUES = 64
_SIDES = {
    "port": PortSide.DESTINATION,
    "source port": PortSide.SOURCE,
    "original port": PortSide.ORIGINAL,
}
# Keys of several words, of which the first two do not tell what is asked.
_LONG = frozenset({"fib", "ct original"})
_KEYS = {
    "ip saddr": "source",
    "ip6 saddr": "source",
    "ip protocol": "protocol",
    "ip6 nexthdr": "protocol",
    "meta l4proto": "protocol",
    "meta nfproto": "family",
    "meta protocol": "ethertype",
    "ether type": "ethertype",
    "meta mark": "mark",
    "ct mark": "mark",
    "tcp dport": "port",
    "udp dport": "port",
    "th dport": "port",
    "tcp sport": "source port",
    "udp sport": "source port",
    "th sport": "source port",
    "ip daddr": "destination",
    "ip6 daddr": "destination",
    "ct original proto-dst": "original port",
    "ct state": "state",
    "fib daddr type": "type",
}


def foreign_rule(line: str, members: Members | None = None) -> ForeignRule:
    """Read one line; `members` lists those of a named set or map of its table.

    Without `members`, what is looked up in one is not known.
    """
    return _Reader(line, members).read()


class _Conditions:
    """Collects the conditions of one rule."""

    def __init__(self, asked: dict[str, list[Asked[Any]]], unsure: list[str]) -> None:
        self._asked = asked
        self.unsure = unsure

    def copy(self) -> _Conditions:
        """Return what is noted so far, to note more for one entry of a map."""
        asked = {kind: list(items) for kind, items in self._asked.items()}
        return _Conditions(asked, list(self.unsure))

    def done(self) -> Conditions:
        """Return what was noted."""
        asked: dict[str, Any] = {
            kind: tuple(dict.fromkeys(items)) for kind, items in self._asked.items()
        }
        return Conditions(**asked, unsure=tuple(self.unsure))

    def add(self, kind: str, item: Asked[Any]) -> None:
        """Note one condition."""
        self._asked.setdefault(kind, []).append(item)


class _Reader:
    """Reads one line from left to right."""

    def __init__(self, line: str, members: Members | None) -> None:
        self._line = line
        self._members = members
        self._tokens: list[str] = _TOKEN.findall(line)
        self._at = 0
        self._asks = _Conditions({}, [])
        self._does = Verdict.NONE
        self._sent: list[Sent] = []
        self._untracks = self._zone = self._marks = False
        self._unread = ""

    def read(self) -> ForeignRule:
        """Return what the line asks and does."""
        while (token := self._next()) is not None:
            if token in _VERDICTS or token in _LEADS:
                return self._rule(self._asks, [token, self._next() or ""])
            behind = self._at
            try:
                key = self._expression(token)
            except ValueError:
                # Word by word, so that no verdict is taken for a value.
                self._asks.unsure.append(token)
                self._at, key = behind, ""
            if self._peek() == "vmap":
                entries = tuple(self._map(key))
                return ForeignRule(self._line, self._asks.done(), Verdict.MAP, entries=entries)
        return self._rule(self._asks, [])

    def _rule(self, asks: _Conditions, words: Sequence[str]) -> ForeignRule:
        chain = ""
        verdict = _VERDICTS.get(words[0], Verdict.NONE) if words else self._does
        if words and words[0] in _LEADS:
            verdict = _LEADS[words[0]]
            chain = words[1].strip('"') if len(words) > 1 else ""
        return ForeignRule(
            self._line,
            asks.done(),
            verdict,
            chain,
            tuple(self._sent),
            ours=_OURS in self._line,
            untracks=self._untracks,
            zone=self._zone,
            marks=self._marks,
            queues=self._queues() if verdict is Verdict.QUEUE else (),
            unread=self._unread or self._unsent(verdict),
        )

    def _unsent(self, verdict: Verdict) -> str:
        """Name what is not known of where a rule sends packets."""
        known = any(item.addresses or item.ports is not None for item in self._sent)
        asks_socket = _ASKS_MORE in self._tokens
        if asks_socket:
            return "whether the program there takes what is not for this host (tproxy)"
        return "where it is sent to" if verdict is Verdict.SEND and not known else ""

    def _queues(self) -> tuple[int, ...]:
        """Return the queues whose packets need a program; `bypass` lets them go on without."""
        found = _QUEUES.search(self._line)
        if "bypass" in self._line or found is None:
            return () if "bypass" in self._line else (0,)
        first = int(found[1])
        return tuple(range(first, min(int(found[2] or first), first + _MOST_QUEUES) + 1))

    def _map(self, key: str) -> Iterator[ForeignRule]:
        """Read `vmap { established : accept, new : jump more }`."""
        self._next()
        entries = self._listed(self._next() or "")
        if entries is None:
            self._unread = "which verdict its map gives"
            yield self._rule(self._asks, [""])
        for entry in entries or ():
            value, _, verdict = entry.rpartition(" : ")
            asks = self._asks.copy()
            try:
                self._ask(asks, key, [value.strip()], negated=False)
            except ValueError as error:
                asks.unsure.append(str(error))
            yield self._rule(asks, verdict.split() or [""])

    def _next(self) -> str | None:
        token = self._peek()
        self._at += 1
        return token

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _listed(self, value: str) -> list[str] | None:
        return listed(value, self._members)

    def _expression(self, token: str) -> str:
        """Read one expression or statement; ValueError where it is not understood.

        Returns the key of an expression: what `vmap` behind it asks.
        """
        if token in _STATEMENTS:
            self._untracks = self._untracks or token == _UNTRACKS
            self._at += _STATEMENTS[token]
            return ""
        if token in _UNREAD:
            self._unread = f"what {token} does with it"
        if token in _MEASURES:
            self._asks.unsure.append(" ".join([token, *self._measure()]))
            return ""
        if token in _SENDS:
            self._does = _SENDS[token]
            self._send(statement(self._rest()))
            if self._does is Verdict.REDIRECT and _ASKS_MORE in self._line:
                raise ValueError(token)
            # It ends the rule; what follows are its own options.
            self._at = len(self._tokens)
            return ""
        joined = self._tokens[: self._at - 1][-1:] == ["."]
        key = self._key(token)
        if key == _WRITTEN or self._peek() == "vmap":
            return key
        if self._peek() == ".":
            raise ValueError(f"{token} and more at once")
        negated = self._peek() == "!="
        if negated or self._peek() == "==":
            self._next()
        value = self._next() or ""
        if joined and key != "source":
            raise ValueError(f"{token} and more at once")
        if value == "set" and key == "mark":
            self._marks = True
            self._next()
            return _WRITTEN
        if value == "set":
            if key == "port":
                self._send(self._rest(), written=True)
            self._unread = f"what it writes: {token} {self._line.rpartition(' set ')[2]}"
            raise ValueError("it is written")
        if value in _OPERATORS:
            raise ValueError(f"{token} {value}")
        # `tcp flags syn / fin,syn,rst,ack`, and masks of other kinds.
        if self._peek() in {"/", "&", "|"}:
            raise ValueError(f"{token} under a mask")
        self._ask(self._asks, key, self._values(key, value), negated=negated)
        return key

    def _measure(self) -> Iterator[str]:
        while _MEASURED.fullmatch(self._peek() or ""):
            yield self._next() or ""

    def _rest(self) -> str:
        return " ".join(item for item in self._tokens[self._at :] if not item.startswith('"'))

    def _send(self, target: str | None, *, written: bool = False) -> None:
        """Note where packets are sent; a map by ports says of which transport they are."""
        if target is not None:
            for name in _IMPLIED.findall(target):
                self._asks.add("protocols", Asked((name,)))
            self._sent += sent(target, self._members, written=written)

    def _values(self, key: str, value: str) -> list[str]:
        """Return what is compared with; the members of a named set of addresses are not asked."""
        if not value.startswith("@") or key == "source":
            return _in_braces(value)
        # Names of interfaces are quoted, and what is quoted is not listed.
        found = None if "interface" in key else self._listed(value)
        if found is None:
            raise ValueError(f"{key} in {value}")
        return found

    def _key(self, word: str) -> str:
        """Name what is asked, and note what the name alone says."""
        if word in _INTERFACES:
            return _INTERFACES[word]
        name = f"{word} {self._next() or ''}"
        if word in _FAMILIES:
            self._asks.add("families", Asked((_FAMILIES[word],)))
        if word in _PROTOCOLS or word in {"icmp", "icmpv6"}:
            self._asks.add("protocols", Asked((word,)))
        if word in _LONG or name in _LONG:
            name = f"{name} {self._next()}"
        key = _KEYS.get(name)
        # What is written into the packet or its connection asks nothing of it.
        if key is None and self._peek() == "set":
            self._zone = self._zone or name == "ct zone"
            self._at += 2
            return _WRITTEN
        if key is None:
            raise ValueError(name)
        return key

    def _ask(self, asks: _Conditions, key: str, values: Sequence[str], *, negated: bool) -> None:
        match key:
            case "interface":
                names = tuple(item.strip('"') for item in values)
                asks.add("in_interfaces", Asked(names, negated))
            case "out interface":
                names = tuple(item.strip('"') for item in values)
                asks.add("out_interfaces", Asked(names, negated))
            case "source" if values[0].startswith("@"):
                asks.add("sets", Asked((values[0],), negated))
            case "source" | "destination":
                asks.add(f"{key}s", Asked(tuple(_networks(values)), negated))
            case key if key in _SIDES:
                ports = tuple(_port_range(item) for item in values)
                asks.add("ports", AskedPorts(ports, negated, _SIDES[key]))
            case "protocol":
                protocols = tuple(_NUMBERS.get(item, item) for item in values)
                asks.add("protocols", Asked(protocols, negated))
            case "family":
                families = tuple(_NFPROTO[item] for item in values if item in _NFPROTO)
                if len(families) < len(values):
                    raise ValueError(", ".join(values))
                asks.add("families", Asked(families, negated))
            case "ethertype":
                known = tuple(_FAMILIES[item] for item in values if item in {"ip", "ip6"})
                asks.add("families", Asked(known, negated))
            case "mark":
                asks.add("marks", Asked(tuple(int(item, 0) for item in values), negated))
            case "state":
                asks.add("states", Asked(tuple(values), negated))
            case "type":
                asks.add("destination_types", Asked(tuple(values), negated))
            case _:
                raise ValueError(key)


def _networks(values: Sequence[str]) -> Iterator[IpNetwork]:
    for item in values:
        first, dash, last = item.partition("-")
        if dash:
            yield from summarize_address_range(ip_address(first), ip_address(last))
        else:
            yield ip_network(item, strict=False)


def _port_range(text: str) -> PortRange:
    if " . " in text:
        raise ValueError(f"{text}, of several things at once")
    # What a member of a named set has besides, such as its timeout.
    word = text.split(maxsplit=1)[0] if text else ""
    first, dash, last = word.partition("-")
    if word in SERVICES:
        return PortRange(SERVICES[word], SERVICES[word])
    return port_range(first, last if dash else first)


def _in_braces(text: str) -> list[str]:
    """Return the values of `5060`, `established,related` and `{ 22, 80-81 }`."""
    return [item.strip() for item in text.strip("{} ").split(",") if item.strip()] or [""]
