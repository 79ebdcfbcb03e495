"""Rules of iptables-save as typed rules: what is understood, and everything else as unsure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from sipfw.compare.foreign import (
    LAST_PORT,
    Asked,
    AskedPorts,
    Conditions,
    ForeignChain,
    ForeignRule,
    PortSide,
    Sent,
    Verdict,
    port_range,
)
from sipfw.kernel.xtables.save_text import OUR_MARK, split_words
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from sipfw.kernel.xtables.save_text import SavedTable
    from sipfw.ruleset.addresses import IpAddress

_VERDICTS = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.REJECT,
    "RETURN": Verdict.RETURN,
    "QUEUE": Verdict.QUEUE,
    "NFQUEUE": Verdict.QUEUE,
    "DNAT": Verdict.SEND,
    "REDIRECT": Verdict.REDIRECT,
    "TPROXY": Verdict.REDIRECT,
} | dict.fromkeys(("TARPIT", "STEAL", "DELUDE", "CHAOS"), Verdict.TRAP)
# Texts of somebody's own, which may look like options: iptables-save quotes where it must only.
_TEXTS = frozenset(
    {"--comment", "--string", "--hex-string", "--log-prefix", "--nflog-prefix", "--name"}
)
_SIDES = {
    "--dport": PortSide.DESTINATION,
    "--dports": PortSide.DESTINATION,
    "--destination-port": PortSide.DESTINATION,
    "--destination-ports": PortSide.DESTINATION,
    "--sport": PortSide.SOURCE,
    "--sports": PortSide.SOURCE,
    "--source-port": PortSide.SOURCE,
    "--source-ports": PortSide.SOURCE,
    "--ports": PortSide.EITHER,
    "--ctorigdstport": PortSide.ORIGINAL,
}
# These match by themselves, without an option; all others are told by their options.
_SILENT = frozenset({"unclean", "socket", "eui64", "rpfilter", "cgroup"})
# The kernel lists these headers of IPv6 without an option where any will do.
_SILENT |= {"frag", "hbh", "dst", "rt"}
# These are told apart by their protocol, and without an option they ask nothing more.
_PLAIN = frozenset({"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "esp", "ah", "mh"})
_PLAIN |= {"ipv6-icmp", "comment"}
# What a packet has that opens a connection, those of one that stands, and how it ends.
_FLAGS = (
    {"SYN"},
    *({"ACK"}, {"SYN", "ACK"}),
    *({"PSH", "ACK"}, {"FIN", "ACK"}, {"RST"}, {"RST", "ACK"}),
)
_MARKS = frozenset({"mark", "connmark"})
# Targets behind which a packet goes on as it came, or with another source.
_PASSED_ON = frozenset(
    {
        *("", "LOG", "NFLOG", "ULOG", "AUDIT", "TRACE", "LED", "IDLETIMER", "RATEEST", "ACCOUNT"),
        *("MARK", "CONNMARK", "HMARK", "SECMARK", "CONNSECMARK", "CLASSIFY", "SET", "CT"),
        *("NOTRACK", "TEE", "TOS", "DSCP", "TTL", "HL", "ECN", "TCPMSS", "TCPOPTSTRIP"),
        *("CHECKSUM", "SNAT", "MASQUERADE", "NDPI", "RTPENGINE", "MEDIAPROXY"),
    }
)
_WRITES_MARKS = frozenset({"MARK", "CONNMARK", "HMARK", "TPROXY"})
_MOST_QUEUES = 64
_OF_NO_MATCH = frozenset({"-p", "-s", "-d", "-i", "-o", "-f"})
_TARGETS = frozenset({"-j", "-g"})
_QUOTES = frozenset("\"'\\")
_ONE_WORD = _TEXTS | _TARGETS
_EVERYBODY = frozenset({"0.0.0.0/0", "::/0"})
_PROTOCOLS = {"17": "udp", "6": "tcp"}
_PORTS_OPTION = {"REDIRECT": "--to-ports", "DNAT": "--to-destination", "TPROXY": "--on-port"}
# Word by word, because a text that a rule searches may hold such a comment.
_OUR_COMMENT = re.compile(
    r'-A \S+(?: (?:"(?:[^"\\]|\\.)*"|[^\s"]+))*? --comment "?' + re.escape(OUR_MARK)
)
# `192.0.2.1:5060-5070/7000`, `[2001:db8::1]:5060`, `:5060`, and ranges of addresses.
_TARGET = re.compile(
    r"(?:\[(?P<first6>[0-9a-fA-F:.]+)(?:\]?-\[?(?P<last6>[0-9a-fA-F:.]+))?\]"
    r"|(?P<first4>[0-9.]+)(?:-(?P<last4>[0-9.]+))?)?"
    r"(?::(?P<low>\d{1,5})(?:-(?P<high>\d{1,5}))?(?:/\d{1,5})?)?"
)


def foreign_rule(line: str, chains: Container[str]) -> ForeignRule:
    """Read a line of iptables-save; `chains` are those of its table, to which a target may lead."""
    found = _Reader()
    target, goes = "", False
    options: tuple[str, ...] = ()
    # Without quotes, and so for most, there is nothing but words.
    words = split_words(line) if _QUOTES.intersection(line) else tuple(line.split(" "))
    for option in _options(words[2:]):
        if option.name in _TARGETS:
            target, goes, options = option.values[0], option.name == "-g", option.behind
            break
        found.note(option)
    verdict = _VERDICTS.get(target, Verdict.NONE)
    if goes or target in chains:
        verdict = Verdict.GOTO if goes else Verdict.JUMP
    sent = tuple(_sent(target, options))
    return ForeignRule(
        line,
        found.conditions(),
        verdict,
        target,
        sent,
        ours=found.comment.startswith(OUR_MARK),
        helper=_after(options, "--helper") if target == "CT" else None,
        untracks=target == "NOTRACK" or (target == "CT" and "--notrack" in options),
        zone=target == "CT" and any(word.startswith("--zone") for word in options),
        marks=target in _WRITES_MARKS,
        queues=_queues(options) if verdict is Verdict.QUEUE else (),
        unread=_unread(verdict, target, sent),
    )


def _unread(verdict: Verdict, target: str, sent: tuple[Sent, ...]) -> str:
    """Name what a target does that nobody here can tell."""
    if target == "TPROXY":
        return "whether the program there takes what is not for this host (TPROXY)"
    if verdict is Verdict.SEND and not any(i.addresses or i.ports is not None for i in sent):
        return "where it is sent to"
    known = verdict is not Verdict.NONE or target in _PASSED_ON
    return "" if known else f"what {target} does with it"


def _queues(options: tuple[str, ...]) -> tuple[int, ...]:
    """Return the queues whose packets are dropped where no program takes them."""
    if "--queue-bypass" in options:
        return ()
    text = _after(options, "--queue-balance") or _after(options, "--queue-num") or "0"
    first, _, last = text.partition(":")
    if not (first + last).isdecimal():
        return (0,)
    return tuple(range(int(first), min(int(last or first), int(first) + _MOST_QUEUES) + 1))


def foreign_chains(table: SavedTable) -> tuple[ForeignChain, ...]:
    """Read all chains of a table, ours and the built-in ones included."""
    names = frozenset(chain.name for chain in table.chains)
    found = []
    for chain in table.chains:
        lines = [rule.line for rule in chain.rules]
        ours = chain.policy is None and bool(lines) and all(map(_OUR_COMMENT.match, lines))
        rules = _Unread(lines, names) if ours else tuple(foreign_rule(x, names) for x in lines)
        found.append(ForeignChain(chain.name, rules, denies=chain.policy == "DROP", ours=ours))
    return tuple(found)


class _Unread(Sequence[ForeignRule]):
    """Rules that are read when somebody asks for them: of ours there are thousands."""

    def __init__(self, lines: list[str], names: frozenset[str]) -> None:
        self._lines = lines
        self._names = names

    @cached_property
    def _read(self) -> tuple[ForeignRule, ...]:
        return tuple(foreign_rule(line, self._names) for line in self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, place: int) -> ForeignRule: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[ForeignRule]: ...

    def __getitem__(self, place: int | slice) -> ForeignRule | Sequence[ForeignRule]:
        return self._read[place]


def deletion(line: str) -> tuple[str, ...]:
    """Return the words behind `iptables -t TABLE` that delete the rule of a line."""
    return ("-D", *split_words(line)[1:])


class _Option(NamedTuple):
    """One option with its values; of the target, `behind` are the words of its own options."""

    name: str
    values: tuple[str, ...]
    negated: bool
    behind: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(["!"] * self.negated + [self.name, *self.values])


def _options(words: tuple[str, ...]) -> Iterator[_Option]:
    """Yield the options of the matches and the target; what stands behind are the target's own."""
    at = 0
    negated = False
    while at < len(words):
        name = words[at]
        at += 1
        if name == "!":
            negated = True
            continue
        start = at
        if name in _ONE_WORD:
            at += 1
        else:
            while at < len(words) and not _is_option(words[at]):
                at += 1
        if start < len(words) or name not in _TARGETS:
            yield _Option(name, words[start:at], negated, words[at:] if name in _TARGETS else ())
        negated = False


