"""What an apply would change, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sipfw.cli.output import table_rows
from sipfw.compare.changes import Action
from sipfw.lower.naming import base_id
from sipfw.ruleset.model import Layer
from sipfw.ruleset.rule import Family
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.compare.changes import JumpChange, Plan, RuleChange, SetChange, SysctlChange
    from sipfw.monitor.beside import Beside

FORMAT = 1

_FAMILIES = {Family.IP: "IPv4", Family.IP6: "IPv6"}
_DONE = {
    Action.ADD: "added",
    Action.REMOVE: "removed",
    Action.CHANGE: "changed",
    Action.MOVE: "moved",
}
_LAYERS = [layer.value for layer in Layer]
_SHOWN_MEMBERS = 20
# What a terminal shows at once; an apply that changes more says where.
_SHOWN_RULES = 30


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a section: what happens, to what, what it is, the policy line; then details."""

    cells: tuple[str, str, str, str]
    details: tuple[str, ...] = ()


def as_lines(
    plan: Plan, *, full: bool = False, brief: bool = False, beside: Beside | None = None
) -> Iterator[str]:
    """Return the plan for people; `beside` says what rules of others make of the policy.

    Rules are counted by layer, not listed, where nothing is live yet, and where `brief` says so
    and they are many; `full` lists them all the same.
    """
    rules = _rule_sections(plan.rules)
    count = sum(len(rows) for _, rows in rules)
    pluralize = plan.fresh or (brief and count > _SHOWN_RULES)
    if plan.fresh and not plan.same:
        yield "nothing of sipfw is live on this host"
    if plan.asleep:
        yield "the table of sipfw is switched off (dormant): no packet reaches it"
    if pluralize and not full:
        yield from _section("rules", _counted(rules))
        if plan.fresh:
            yield from _section("sets", [_few_sets(plan.sets)] if plan.sets else [])
    else:
        for title, rows in rules:
            yield from _section(title, rows)
        yield from _section("hooks", _jumps(plan.jumps))
        yield from _section("chains", _chains(plan))
    if full or not (pluralize and plan.fresh):
        yield from _section("sets", [_set(item) for item in plan.sets])
    yield from _section("kernel", [_sysctl(item) for item in plan.sysctls])
    yield from (_cannot(item) for item in plan.fixed)
    amiss = () if beside is None else (*plan.passed, *beside.degrading)
    yield from (f"not as the policy says: {_plain(text)}" for text in amiss)
    if beside is not None:
        yield from (f"note: {_plain(text)}" for text in beside.notes)
    if plan.same and amiss:
        yield "an apply changes nothing, and does not mend what other rules do"
    else:
        yield summary(plan)


def summary(plan: Plan) -> str:
    """Say the whole plan in one line."""
    if plan.same:
        return "nothing differs: the live firewall is what the policy says"
    parts = [
        text
        for text in (
            "the table is switched on" if plan.asleep else "",
            _count(Counter(Action(key[0]) for key in _grouped(plan.rules)), "rule"),
            _count(Counter(item.action for item in plan.jumps), "hook"),
            _count(Counter(item.action for item in plan.chains), "chain"),
            _count(Counter(item.action for item in plan.sets), "set"),
            _count(Counter(Action.CHANGE for _ in plan.sysctls), "kernel setting"),
        )
        if text
    ]
    return f"an apply changes: {'; '.join(parts)}"


def _count(counts: Counter[Action], noun: str) -> str:
    total = counts.total()
    if not total:
        return ""
    how = ", ".join(f"{counts[action]:,} {_DONE[action]}" for action in Action if counts[action])
    return f"{noun}s: {how}"


def _section(title: str, rows: Sequence[_Row]) -> Iterator[str]:
    if not rows:
        return
    yield f"[{title}]"
    cells = [[_plain(cell) for cell in row.cells] for row in rows]
    for lines, row in zip(table_rows(cells, head=False), rows, strict=True):
        yield from lines
        yield from (f"    {_plain(detail)}" for detail in row.details)
    yield ""


