"""All rules of the host as text, whoever made them, and the questions that checks ask of them.

What nft lists and what iptables-nft lists overlap. Both are read: nft shows a rule with a CT target
without its options, and iptables-nft-save does not show what nft made.
"""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.xtables.nft_tools import NftFlavourTools
from sipfw.kernel.xtables.save_text import split_words
from sipfw.kernel.xtables.tools import LegacyTools
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.ports import sip_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from ipaddress import IPv4Address, IPv6Address

    from sipfw.host.runner import Runner
    from sipfw.kernel.xtables.save_text import SavedRule, SavedTable

_IP_TABLES = re.compile(r"^table ip6? ", re.MULTILINE)
_TABLE = re.compile(r"table (\S+) (.+) \{")
_BLOCK = re.compile(r"\t(chain|ct helper) (.+) \{")
_HOOK = re.compile(r"\t\ttype \S+ hook (\w+)")
_QUOTED = re.compile(r'"[^"\n]*"')
_LEAD = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_DENIES = re.compile(r"\b(?:drop|reject)\b")
_ONE_SOURCE = re.compile(r"\bip6? saddr (?!!=)")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\]")
_DPORT = re.compile(r"\bdport (\{[^}\n]*\}|\S+)")
_ONLY = {
    Family.IP: re.compile(r"\bip6 |\bnfproto ipv6\b|\bicmpv6 "),
    Family.IP6: re.compile(r"\bip (?:saddr|daddr|protocol)\b|\bnfproto ipv4\b|\bicmp type\b"),
}
_NFT_FAMILY = {Family.IP: "ip", Family.IP6: "ip6"}
_HOOKS = frozenset({"input", "prerouting"})
_FILTERING = frozenset({"raw", "mangle", "filter"})
_DENYING = frozenset({"DROP", "REJECT"})
# Chains of blocklists: they deny a few sources and guard nothing.
_BLOCKLIST = ("f2b-", "fail2ban-")


@dataclass(frozen=True, slots=True)
class XtablesListing:
    """One iptables table; `program` is the iptables command that reaches it."""

    program: str
    family: Family
    table: SavedTable


@dataclass(frozen=True, slots=True)
class NftBlock:
    """A chain of nft, or with kind `ct helper` such an object; `lines` are its rules or settings.

    `hook` is None for a chain that only jumps lead to.
    """

    kind: str
    family: str
    table: str
    name: str
    hook: str | None
    drops: bool
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostRules:
    """What packets meet."""

    xtables: tuple[XtablesListing, ...] = ()
    nft: tuple[NftBlock, ...] = ()


def read_rules(
    runner: Runner, legacy: Iterable[Family], installed: Callable[[str], bool]
) -> HostRules:
    """List all rules; `legacy` are the families that have legacy tables. Creates no table."""
    found: list[XtablesListing] = []
    for family in legacy:
        tables = LegacyTools(runner).existing(family)
        found += _listings("legacy", family, tables.values())
    blocks: tuple[NftBlock, ...] = ()
    families = frozenset(Family)
    if installed("nft"):
        # Without -t a blocklist of 100,000 addresses comes along.
        done = runner.run(["nft", "-t", "list", "ruleset"])
        if done.returncode != 0:
            raise BackendError(f"nft: {' '.join(done.stderr.split())[:200]}")
        blocks = tuple(parse_nft(done.stdout))
        # Tables of iptables-nft are among those that nft lists.
        families &= {Family(line.split()[1]) for line in _IP_TABLES.findall(done.stdout)}
    if installed("iptables-nft-save"):
        for family in sorted(families):
            shown, _ = NftFlavourTools(runner).listing(family)
            found += _listings("nft", family, shown.values())
    return HostRules(tuple(found), blocks)


def _listings(
    flavour: str, family: Family, tables: Iterable[SavedTable]
) -> Iterator[XtablesListing]:
    name = "iptables" if family is Family.IP else "ip6tables"
    for table in tables:
        yield XtablesListing(f"{name}-{flavour}", family, table)


def parse_nft(text: str) -> Iterator[NftBlock]:
    """Read `nft list ruleset`; sets, maps and other objects are passed over."""
    table = ("", "")
    head: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if found := _TABLE.fullmatch(line):
            table = (found[1], found[2])
        elif found := _BLOCK.fullmatch(line):
            head, lines = found, []
        elif line == "\t}" and head is not None:
            yield _block(table, head, lines)
            head = None
        elif head is not None:
            lines.append(line)


def _block(table: tuple[str, str], head: re.Match[str], lines: list[str]) -> NftBlock:
    hook, drops = None, False
    rules: list[str] = []
    for line in lines:
        if head[1] == "chain" and (found := _HOOK.match(line)):
            hook, drops = found[1], "policy drop;" in line
        elif line.startswith("\t\t\t") and rules:
            # The elements of an unnamed set may go on in lines of their own.
            rules[-1] += f" {line.strip()}"
        else:
            rules.append(line.strip())
    return NftBlock(head[1], *table, head[2], hook, drops, tuple(rules))


def helper_rules(rules: HostRules) -> Iterator[tuple[str, str]]:
    """Yield where a rule attaches the SIP helper, and the command that deletes the rule."""
    for listing in rules.xtables:
        for rule in listing.table.rules:
            words = split_words(rule.line)
            if rule.target == "CT" and _after(words, "--helper") == "sip":
                where = f"{listing.program} {listing.table.name} {rule.chain}"
                yield where, _deletion(listing, words)
    helpers = {
        (item.family, item.table, item.name)
        for item in rules.nft
        if item.kind == "ct helper" and any('type "sip"' in line for line in item.lines)
    }
    for block in rules.nft:
        if block.kind == "chain" and _attaches(block, helpers):
            where = f"nft {block.family} {block.table} {block.name}"
            words = ("nft", "-a", "list", "chain", block.family, block.table, block.name)
            yield where, shlex.join(words)


