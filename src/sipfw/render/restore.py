"""iptables-restore and ipset-restore text of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.render.environment import render_template
from sipfw.render.xtables_text import jump_line, rule_line, set_add_lines, set_create_line

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.lower.xtables import Family, XPlan, XTable


@dataclass(frozen=True, slots=True)
class ChainText:
    """A chain's name and its finished lines."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableText:
    """One table's part of a restore file."""

    name: str
    chains: tuple[ChainText, ...]
    jumps: tuple[str, ...]


def table_text(table: XTable) -> TableText:
    """Return the finished lines of one table."""
    return TableText(
        table.name,
        tuple(
            ChainText(chain.name, tuple(rule_line(chain.name, rule) for rule in chain.rules))
            for chain in table.chains
        ),
        tuple(jump_line(jump) for jump in table.jumps),
    )


def restore_text(plan: XPlan, family: Family, template_dir: Path | None = None) -> str:
    """Return text for `iptables-restore --noflush` (family ip) or `ip6tables-restore --noflush`.

    It is meant for a host that does not hold our chains yet: loaded twice, the jumps stand twice.
    """
    tables = [table_text(table) for table in plan.tables if table.family is family]
    return render_template("restore.rules.j2", template_dir, family=family.value, tables=tables)


def ipset_text(plan: XPlan) -> str:
    """Return text for `ipset restore -exist`."""
    lines = [line for item in plan.sets for line in (set_create_line(item), *set_add_lines(item))]
    return "".join(f"{line}\n" for line in lines)
