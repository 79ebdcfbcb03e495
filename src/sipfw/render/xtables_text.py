"""Lines of iptables-restore and ipset restore for what was lowered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.lower.xtables_words import rule_arguments

if TYPE_CHECKING:
    from sipfw.lower.xtables import XJump, XRule, XSet


def rule_line(chain: str, rule: XRule) -> str:
    """Return `-A CHAIN ...` for a rule."""
    return f"-A {chain} {rule_arguments(rule)}"


def jump_line(jump: XJump) -> str:
    """Return the line that puts our jump first in a built-in chain."""
    return f"-I {jump.hook} 1 {rule_arguments(jump.rule)}"


def set_create_line(item: XSet, name: str | None = None) -> str:
    """Return the `create` line of `ipset restore`."""
    return " ".join(["create", name or item.name, item.type, *item.options])


def set_add_lines(item: XSet, name: str | None = None) -> list[str]:
    """Return the `add` lines of `ipset restore`."""
    return [f"add {name or item.name} {element}" for element in item.elements]
