"""All rules of the host, whoever made them, and the questions that checks ask of them.

What nft lists and what iptables-nft lists overlap. Both are read: nft shows a rule with a CT target
without its options, and iptables-nft-save does not show what nft made.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compare.foreign import Verdict
from sipfw.errors import BackendError
from sipfw.kernel.nft import glance
from sipfw.kernel.nft.text_listing import families_of_tables, parse_nft
from sipfw.kernel.xtables.foreign import deletion, foreign_chains
from sipfw.kernel.xtables.nft_tools import NftFlavourTools
from sipfw.kernel.xtables.tools import LegacyTools
from sipfw.lower.nftables_hooks import base_lines
from sipfw.lower.nftables_plan import TABLE
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.ports import sip_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sipfw.compare.foreign import ForeignChain, ForeignRule
    from sipfw.host.runner import Runner
    from sipfw.kernel.nft.text_listing import NftBlock
    from sipfw.kernel.xtables.save_text import SavedTable
    from sipfw.ruleset.addresses import IpAddress

_NFT_FAMILY = {Family.IP: "ip", Family.IP6: "ip6"}
_HOOKS = frozenset({"input", "prerouting"})
# Of another form, nft would not take it for the name of a table.
_NAME = re.compile(r"[A-Za-z_][\w/.-]*")
_FILTERING = frozenset({"raw", "mangle", "filter"})
_DENYING = frozenset({Verdict.DROP, Verdict.REJECT})
# Chains of blocklists: they deny a few sources and guard nothing.
_BLOCKLIST = ("f2b-", "fail2ban-")


@dataclass(frozen=True, slots=True)
class XtablesListing:
    """One iptables table; `program` is the iptables command that reaches it."""

    program: str
    family: Family
    table: str
    chains: tuple[ForeignChain, ...]


@dataclass(frozen=True, slots=True)
class HostRules:
    """What packets meet."""

    xtables: tuple[XtablesListing, ...] = ()
    nft: tuple[NftBlock, ...] = ()


def read_rules(
    runner: Runner,
    legacy: Iterable[Family],
    installed: Callable[[str], bool],
    *,
    own_table: bool = True,
) -> HostRules:
    """List all rules; `legacy` are the families that have legacy tables. Creates no table.

    Without `own_table`, of `table inet sipfw` only the hooks are there: its rules are thousands.
    """
    found: list[XtablesListing] = []
    for family in legacy:
        tables = LegacyTools(runner).existing(family)
        found += _listings("legacy", family, tables.values())
    blocks: tuple[NftBlock, ...] = ()
    families = frozenset(Family)
    if installed("nft"):
        text = (None if own_table else _text_of_others(runner)) or _text_of_all(runner)
        blocks = tuple(parse_nft(text))
        # Tables of iptables-nft are among those that nft lists.
        families &= families_of_tables(text)
    if installed("iptables-nft-save"):
        for family in sorted(families):
            shown, _ = NftFlavourTools(runner).listing(family)
            found += _listings("nft", family, shown.values())
    return HostRules(tuple(found), blocks)


def _text_of_all(runner: Runner) -> str:
    # Without -t a blocklist of 100,000 addresses comes along.
    done = runner.run(["nft", "-t", "list", "ruleset"])
    if done.returncode != 0:
        raise BackendError(f"nft: {' '.join(done.stderr.split())[:200]}")
    return done.stdout


def _text_of_others(runner: Runner) -> str | None:
    """List table by table, ours as it was made; None where one cannot be listed so."""
    texts = []
    for line in runner.run(["nft", "list", "tables"]).stdout.splitlines():
        words = line.split()
        if words[1:] == ["inet", TABLE]:
            texts.append(_own_hooks())
            continue
        if len(words) != 3 or not all(map(_NAME.fullmatch, words)):
            return None
        done = runner.run(["nft", "-t", "list", "table", *words[1:]])
        if done.returncode != 0:
            return None
        texts.append(done.stdout)
    return "\n".join(texts)


def _own_hooks() -> str:
    chains = "".join(
        f"\tchain {name} {{\n\t\t{line}\n\t}}\n" for name, line in base_lines().items()
    )
    return f"table inet {TABLE} {{\n{chains}}}\n"


def _listings(
    flavour: str, family: Family, tables: Iterable[SavedTable]
) -> Iterator[XtablesListing]:
    name = "iptables" if family is Family.IP else "ip6tables"
    for table in tables:
        yield XtablesListing(f"{name}-{flavour}", family, table.name, foreign_chains(table))


def helper_rules(rules: HostRules) -> Iterator[tuple[str, str]]:
    """Yield where a rule attaches the SIP helper, and the command that deletes the rule."""
    for listing in rules.xtables:
        for chain in listing.chains:
            for rule in chain.rules:
                if rule.helper == "sip":
                    where = f"{listing.program} {listing.table} {chain.name}"
                    yield where, _deletion(listing, rule.line)
    for block in rules.nft:
        names = {
            item.name
            for item in rules.nft
            if item.is_sip_helper and (item.family, item.table) == (block.family, block.table)
        }
        if block.is_chain and any(glance.attaches_one_of(line, names) for line in block.lines):
            where = f"nft {block.family} {block.table} {block.name}"
            words = ("nft", "-a", "list", "chain", block.family, block.table, block.name)
            yield where, shlex.join(words)


def _deletion(listing: XtablesListing, line: str) -> str:
    """Return the command; the words are somebody else's and must not mean anything to a shell."""
    return shlex.join([listing.program, "-t", listing.table, *deletion(line)])