def _plain(text: str) -> str:
    """A kernel comment or a set's name may hold terminal sequences."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _rule_sections(rules: Sequence[RuleChange]) -> list[tuple[str, list[_Row]]]:
    """Return the lines of each layer."""
    sections: dict[str, list[_Row]] = {}
    for (action, layer, chain, rule_id, text, origin), found in _grouped(rules).items():
        name = f"{rule_id or chain} ({_families(found)})"
        row = _Row((_DONE[Action(action)], name, text, origin), _details(found))
        sections.setdefault(layer or "other", []).append(row)
    return sorted(sections.items(), key=lambda item: _rank(item[0]))


def _grouped(rules: Sequence[RuleChange]) -> dict[tuple[str, ...], list[RuleChange]]:
    """Put together what an operator takes for one rule: both families, and the parts of each."""
    groups: dict[tuple[str, ...], list[RuleChange]] = {}
    for rule in rules:
        place = (rule.action, rule.layer, rule.chain, base_id(rule.id))
        groups.setdefault((*place, rule.summary, rule.origin), []).append(rule)
    return groups


def _families(found: Sequence[RuleChange | JumpChange]) -> str:
    return ", ".join(
        name for family, name in _FAMILIES.items() if any(i.family is family for i in found)
    )


def _details(found: Sequence[RuleChange | JumpChange]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.detail for item in found if item.detail))


def _rank(layer: str) -> int:
    return _LAYERS.index(layer) if layer in _LAYERS else len(_LAYERS)


def _counted(sections: Sequence[tuple[str, Sequence[_Row]]]) -> list[_Row]:
    rows = []
    for layer, found in sections:
        counts = Counter(row.cells[0] for row in found)
        how = ", ".join(f"{counts[word]} {word}" for word in _DONE.values() if counts[word])
        rows.append(_Row((layer, how, "", "")))
    return rows


def _few_sets(sets: Sequence[SetChange]) -> _Row:
    members = sum(len(item.added) for item in sets)
    return _Row(("added", f"sets: {len(sets)}", f"members: {members:,}", ""))


def _jumps(jumps: Sequence[JumpChange]) -> list[_Row]:
    groups: dict[tuple[str, ...], list[JumpChange]] = {}
    for jump in jumps:
        key = (jump.action, f"{jump.table} {jump.hook}", jump.summary, jump.origin)
        groups.setdefault(key, []).append(jump)
    return [
        _Row(
            (_DONE[Action(action)], f"{place} ({_families(found)})", text, origin),
            _details(found),
        )
        for (action, place, text, origin), found in groups.items()
    ]


def _chains(plan: Plan) -> list[_Row]:
    return [
        _Row(
            (
                _DONE[item.action],
                f"{item.table} {item.name} ({_FAMILIES[item.family]})",
                pluralize(item.rules, "rule"),
                "",
            )
        )
        for item in plan.chains
    ]


def _set(item: SetChange) -> _Row:
    counts = [f"{len(item.added):,} added"] if item.added else []
    counts += [f"{len(item.removed):,} removed"] if item.removed else []
    name = f"{item.name}: {', '.join(counts)}" if counts else item.name
    details = (*item.header, *_members("+", item.added), *_members("-", item.removed))
    return _Row((_DONE[item.action], name, item.summary, item.origin), details)


def _members(sign: str, members: Sequence[str]) -> Iterator[str]:
    yield from (f"{sign} {member}" for member in members[:_SHOWN_MEMBERS])
    more = len(members) - _SHOWN_MEMBERS
    if more > 0:
        yield f"{sign} and {more:,} more"


def _sysctl(item: SysctlChange) -> _Row:
    before = "absent" if item.before is None else str(item.before)
    return _Row((_DONE[Action.CHANGE], item.name, f"{before} -> {item.after}", item.origin))


def _cannot(item: SysctlChange) -> str:
    before = "absent" if item.before is None else str(item.before)
    return (
        f"{item.name} stays {before}, not {item.after}: this host does not let it be set "
        f"({item.origin})"
    )


def as_data(plan: Plan, source: str, backend: str, beside: Beside | None = None) -> dict[str, Any]:
    """Return the plan for machines; `format` counts up when a field changes its meaning.

    `others` are sentences on what rules of others make of the policy, `notes` those on what
    degrades nothing; `same` is about what an apply would change.
    """
    return {
        "format": FORMAT,
        "source": source,
        "backend": backend,
        "same": plan.same,
        "fresh": plan.fresh,
        "asleep": plan.asleep,
        "rules": [asdict(item) for item in plan.rules],
        "jumps": [asdict(item) for item in plan.jumps],
        "chains": [asdict(item) for item in plan.chains],
        "sets": [asdict(item) for item in plan.sets],
        "sysctls": [asdict(item) for item in plan.sysctls],
        "fixed": [asdict(item) for item in plan.fixed],
        "others": [] if beside is None else [*plan.passed, *beside.degrading],
        "notes": [] if beside is None else list(beside.notes),
    }
