"""The whole firewall as one POSIX shell script that needs no sipfw on the host.

Prints lowered rules, what they do in words, and the list of what they need from the kernel. How
the script loads them is the engine's business, which no policy changes (templates/firewall/).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.lower.xtables import Family, XMatch, XParam, XPlan, XRule, XTable, XTarget
from sipfw.lower.xtables_words import rule_arguments
from sipfw.render.comments import Comments, comment_lines, comments_of, one_line, said
from sipfw.render.environment import render_template, template_source
from sipfw.render.packet_map import map_lines
from sipfw.render.sysctl import sysctl_text
from sipfw.render.xtables_text import (
    jump_line,
    rule_line,
    set_add_lines,
    set_create_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sipfw.lower.xtables import XChain
    from sipfw.ruleset.model import Ruleset, Sysctl

SYSCTL_PATH = "/etc/sysctl.d/60-sipfw.conf"

# The engine's files in the order of an apply; `start` comes before all others and `main`, which
# runs it, last.
ENGINE_PARTS = (
    "start",
    "host",
    "chains",
    "sets",
    "advice",
    "rehearsal",
    "check",
    "sysctl",
    "apply",
    "back",
    "confirm",
    "remove",
    "status",
    "main",
)

_PROBE_COMMENT = "sipfw:probe#00000000"
# Options whose value names something that must not be shared with the real rules.
_NAMING = frozenset({"match-set", "add-set", "del-set", "name", "hashlimit-name"})
# The script builds a replacement as the first 29 characters and `-n`.
_TEMPORARY_STEM = 29


@dataclass(frozen=True, slots=True)
class CommentedChain:
    """A chain's name and its finished lines, comments among them."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CommentedTable:
    """One table's part of the script."""

    name: str
    chains: tuple[CommentedChain, ...]
    jumps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FamilyText:
    """One family's part of the script."""

    digit: str
    title: str
    program: str
    tables: tuple[CommentedTable, ...]


def script_text(
    plan: XPlan,
    sysctls: Sequence[Sysctl],
    *,
    notes: Sequence[str] = (),
    ruleset: Ruleset | None = None,
    template_dir: Path | None = None,
) -> str:
    """Return the script. `notes` go to its head.

    From `ruleset`, which the plan was lowered from, come the map and the comments; without it the
    script does the same and explains nothing.
    """
    _require_distinct_temporaries(plan)
    comments = Comments() if ruleset is None else comments_of(ruleset)
    return render_template(
        "firewall.sh.j2",
        template_dir,
        notes=[one_line(note) for note in notes],
        map=[] if ruleset is None else map_lines(ruleset),
        uses_ipset=bool(plan.sets),
        static_sets=list(_set_lines(plan, comments, static=True)),
        dynamic_sets=list(_set_lines(plan, comments, static=False)),
        families=[_family_text(plan, family, comments) for family in Family],
        probes=probe_lines(plan),
        sysctl_origins=[
            line for item in sysctls for line in comment_lines(said(item.name, item.origin))
        ],
        sysctl_conf=sysctl_text(sysctls, template_dir),
        sysctl_path=SYSCTL_PATH,
        engine=engine_text(template_dir),
    )


def _family_text(plan: XPlan, family: Family, comments: Comments) -> FamilyText:
    tables = tuple(
        _commented_table(table, comments) for table in plan.tables if table.family is family
    )
    if family is Family.IP:
        return FamilyText("4", "IPv4", "iptables-restore", tables)
    return FamilyText("6", "IPv6", "ip6tables-restore", tables)


def _commented_table(table: XTable, comments: Comments) -> CommentedTable:
    return CommentedTable(
        table.name,
        tuple(
            CommentedChain(
                chain.name,
                (*comments.above_chain(chain.name), *_commented_rules(chain, comments)),
            )
            for chain in table.chains
        ),
        tuple(jump_line(jump) for jump in table.jumps),
    )


def _commented_rules(chain: XChain, comments: Comments) -> Iterator[str]:
    """Yield the rules, and above them what they do; once where neighbours do the same."""
    said: tuple[str, ...] = ()
    for rule in chain.rules:
        above = comments.above_rule(rule.comment)
        if above != said:
            yield from above
        said = above
        yield rule_line(chain.name, rule)


def _set_lines(plan: XPlan, comments: Comments, *, static: bool) -> Iterator[str]:
    said: tuple[str, ...] = ()
    for item in plan.sets:
        if item.static is static:
            above = comments.sets.get(item.name, ())
            if above != said:
                yield from above
            said = above
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


def engine_text(template_dir: Path | None = None) -> str:
    """Return the engine.

    Of the policy it asks the functions `static_sets`, `dynamic_sets`, `rules4`, `rules6`, `probes`
    and `sysctls`.
    """
    return "\n".join(
        template_source(f"firewall/engine/{part}.sh", template_dir) for part in ENGINE_PARTS
    )
