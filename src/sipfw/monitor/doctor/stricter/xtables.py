"""iptables' listings as ways: the matches that are understood, and everything else as unsure."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.save_text import split_words
from sipfw.monitor.doctor.stricter.conditions import Condition
from sipfw.monitor.doctor.stricter.ways import ForeignRule, ForeignVerdict, HookChains
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.kernel.xtables.save_text import SavedRule, SavedTable
    from sipfw.monitor.doctor.rules import XtablesListing

_HOOKS = {
    "raw": ("PREROUTING",),
    "mangle": ("PREROUTING", "INPUT"),
    "filter": ("INPUT",),
    "security": ("INPUT",),
}
_DENIES = frozenset({"DROP", "REJECT", "TARPIT", "STEAL", "DELUDE", "CHAOS"})
# What a program that is asked says, nobody knows; such hosts let pass what it lets pass.
_ENDS = frozenset({"ACCEPT", "QUEUE", "NFQUEUE"})
_TEXTS = frozenset({"--comment"})
_PORT_OPTIONS = frozenset({"--dport", "--dports", "--destination-port", "--destination-ports"})
_ICMP = frozenset({"icmp", "ipv6-icmp", "icmpv6"})
_EVERYBODY = frozenset({"0.0.0.0/0", "::/0"})
# These match by themselves, without an option; all others are told by their options.
_SILENT = frozenset({"unclean", "socket", "eui64", "rpfilter", "cgroup"})
_LAST_PORT = 65535


def ways(listing: XtablesListing) -> Iterator[HookChains]:
    """Return the hooks of a table that packets to this host pass."""
    table = listing.table
    for hook in _HOOKS.get(table.name, ()):
        head = table.chain(hook)
        if head is None:
            continue
        yield HookChains(
            f"{listing.program} {table.name} {hook}",
            frozenset({listing.family}),
            hook,
            head.policy in _DENIES,
            {
                chain.name: tuple(
                    _rule(table, rule, place if chain is head else None)
                    for place, rule in enumerate(chain.rules)
                )
                for chain in table.chains
            },
            (listing.program, *(() if table.name == "filter" else ("-t", table.name))),
            xtables=True,
        )


def _rule(table: SavedTable, rule: SavedRule, place: int | None) -> ForeignRule:
    words = split_words(rule.line)[2:]
    asks, target, goes = _conditions(words)
    verdict = ForeignVerdict.NONE
    if target in _ENDS:
        verdict = ForeignVerdict.ACCEPT
    elif target in _DENIES:
        verdict = ForeignVerdict.DROP
    elif target == "RETURN":
        verdict = ForeignVerdict.RETURN
    elif table.chain(target) is not None:
        verdict = ForeignVerdict.GOTO if goes else ForeignVerdict.JUMP
    return ForeignRule(rule.line, asks, verdict, target, rule.is_ours, place)


def _conditions(words: Sequence[str]) -> tuple[Condition, str, bool]:
    """Read a rule up to its target; what stands behind that are the target's own options."""
    asks = Condition()
    negated = False
    at = 0
    while at < len(words):
        word = words[at]
        values: list[str] = []
        while at + 1 < len(words) and not _is_option(words[at + 1]):
            at += 1
            values.append(words[at])
        at += 1
        if word in {"-j", "-g"} and values:
            return asks, values[0], word == "-g"
        if word == "!":
            negated = True
            continue
        try:
            _read(asks, word, values, negated=negated)
        except (ValueError, IndexError):
            asks.unsure = True
        negated = False
    return asks, "", False


def _is_option(word: str) -> bool:
    return word == "!" or (word.startswith("-") and len(word) > 1)


def _read(asks: Condition, option: str, values: Sequence[str], *, negated: bool) -> None:
    """Note one option; ValueError or IndexError where it is not understood."""
    match option:
        case "-p" | "--protocol":
            _protocol(asks, values[0].lower(), negated=negated)
        case "-s" | "--source":
            _source(asks, values[0], negated=negated)
        case "-i" | "--in-interface":
            name = frozenset({values[0]})
            if negated:
                asks.not_interfaces = name
            else:
                asks.interfaces = name
        case "-m" | "--match":
            asks.unsure |= values[0] in _SILENT
        case "--state" | "--ctstate":
            states = frozenset(values[0].lower().split(","))
            asks.never |= negated == ("new" in states)
        case "--match-set":
            # Of two sets, or one of destinations and ports, nothing is known.
            asks.unsure |= asks.in_set is not None or values[1] != "src"
            asks.in_set = not negated
        case "--dst-type":
            local = "LOCAL" in values[0].split(",")
            asks.never |= negated == local
        case "--syn":
            asks.never |= negated
        case "--tcp-flags":
            examined, wanted = (frozenset(item.split(",")) for item in values[:2])
            asks.never |= negated == ((examined & {"SYN"}) == wanted - {"NONE"})
        case _ if option in _PORT_OPTIONS:
            asks.ports = _both(asks.ports, tuple(_ports(values[0], negated=negated)))
        case _ if option not in _TEXTS:
            raise ValueError(option)


def _both(
    known: tuple[PortRange, ...] | None, more: tuple[PortRange, ...]
) -> tuple[PortRange, ...]:
    if known is not None:
        raise ValueError("ports are named twice")
    return more


def _protocol(asks: Condition, name: str, *, negated: bool) -> None:
    if name in {"all", "0"}:
        return
    known = {"17": "udp", "6": "tcp", "udplite": "udplite"}.get(name, name)
    if negated:
        asks.protocols = frozenset({"tcp", "udp"} - {known})
    else:
        asks.protocols = frozenset({known})
        asks.never |= known in _ICMP


def _source(asks: Condition, text: str, *, negated: bool) -> None:
    if text in _EVERYBODY and not negated:
        return
    network = ip_network(text, strict=False)
    if negated:
        asks.not_sources = (network,)
    else:
        asks.sources = (network,)


def _ports(text: str, *, negated: bool) -> Iterator[PortRange]:
    ranges = []
    for item in text.split(","):
        first, _, last = item.partition(":")
        ranges.append(port_range(first or "0", last or (str(_LAST_PORT) if ":" in item else first)))
    yield from all_but(ranges) if negated else ranges


def port_range(first: str, last: str) -> PortRange:
    """Return the range; ValueError for what is none."""
    found = PortRange(int(first), int(last))
    if not 0 <= found.first <= found.last <= _LAST_PORT:
        raise ValueError(f"{first}-{last} is not a range of ports")
    return found


def all_but(ranges: Sequence[PortRange]) -> Iterator[PortRange]:
    """Return all other ports."""
    start = 0
    for item in sorted(ranges):
        if start < item.first:
            yield PortRange(start, item.first - 1)
        start = max(start, item.last + 1)
    if start <= _LAST_PORT:
        yield PortRange(start, _LAST_PORT)
