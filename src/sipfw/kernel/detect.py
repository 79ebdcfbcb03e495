"""What packet filter a host really uses: which tools, which kernel tables, whose rules.

Looks only. The legacy tools load their kernel modules and make a table when they are asked for one
by name, so they run only where /proc says that there are tables already.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from platform import release
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.bounded_files import MODULE_LIST, OddFileError, read_at_most
from sipfw.host.runner import HOST_PATH, SubprocessRunner
from sipfw.kernel.backend import Side, backends
from sipfw.kernel.xtables.nft_tools import NftFlavourTools
from sipfw.kernel.xtables.tools import LegacyTools
from sipfw.lower.nftables_plan import TABLE
from sipfw.lower.xtables import Family
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sipfw.host.runner import Runner
    from sipfw.kernel.xtables.tools import Tables

_NAMES = {Family.IP: "ip_tables_names", Family.IP6: "ip6_tables_names"}
_MODULE_LISTS = ("modules.dep", "modules.builtin")
_MODULE = re.compile(r"/ip_tables\.ko\b")
# The kernel knows five tables.
_TABLE_NAMES = 4096
_PROGRAMS = ("iptables", "iptables-legacy-save", "iptables-nft-save", "ipset", "nft")
_TABLE_LINE = re.compile(r"table (\S+) (.+)")
_CHAIN_LINE = re.compile(r"\tchain (.+) \{")
_OPEN = frozenset({"ACCEPT", None})
_SHOWN = 5


class Flavour(StrEnum):
    """What the host's `iptables` command writes to."""

    LEGACY = "legacy"
    NF_TABLES = "nf_tables"