def _is_option(word: str) -> bool:
    return word == "!" or (word.startswith("-") and len(word) > 1)


class _Reader:
    """Collects the conditions of one rule."""

    def __init__(self) -> None:
        self.comment = ""
        self._asked: dict[str, list[Asked[Any]]] = {}
        self._opens: bool | None = None
        self._unsure: list[str] = []
        # The match whose options follow, and whether none has followed yet.
        self._match = ""
        self._bare = False

    def conditions(self) -> Conditions:
        """Return what was noted."""
        self._end_match()
        asked: dict[str, Any] = {kind: tuple(items) for kind, items in self._asked.items()}
        return Conditions(**asked, opens=self._opens, unsure=tuple(self._unsure))

    def note(self, option: _Option) -> None:
        """Note one option, also where it is not understood."""
        try:
            if option.name in {"-m", "--match"}:
                self._end_match()
                self._match, self._bare = option.values[0], option.values[0] not in _PLAIN
            elif option.name not in _OF_NO_MATCH:
                self._bare = False
            self._note(option, option.values)
        except (ValueError, IndexError):
            self._unsure.append(str(option))

    def _end_match(self) -> None:
        """Note a match that has no option: what it asks, nobody here can tell."""
        if self._bare and self._match not in _SILENT:
            self._unsure.append(f"-m {self._match}")
        self._bare = False

    def _note(self, option: _Option, values: Sequence[str]) -> None:
        match option.name:
            case "-p" | "--protocol":
                name = values[0].lower()
                if name not in {"all", "0"}:
                    self._add("protocols", option, (_PROTOCOLS.get(name, name),))
            case "-s" | "--source" | "-d" | "--destination":
                kind = "sources" if option.name in {"-s", "--source"} else "destinations"
                if values[0] not in _EVERYBODY or option.negated:
                    self._add(kind, option, (ip_network(values[0], strict=False),))
            case "--src-range":
                first, _, last = values[0].partition("-")
                found = summarize_address_range(ip_address(first), ip_address(last or first))
                self._add("sources", option, tuple(found))
            case "--dst-range":
                first, _, last = values[0].partition("-")
                found = summarize_address_range(ip_address(first), ip_address(last or first))
                self._add("destinations", option, tuple(found))
            case "--mark" if self._match in _MARKS:
                self._add("marks", option, (int(values[0].partition("/")[0], 0),))
            case "-i" | "--in-interface":
                self._add("in_interfaces", option, values[:1])
            case "-o" | "--out-interface":
                self._add("out_interfaces", option, values[:1])
            case "-m" | "--match":
                if values[0] in _SILENT:
                    raise ValueError(values[0])
            case "--state" | "--ctstate":
                self._add("states", option, values[0].lower().split(","))
            case "--match-set":
                if values[1] != "src":
                    raise ValueError(values[1])
                self._add("sets", option, values[:1])
            case "--dst-type":
                self._add("destination_types", option, values[0].lower().split(","))
            case "--syn":
                self._flags(fits=not option.negated)
            case "--tcp-flags":
                self._tcp_flags(option, values)
            case name if name in _SIDES:
                ports = tuple(_ports(values[0]))
                asked = AskedPorts(ports, option.negated, _SIDES[name])
                self._asked.setdefault("ports", []).append(asked)
            case "--comment":
                self.comment = self.comment or values[0]
            case name:
                raise ValueError(name)

    def _tcp_flags(self, option: _Option, values: Sequence[str]) -> None:
        examined, wanted = (frozenset(item.split(",")) for item in values[:2])
        opens, *later = (
            ((examined & flags) == wanted - {"NONE"}) is not option.negated for flags in _FLAGS
        )
        self._flags(fits=opens)
        if not (opens or any(later)):
            # Scanners send such packets, and nobody else.
            self._add("protocols", option._replace(negated=False), ())
        elif not (opens or any(later[:2])):
            raise ValueError(values)

    def _flags(self, *, fits: bool) -> None:
        self._opens = fits and self._opens is not False

    def _add(self, kind: str, option: _Option, values: Sequence[Any]) -> None:
        self._asked.setdefault(kind, []).append(Asked(tuple(values), option.negated))