def guards(rules: HostRules, family: Family) -> bool:
    """Tell whether anything denies packets to this host in a family, other than to single sources.

    A heuristic: what a rule really lets through is not followed.
    """
    for listing in rules.xtables:
        filters = listing.family is family and listing.table in _FILTERING
        if filters and _table_guards(listing):
            return True
    families = {_NFT_FAMILY[family], "inet"}
    tables = {(item.family, item.table) for item in rules.nft if item.family in families}
    return any(_nft_guards(rules, table, family) for table in tables)


def _table_guards(listing: XtablesListing) -> bool:
    chains = {chain.name: chain for chain in listing.chains}
    reached = {"PREROUTING", "INPUT"}
    waiting = [chains[name] for name in chains if name in reached]
    while waiting:
        chain = waiting.pop()
        blocklist = chain.name.startswith(_BLOCKLIST)
        if chain.denies or (not blocklist and any(map(_denies_many, chain.rules))):
            return True
        for name in {rule.leads_to or "" for rule in chain.rules} & chains.keys() - reached:
            reached.add(name)
            waiting.append(chains[name])
    return False


def _denies_many(rule: ForeignRule) -> bool:
    asked = [item.negated for item in rule.asks.sources]
    asked += [item.negated for item in rule.asks.sets]
    few = not all(asked)
    return rule.verdict in _DENYING and (rule.ours or not few)


def _nft_guards(rules: HostRules, table: tuple[str, str], family: Family) -> bool:
    chains = {
        item.name: item
        for item in rules.nft
        if item.is_chain and (item.family, item.table) == table
    }
    waiting = [item for item in chains.values() if item.hook in _HOOKS]
    reached = {item.name for item in waiting}
    while waiting:
        chain = waiting.pop()
        for line in chain.lines:
            if glance.is_of_other_family(line, family):
                continue
            if glance.denies_many(line):
                return True
            for name in glance.leads(line):
                if name in chains and name not in reached:
                    reached.add(name)
                    waiting.append(chains[name])
        if chain.drops:
            return True
    return False


def published_ports(rules: HostRules) -> set[int]:
    """Return the SIP ports that are sent on to another address, as for a container."""
    found: set[int] = set()
    for rule in _sent_on(rules):
        found |= _destination_ports(rule)
    for block in rules.nft:
        for line in block.lines:
            found |= sip_ports(glance.sent_ports(line) or "")
    return found


def published_targets(rules: HostRules) -> set[IpAddress]:
    """Return the addresses that SIP ports are sent on to."""
    found: set[IpAddress] = set()
    for rule in _sent_on(rules):
        if _destination_ports(rule):
            found |= {address for sent in rule.sent for address in sent.addresses}
    for block in rules.nft:
        for line in block.lines:
            if sip_ports(glance.sent_ports(line) or ""):
                found |= set(glance.sent_to(line))
    return found


def _sent_on(rules: HostRules) -> Iterator[ForeignRule]:
    for listing in rules.xtables:
        for chain in listing.chains if listing.table == "nat" else ():
            yield from (rule for rule in chain.rules if rule.verdict is Verdict.SEND)


def ban_chains(rules: HostRules) -> set[str]:
    """Name fail2ban's chains and tables that act on SIP ports."""
    found = set()
    for listing in rules.xtables:
        for rule in (rule for chain in listing.chains for rule in chain.rules):
            name = rule.leads_to or ""
            if name.startswith(_BLOCKLIST) and _destination_ports(rule):
                found.add(name)
    for block in rules.nft:
        if block.table.startswith("f2b") or block.name.startswith(_BLOCKLIST):
            ports = [text for line in block.lines for text in glance.asked_ports(line)]
            if any(sip_ports(text) for text in ports):
                found.add(f"{block.table} {block.name}")
    return found


def has_chain(rules: HostRules, name: str) -> bool:
    """Tell whether anybody made a chain of that name."""
    return any(chain.name == name for listing in rules.xtables for chain in listing.chains) or any(
        item.is_chain and item.name == name for item in rules.nft
    )


def _destination_ports(rule: ForeignRule) -> set[int]:
    ranges = [item for asked in rule.asks.ports_of() for item in asked.values]
    return sip_ports(",".join(map(str, ranges)))
