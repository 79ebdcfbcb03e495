"""Lowered iptables rules as data: the one form behind script, restore text and kernel calls.

Nothing here knows policy or how a rule reaches the kernel. Values are strings exactly as the
iptables command line would take them, without quoting.
"""

from __future__ import annotations

from dataclasses import dataclass

from sipfw.ruleset.rule import Family

__all__ = [
    "Family",
    "XChain",
    "XJump",
    "XMatch",
    "XParam",
    "XPlan",
    "XRule",
    "XSet",
    "XTable",
    "XTarget",
]


@dataclass(frozen=True, slots=True)
class XParam:
    """One option of a match or target.

    `values` is empty for a flag, has one string for an ordinary option and two for the likes of
    `--match-set NAME src`.
    """

    name: str
    values: tuple[str, ...] = ()
    negate: bool = False


@dataclass(frozen=True, slots=True)
class XMatch:
    """A match extension (`-m NAME`) with all its options in command line order."""

    name: str
    params: tuple[XParam, ...] = ()


@dataclass(frozen=True, slots=True)
class XTarget:
    """A verdict, a target with options (`-j NAME`) or a chain; `goto` means `-g`."""

    name: str
    params: tuple[XParam, ...] = ()
    goto: bool = False


@dataclass(frozen=True, slots=True)
class XRule:
    """One iptables rule. `comment` is `sipfw:<id>#<digest>` and is printed as the last match."""

    comment: str
    protocol: str | None = None
    source: str | None = None
    destination: str | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    matches: tuple[XMatch, ...] = ()
    target: XTarget | None = None


@dataclass(frozen=True, slots=True)
class XChain:
    """A user chain of ours. It has at least one rule, because rules carry our mark."""

    name: str
    rules: tuple[XRule, ...]


@dataclass(frozen=True, slots=True)
class XJump:
    """The one rule that we own in a built-in chain (`PREROUTING`, `INPUT`, ...)."""

    hook: str
    rule: XRule


@dataclass(frozen=True, slots=True)
class XTable:
    """What we own in one table (`raw`, `mangle`, `filter`) of one family."""

    name: str
    family: Family
    chains: tuple[XChain, ...]
    jumps: tuple[XJump, ...]


@dataclass(frozen=True, slots=True)
class XSet:
    """One ipset: `static` ones are replaced as a whole, others keep what the kernel learned.

    `options` are the words after the type in `ipset create` (`family inet timeout 60`), `of` names
    the set of the ruleset that it comes from, if any.
    """

    name: str
    type: str
    options: tuple[str, ...]
    elements: tuple[str, ...]
    static: bool
    of: str = ""


@dataclass(frozen=True, slots=True)
class XPlan:
    """Everything that one ruleset puts into iptables and ipset: sets, then tables."""

    sets: tuple[XSet, ...]
    tables: tuple[XTable, ...]