def _ports(text: str) -> Iterator[PortRange]:
    """Read `5060,7070:7080`; ValueError for what is none."""
    for item in text.split(","):
        first, colon, last = item.partition(":")
        yield port_range(first or "0", last or (str(LAST_PORT) if colon else first))


def _sent(target: str, options: tuple[str, ...]) -> Iterator[Sent]:
    text = _after(options, _PORTS_OPTION.get(target, ""))
    if text is None:
        return
    found = _TARGET.fullmatch(text if target == "DNAT" else f":{text}")
    if found is None:
        # An address of IPv6 without a port has no brackets.
        addresses = tuple(_addresses([text.partition("-")[0]]))
        yield from (Sent(None, addresses),) if addresses else ()
        return
    ports = None
    # Port 0 of TPROXY, and a target without a port, leave the port as it is.
    if int(found["low"] or 0):
        ports = PortRange(int(found["low"]), int(found["high"] or found["low"]))
    ends = (found["first6"], found["last6"], found["first4"], found["last4"])
    yield Sent(ports, tuple(_addresses(ends)))


def _addresses(texts: Sequence[str | None]) -> Iterator[IpAddress]:
    for text in texts:
        with suppress(ValueError):
            if text is not None:
                yield ip_address(text)


def _after(words: tuple[str, ...], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words[:-1] else None
