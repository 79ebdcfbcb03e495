"""The words of one lowered iptables rule, as iptables-restore reads them.

They are what a rule says, so they are also what its digest is made of.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.lower.xtables import XParam, XRule, XTarget

_PORT_OPTIONS = frozenset({"--dport", "--dports", "--ctorigdstport"})
_PORTS = re.compile(r"\d{1,5}(?::\d{1,5})?(?:,\d{1,5}(?::\d{1,5})?)*")
_BARE = re.compile(r"^[A-Za-z0-9_./:,=@+%-]+\Z")


def rule_arguments(rule: XRule) -> str:
    """Return everything of a rule after its chain."""
    return _arguments(rule, ("-m", "comment", "--comment", quoted(rule.comment)))


def unmarked_arguments(rule: XRule) -> str:
    """Return the same without our comment: what the rule does."""
    return _arguments(rule, ())


def transport_and_ports(line: str) -> tuple[str | None, tuple[PortRange, ...]]:
    """Return what a rule of ours is for, from its words or the kernel's listing of it.

    None and no ports are every transport and port. For rules that search for no text: one might
    look like an option.
    """
    pairs = list(pairwise(line.split()))
    transport = next((value for word, value in pairs if word == "-p"), None)
    text = next((value for word, value in pairs if word in _PORT_OPTIONS), "")
    ranges = text.split(",") if _PORTS.fullmatch(text) else []
    ends = (item.partition(":") for item in ranges)
    return transport, tuple(PortRange(int(low), int(high or low)) for low, _, high in ends)


def option_words(params: Iterable[XParam]) -> list[str]:
    """Return the options of a match or target."""
    words: list[str] = []
    for param in params:
        if param.negate:
            words.append("!")
        words += [f"--{param.name}", *(quoted(value) for value in param.values)]
    return words


def quoted(value: str) -> str:
    """Quote one argument for iptables-restore, which knows the quote and the backslash only."""
    if _BARE.match(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _arguments(rule: XRule, mark: tuple[str, ...]) -> str:
    words: list[str] = []
    for option, value in (
        ("-s", rule.source),
        ("-d", rule.destination),
        ("-i", rule.in_interface),
        ("-o", rule.out_interface),
        ("-p", rule.protocol),
    ):
        if value is not None:
            words += [option, quoted(value)]
    for match in rule.matches:
        words += ["-m", match.name, *option_words(match.params)]
    words += mark
    if rule.target is not None:
        words += _target(rule.target)
    return " ".join(words)


def _target(target: XTarget) -> list[str]:
    return ["-g" if target.goto else "-j", target.name, *option_words(target.params)]
