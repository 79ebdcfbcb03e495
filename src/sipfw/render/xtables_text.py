"""One lowered iptables rule as a line of iptables-restore text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipfw.lower.xtables import XJump, XParam, XRule, XSet, XTarget

_BARE = re.compile(r"^[A-Za-z0-9_./:,=@+%-]+\Z")


def rule_line(chain: str, rule: XRule) -> str:
    """Return `-A CHAIN ...` for a rule."""
    return f"-A {chain} {rule_arguments(rule)}"


def jump_line(jump: XJump) -> str:
    """Return the line that puts our jump first in a built-in chain."""
    return f"-I {jump.hook} 1 {rule_arguments(jump.rule)}"


def rule_arguments(rule: XRule) -> str:
    """Return everything of a rule after its chain."""
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
        words += ["-m", match.name, *_params(match.params)]
    words += ["-m", "comment", "--comment", quoted(rule.comment)]
    if rule.target is not None:
        words += _target(rule.target)
    return " ".join(words)


def _target(target: XTarget) -> list[str]:
    return ["-g" if target.goto else "-j", target.name, *_params(target.params)]


def _params(params: tuple[XParam, ...]) -> list[str]:
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


def set_create_line(item: XSet, name: str | None = None) -> str:
    """Return the `create` line of `ipset restore`."""
    return " ".join(["create", name or item.name, item.type, *item.options])


def set_add_lines(item: XSet, name: str | None = None) -> list[str]:
    """Return the `add` lines of `ipset restore`."""
    return [f"add {name or item.name} {element}" for element in item.elements]
