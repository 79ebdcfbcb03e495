"""The whole firewall as one POSIX shell script that needs no sipfw on the host.

Prints lowered rules and the list of what they need from the kernel; how the script loads them is
the templates' business (templates/firewall/).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.lower.xtables import Family, XMatch, XParam, XPlan, XRule, XTable, XTarget
from sipfw.render.environment import render_template
from sipfw.render.restore import TableText, table_text
from sipfw.render.sysctl import sysctl_text
from sipfw.render.xtables_text import rule_arguments, set_add_lines, set_create_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sipfw.ruleset.model import Sysctl

SYSCTL_PATH = "/etc/sysctl.d/60-sipfw.conf"

_PROBE_COMMENT = "sipfw:probe#00000000"
# Options whose value names something that must not be shared with the real rules.
_NAMING = frozenset({"match-set", "add-set", "del-set", "name", "hashlimit-name"})
# The script builds a replacement as the first 29 characters and `-n`.
_TEMPORARY_STEM = 29


@dataclass(frozen=True, slots=True)
class FamilyText:
    """One family's part of the script."""

    digit: str
    title: str
    program: str
    tables: tuple[TableText, ...]


def script_text(
    plan: XPlan,
    sysctls: Sequence[Sysctl],
    *,
    notes: Sequence[str] = (),
    summaries: Mapping[str, str] | None = None,
    template_dir: Path | None = None,
) -> str:
    """Return the script. `notes` go to its head, `summaries` (by chain name) above the chains."""
    _require_distinct_temporaries(plan)
    return render_template(
        "firewall.sh.j2",
        template_dir,
        notes=[one_line(note) for note in notes],
        summaries={name: one_line(text) for name, text in (summaries or {}).items()},
        uses_ipset=bool(plan.sets),
        static_sets=list(_set_lines(plan, static=True)),
        dynamic_sets=list(_set_lines(plan, static=False)),
        families=[_family_text(plan, family) for family in Family],
        probes=probe_lines(plan),
        sysctl_conf=sysctl_text(sysctls, template_dir),
        sysctl_path=SYSCTL_PATH,
    )


def one_line(text: str) -> str:
    """Return text that cannot leave the comment it is printed in."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _family_text(plan: XPlan, family: Family) -> FamilyText:
    tables = tuple(table_text(table) for table in plan.tables if table.family is family)
    if family is Family.IP:
        return FamilyText("4", "IPv4", "iptables-restore", tables)
    return FamilyText("6", "IPv6", "ip6tables-restore", tables)


def _set_lines(plan: XPlan, *, static: bool) -> Iterator[str]:
    for item in plan.sets:
        if item.static is static:
            yield set_create_line(item)
            yield from set_add_lines(item)


def _require_distinct_temporaries(plan: XPlan) -> None:
    names = [item.name for item in plan.sets]
    names += [f"{name[:_TEMPORARY_STEM]}-n" for name in names]
    if len(set(names)) != len(names):
        raise AssertionError("two sets would be built under one temporary name")


def probe_lines(plan: XPlan) -> list[str]:
    """Return `family table what rule` for each match and target, by the options it is used with.

    Which options an extension knows depends on its revision in the kernel, so `set` with
    `--packets-gt` is another question than `set` alone.
    """
    found: dict[str, str] = {}
    for table in plan.tables:
        for what, rule in _questions(table):
            # The first table that needs it is as good as any: raw comes first, and only it has CT.
            key = f"{table.family.value} {what}"
            if key not in found:
                name = what.partition(",")[0]
                arguments = rule_arguments(_harmless(rule, table.family, len(found)))
                found[key] = f"{table.family.value} {table.name} {name} {arguments}"
    return list(found.values())


def _questions(table: XTable) -> Iterator[tuple[str, XRule]]:
    """Yield what each rule needs, as `match:NAME` and its options, with a rule of just that."""
    chains = {chain.name for chain in table.chains}
    for chain in table.chains:
        for rule in chain.rules:
            for match in rule.matches:
                yield _label("match", match.name, match.params), replace(rule, matches=(match,))
            target = rule.target
            if target is not None and target.params and target.name not in chains:
                yield _label("target", target.name, target.params), replace(rule, matches=())


def _label(kind: str, name: str, params: tuple[XParam, ...]) -> str:
    return ",".join([f"{kind}:{name}", *(f"--{param.name}" for param in params)])


def _harmless(rule: XRule, family: Family, number: int) -> XRule:
    """Return the rule without addresses, under names that no real rule uses."""
    target = rule.target
    if rule.matches:
        target = XTarget("RETURN")
    elif target is not None:
        target = replace(target, params=_renamed(target.params, family, number))
    return XRule(
        comment=_PROBE_COMMENT,
        protocol=rule.protocol,
        matches=tuple(
            XMatch(match.name, _renamed(match.params, family, number)) for match in rule.matches
        ),
        target=target,
    )


def _renamed(params: tuple[XParam, ...], family: Family, number: int) -> tuple[XParam, ...]:
    own_set = f"sipfw-probe{4 if family is Family.IP else 6}"
    return tuple(
        param
        if param.name not in _NAMING
        else replace(
            param,
            values=(
                own_set if param.name.endswith("-set") else f"sipfw-pr-{number}",
                *param.values[1:],
            ),
        )
        for param in params
    )