@dataclass(frozen=True, slots=True)
class PacketFilters:
    """What was found. The three lists name chains that hold foreign rules, and how many.

    `ours` are the backends in which rules of sipfw are live, by the names that the record uses.
    """

    flavour: Flavour | None = None
    legacy_core: bool = False
    legacy: tuple[str, ...] = ()
    iptables_nft: tuple[str, ...] = ()
    nft: tuple[str, ...] = ()
    ours: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether nobody has rules here, apart from sipfw."""
        return not (self.legacy or self.iptables_nft or self.nft)

    def beside(self, side: Side) -> tuple[str, ...]:
        """Return the foreign rules that stand on the other side than this one."""
        return (*self.iptables_nft, *self.nft) if side is Side.LEGACY else self.legacy


@dataclass(frozen=True, slots=True)
class Listed:
    """What the programs list: tables by family and name, and the names of all nf_tables ones."""

    legacy: Tables
    iptables_nft: Tables
    nf_tables: tuple[tuple[str, str], ...]


def look(
    runner: Runner | None = None,
    proc: Path = Path("/proc"),
    modules: Path = Path("/lib/modules"),
    which: Callable[[str], bool] = lambda name: shutil.which(name, path=HOST_PATH) is not None,
) -> PacketFilters:
    """Look at this network namespace; needs root."""
    used = runner or SubprocessRunner()
    programs = frozenset(name for name in _PROGRAMS if which(name))
    legacy: Tables = {}
    for family, file in _NAMES.items():
        if _words(proc / "net" / file):
            legacy |= LegacyTools(used).existing(family)
    compatible: Tables = {}
    unreadable: set[tuple[str, str]] = set()
    if "iptables-nft-save" in programs:
        for family in Family:
            tables, only_nft = NftFlavourTools(used).listing(family)
            compatible |= tables
            unreadable |= {(family.value, name) for name in only_nft}
    shown = {(family.value, name) for family, name in compatible} - unreadable
    native = _native_tables(used) if "nft" in programs else []
    listed = Listed(legacy, compatible, tuple(native))
    foreign = [key for key in native if key not in shown and key != ("inet", TABLE)]
    return PacketFilters(
        flavour=_flavour(used) if "iptables" in programs else None,
        legacy_core=(proc / "net" / _NAMES[Family.IP]).exists() or _loadable(modules / release()),
        legacy=tuple(_chains(legacy)),
        iptables_nft=tuple(_chains(compatible)),
        nft=tuple(text for key in foreign for text in _native_chains(used, *key)),
        ours=frozenset(item.name for item in backends() if item.is_live(listed)),
        programs=programs,
    )


def _flavour(runner: Runner) -> Flavour:
    """Return the flavour; iptables before 1.8 names none and has only one."""
    done = runner.run(["iptables", "--version"])
    return Flavour.NF_TABLES if "(nf_tables)" in done.stdout else Flavour.LEGACY


def _words(path: Path) -> list[str]:
    try:
        return read_at_most(path, _TABLE_NAMES).split()
    except FileNotFoundError:
        return []
    except OddFileError as error:
        raise BackendError(str(error)) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BackendError(f"{path}: cannot be read: {reason}", hint="use sudo") from error


def _loadable(folder: Path) -> bool:
    """Tell whether the running kernel has the legacy core, as a module or built in."""
    for name in _MODULE_LISTS:
        try:
            if _MODULE.search(read_at_most(folder / name, MODULE_LIST)):
                return True
        except (OSError, OddFileError):
            continue
    return False


def _chains(tables: Tables) -> Iterator[str]:
    """Name the chains that do something which is not ours."""
    for (family, name), table in tables.items():
        for chain in table.chains:
            foreign = sum(not rule.is_ours for rule in chain.rules)
            if foreign and not chain.is_ours:
                yield _place(family.value, name, chain.name, foreign)
            elif chain.policy not in _OPEN:
                yield printable(f"{family} {name} {chain.name} (policy {chain.policy})")


def some(places: Sequence[str]) -> str:
    """Name the first places, and how many more there are."""
    more = len(places) - _SHOWN
    return ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def the_one_of(live: frozenset[str]) -> tuple[str, str]:
    """Return the one backend with rules of ours, and a word; BackendError where there are more."""
    if len(live) > 1:
        raise BackendError(live_twice(live), hint="run sipfw remove, then apply again")
    (name,) = live
    return name, "rules of sipfw are live there, though no apply is on record"


def live_twice(live: frozenset[str]) -> str:
    """Say in which backends rules of ours are live at once."""
    return f"rules of sipfw are live in {' and '.join(sorted(live))}"


def _place(family: str, table: str, chain: str, rules: int) -> str:
    return printable(f"{family} {table} {chain} ({pluralize(rules, 'rule')})")


def printable(text: str) -> str:
    """Return the text without what could steer a terminal: anybody with root names chains."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _native_tables(runner: Runner) -> list[tuple[str, str]]:
    done = runner.run(["nft", "list", "tables"])
    if done.returncode != 0:
        raise BackendError(f"nft: cannot list the tables: {done.stderr.strip()}")
    found = (_TABLE_LINE.fullmatch(line) for line in done.stdout.splitlines())
    return [(line[1], line[2]) for line in found if line is not None]


def _native_chains(runner: Runner, family: str, table: str) -> Iterator[str]:
    """Name the chains with rules; the text form, since nft 1.0.6 breaks the JSON of flagged tables.

    A table that is gone by now, or that nft cannot list, has no chains here.
    """
    # Without -t a blocklist of 100,000 addresses comes along.
    done = runner.run(["nft", "-t", "list", "table", family, table])
    chain, rules, policy = "", 0, ""
    for line in done.stdout.splitlines():
        if head := _CHAIN_LINE.fullmatch(line):
            chain, rules, policy = head[1], 0, ""
        elif line == "\t}":
            if chain and rules:
                yield _place(family, table, chain, rules)
            elif chain and policy:
                yield printable(f"{family} {table} {chain} ({policy})")
            chain = ""
        elif chain and line.startswith("\t\ttype "):
            policy = "policy drop" if "policy drop;" in line else ""
        elif chain and not line.startswith(("\t\tcomment ", "\t\t\t")):
            rules += 1