def _attaches(block: NftBlock, helpers: set[tuple[str, str, str]]) -> bool:
    names = {
        name for family, table, name in helpers if (family, table) == (block.family, block.table)
    }
    setting = [line for line in block.lines if "ct helper set" in line]
    # Through a map any of the table's helpers may be meant.
    return any(" map " in line or f'"{name}"' in line for line in setting for name in names)


def _deletion(listing: XtablesListing, words: tuple[str, ...]) -> str:
    """Return the command; the words are somebody else's and must not mean anything to a shell."""
    return shlex.join([listing.program, "-t", listing.table.name, "-D", *words[1:]])


def guards(rules: HostRules, family: Family) -> bool:
    """Tell whether anything denies packets to this host in a family, other than to single sources.

    A heuristic: what a rule really lets through is not followed.
    """
    for listing in rules.xtables:
        filters = listing.family is family and listing.table.name in _FILTERING
        if filters and _table_guards(listing.table):
            return True
    families = {_NFT_FAMILY[family], "inet"}
    tables = {(item.family, item.table) for item in rules.nft if item.family in families}
    return any(_nft_guards(rules, table, family) for table in tables)


def _table_guards(table: SavedTable) -> bool:
    reached = {"PREROUTING", "INPUT"}
    waiting = [chain for chain in table.chains if chain.name in reached]
    while waiting:
        chain = waiting.pop()
        if chain.policy in _DENYING or any(_rule_guards(rule) for rule in chain.rules):
            return True
        for rule in chain.rules:
            found = table.chain(rule.target or "")
            if found is not None and found.name not in reached:
                reached.add(found.name)
                waiting.append(found)
    return False


def _rule_guards(rule: SavedRule) -> bool:
    if rule.target not in _DENYING or rule.chain.startswith(_BLOCKLIST):
        return False
    if rule.is_ours:
        return True
    words = split_words(rule.line)
    one_source = any(word == "-s" and before != "!" for before, word in pairwise(words))
    by_set = "--match-set" in words and words[words.index("--match-set") - 1] != "!"
    return not one_source and not by_set


def _nft_guards(rules: HostRules, table: tuple[str, str], family: Family) -> bool:
    chains = {
        item.name: item
        for item in rules.nft
        if item.kind == "chain" and (item.family, item.table) == table
    }
    waiting = [item for item in chains.values() if item.hook in _HOOKS]
    reached = {item.name for item in waiting}
    while waiting:
        chain = waiting.pop()
        for line in [_QUOTED.sub("", line) for line in chain.lines]:
            if _ONLY[family].search(line):
                continue
            if _DENIES.search(line) and not _ONE_SOURCE.search(line):
                return True
            for name in _LEAD.findall(line):
                if name in chains and name not in reached:
                    reached.add(name)
                    waiting.append(chains[name])
        if chain.drops:
            return True
    return False


def published_ports(rules: HostRules) -> set[int]:
    """Return the SIP ports that are sent on to another address, as for a container."""
    found: set[int] = set()
    for listing in rules.xtables:
        if listing.table.name == "nat":
            for rule in listing.table.rules:
                if rule.target == "DNAT":
                    found |= _destination_ports(rule)
    for block in rules.nft:
        for line in [_QUOTED.sub("", line) for line in block.lines]:
            if " dnat " in line and (ports := _DPORT.search(line)):
                found |= sip_ports(ports[1])
    return found


def published_targets(rules: HostRules) -> set[IPv4Address | IPv6Address]:
    """Return the addresses that SIP ports are sent on to."""
    found = set()
    for listing in rules.xtables:
        for rule in listing.table.rules if listing.table.name == "nat" else ():
            if rule.target == "DNAT" and _destination_ports(rule):
                found |= _targets(_after(split_words(rule.line), "--to-destination") or "")
    for block in rules.nft:
        for line in [_QUOTED.sub("", line) for line in block.lines]:
            head, dnat, text = line.partition(" dnat ")
            if dnat and (ports := _DPORT.search(head)) and sip_ports(ports[1]):
                found |= _targets(text)
    return found


def _targets(text: str) -> set[IPv4Address | IPv6Address]:
    """Read `192.0.2.9:5060`, `to [2001:db8::9]:5060` and the like; a map or a range tells none."""
    if "{" in text or " map " in text:
        return set()
    words = (word.strip("[]") for word in _ADDRESS.findall(text))
    found = set()
    for word in words:
        with suppress(ValueError):
            found.add(ip_address(word))
    return found


def ban_chains(rules: HostRules) -> set[str]:
    """Name fail2ban's chains and tables that act on SIP ports."""
    found = set()
    for listing in rules.xtables:
        for rule in listing.table.rules:
            if (rule.target or "").startswith(_BLOCKLIST) and _destination_ports(rule):
                found.add(rule.target or "")
    for block in rules.nft:
        if block.table.startswith("f2b") or block.name.startswith(_BLOCKLIST):
            ports = [match[1] for line in block.lines for match in _DPORT.finditer(line)]
            if any(sip_ports(text) for text in ports):
                found.add(f"{block.table} {block.name}")
    return found


def has_chain(rules: HostRules, name: str) -> bool:
    """Tell whether anybody made a chain of that name."""
    return any(item.table.chain(name) is not None for item in rules.xtables) or any(
        item.kind == "chain" and item.name == name for item in rules.nft
    )


def _destination_ports(rule: SavedRule) -> set[int]:
    words = split_words(rule.line)
    return sip_ports(_after(words, "--dport") or _after(words, "--dports") or "")


def _after(words: tuple[str, ...], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words[:-1] else None
