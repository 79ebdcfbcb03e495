"""The iptables-restore text that brings one table to what is wanted, and the one that goes back.

Pure text, made for `--noflush`, where naming a chain empties it: only our chains, our jumps and
what `adopt` takes over are ever written. Ours is what carries our comment, nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.carried_counters import carried_by
from sipfw.kernel.xtables.save_text import SavedChain
from sipfw.kernel.xtables.standing import Adoption, chain_steps, leaving
from sipfw.lower.xtables_words import rule_arguments
from sipfw.render.xtables_text import rule_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sipfw.kernel.xtables.carried_counters import Counters
    from sipfw.kernel.xtables.save_text import SavedRule, SavedTable
    from sipfw.kernel.xtables.standing import Leaving
    from sipfw.kernel.xtables.tools import TableKey
    from sipfw.lower.xtables import XTable

__all__ = ["Adoption", "TableEdit", "change", "undo"]


@dataclass(slots=True)
class TableEdit:
    """The lines between `*table` and COMMIT, none when the table is as wanted; notes on them."""

    name: str
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the table's part of a restore file."""
        return "\n".join([f"*{self.name}", *self.lines, "COMMIT", ""]) if self.lines else ""


def change(
    wanted: XTable,
    live: SavedTable | None,
    rehearsed: SavedTable | None,
    adoption: Adoption,
    *,
    reposition: bool = False,
) -> TableEdit:
    """Return the edit from `live` to `wanted`.

    `rehearsed` is the wanted table as the kernel lists it. A chain that reads the same already is
    left alone and goes on counting; without it every chain of ours is written again. `reposition`
    moves our jumps to the head of their hooks.
    """
    edit = TableEdit(wanted.name)
    at = f"{wanted.family} {wanted.name}"
    chains = {} if live is None else {chain.name: chain for chain in live.chains}
    written = [c for c in wanted.chains if not _same_chain(chains.get(c.name), rehearsed)]
    steps = chain_steps(wanted, chains, adoption, written)
    edit.notes += [f"{at}: took over chain {name}" for name, c in steps.taken.items() if c.rules]
    edit.lines += [f":{chain.name} - [0:0]" for chain in written]
    for chain, counters in steps.written:
        edit.lines += [
            _bracketed(counted) + rule_line(chain.name, rule)
            for counted, rule in zip(counters, chain.rules, strict=True)
        ]
    emptied = {chain.name for chain in written}
    emptied |= {each.chain.name for each in steps.left if not each.foreign}
    for live_chain in chains.values():
        if live_chain.name not in emptied:
            edit.lines += _cut_jumps(live_chain, steps.taken)
    hooks = [chain for chain in chains.values() if chain.policy is not None]
    missing = {jump.hook for jump in wanted.jumps} - set(chains)
    hooks += [SavedChain(name, "ACCEPT", 0, 0, ()) for name in sorted(missing)]
    for hook in hooks:
        edit.lines += _jumps(wanted, hook, rehearsed, steps.taken, reposition=reposition)
    _drop(edit, at, steps.left)
    return edit


def undo(
    key: TableKey,
    before: SavedTable | None,
    now: SavedTable | None,
    adoption: Adoption,
    *,
    legacy: bool = False,
) -> TableEdit:
    """Return the edit that takes the chains and jumps of `now` back to `before`.

    A rule of somebody else that our change took out of a chain of ours is put back into `legacy`
    tables only: in the other flavour its listing may be wider than the rule was. The notes name it.
    """
    family, name = key
    edit = TableEdit(name)
    old = {} if before is None else {chain.name: chain for chain in before.chains}
    new = {} if now is None else {chain.name: chain for chain in now.chains}
    taken = {chain.name for chain in old.values() if adoption.covers(chain)}
    ours = {chain.name for chain in (*old.values(), *new.values()) if chain.is_ours} | taken
    for chain in (chain for chain in old.values() if chain.name in ours):
        kept = [r for r in chain.rules if legacy or r.is_ours or chain.name in taken]
        live = new.get(chain.name)
        if live is not None and _lines(live.rules) in (_lines(chain.rules), _lines(kept)):
            continue
        edit.lines += [f":{chain.name} - [0:0]", *(_counted(rule) for rule in kept)]
        edit.notes += [
            f"not put back, since it is not sipfw's: {rule.line}"
            for rule in chain.rules
            if rule not in kept
        ]
    for chain in (*new.values(), *(c for c in old.values() if c.name not in new and c.policy)):
        if chain.name not in ours:
            edit.lines += _jumps_back(old.get(chain.name), new.get(chain.name), taken)
    created = [chain for chain in new.values() if chain.name in ours and chain.name not in old]
    _drop(edit, f"{family} {name}", leaving(new.values(), created, (), ()))
    if legacy and edit.lines:
        # libiptc sets the counters of every built-in chain that it is not told about to 0.
        edit.lines += [
            f":{chain.name} {chain.policy} [{chain.packets}:{chain.bytes}]"
            for chain in new.values()
            if chain.policy is not None
        ]
    # Chains are declared before any rule that leads to them.
    edit.lines.sort(key=lambda line: not line.startswith(":"))
    return edit


def _same_chain(live: SavedChain | None, rehearsed: SavedTable | None) -> bool:
    if live is None or rehearsed is None:
        return False
    meant = rehearsed.chain(live.name)
    return meant is not None and _lines(meant.rules) == _lines(live.rules)


def _lines(rules: Iterable[SavedRule]) -> list[str]:
    return [rule.line for rule in rules]


def _counted(rule: SavedRule) -> str:
    return f"[{rule.packets}:{rule.bytes}] {rule.line}"


def _deletion(rule: SavedRule) -> str:
    """Name the rule by its content: a number could mean another rule by the time it is read."""
    return rule.line.replace("-A ", "-D ", 1)


def _insertion(rule: SavedRule, position: int) -> str:
    head, rest = f"-A {rule.chain}", rule.line.removeprefix(f"-A {rule.chain}")
    return f"[{rule.packets}:{rule.bytes}] {head.replace('-A', '-I', 1)} {position}{rest}"


def _cut_jumps(chain: SavedChain, targets: Collection[str]) -> list[str]:
    return [_deletion(r) for r in chain.rules if r.target in targets and not r.is_ours]


def _jumps(
    wanted: XTable,
    hook: SavedChain,
    rehearsed: SavedTable | None,
    cut: Collection[str],
    *,
    reposition: bool,
) -> list[str]:
    """Keep our jumps where they are when they are the wanted ones, else put them together."""
    jumps = [jump.rule for jump in wanted.jumps if jump.hook == hook.name]
    stay = [rule for rule in hook.rules if rule.is_ours or rule.target not in cut]
    live = [(place, rule) for place, rule in enumerate(stay, start=1) if rule.is_ours]
    meant = None if rehearsed is None else rehearsed.chain(hook.name)
    if meant is None:
        same = [rule.comment for _, rule in live] == [rule.comment for rule in jumps]
    else:
        same = _lines(rule for _, rule in live) == _lines(r for r in meant.rules if r.is_ours)
    if same and not reposition:
        return []
    before = carried_by(jumps, hook.rules)
    first = live[0][0] if live and not reposition else 1
    lines = [_deletion(rule) for _, rule in live]
    return lines + [
        f"{_bracketed(before[place - first])}-I {hook.name} {place} {rule_arguments(rule)}"
        for place, rule in enumerate(jumps, start=first)
    ]


def _drop(edit: TableEdit, at: str, left: Sequence[Leaving[SavedChain]]) -> None:
    """Empty and delete chains that are not wanted any more, as far as they are ours alone."""
    for each in left:
        edit.notes += each.notes(at)
        if each.foreign:
            edit.lines += [_deletion(rule) for rule in each.chain.rules if rule.is_ours]
        else:
            edit.lines.append(f"-F {each.chain.name}")
    edit.lines += [f"-X {each.chain.name}" for each in left if each.goes]


def _jumps_back(
    before: SavedChain | None, now: SavedChain | None, taken: Collection[str]
) -> list[str]:
    """Take out our rules that were not there, and put in those that were, where they stood."""
    others, there = _apart(before, taken)
    others_now, here = _apart(now, taken)
    wanted = _places(others, there, others_now, here)
    if [(at, rule.line) for at, rule in wanted] == [(at, rule.line) for at, rule in here]:
        return []
    return [_deletion(rule) for _, rule in here] + [
        _insertion(rule, at + number) for number, (at, rule) in enumerate(wanted, start=1)
    ]


def _apart(
    chain: SavedChain | None, taken: Collection[str]
) -> tuple[list[str], list[tuple[int, SavedRule]]]:
    """Return the lines of others, and our rules, each with how many of those stand before it."""
    others: list[str] = []
    ours = []
    for rule in () if chain is None else chain.rules:
        if rule.is_ours or rule.target in taken:
            ours.append((len(others), rule))
        else:
            others.append(rule.line)
    return others, ours


def _places(
    others: Sequence[str],
    there: Sequence[tuple[int, SavedRule]],
    others_now: Sequence[str],
    here: Sequence[tuple[int, SavedRule]],
) -> list[tuple[int, SavedRule]]:
    """Say behind how many rules of others each of our old rules belongs now.

    Others may have written meanwhile. It belongs between the nearest of its old neighbours that
    are still there, and if that leaves a choice, where our change has its rule.
    """
    index = {key: number for number, key in enumerate(_numbered(others_now))}
    keys = _numbered(others)
    result: list[tuple[int, SavedRule]] = []
    for number, (at, rule) in enumerate(there):
        behind = next((index[key] + 1 for key in reversed(keys[:at]) if key in index), None)
        ahead = next((index[key] for key in keys[at:] if key in index), None)
        low = behind or 0
        high = len(others_now) if ahead is None else ahead
        if number < len(here):
            place = min(max(here[number][0], low), high)
        else:
            place = high if behind is None and ahead is not None else low
        result.append((max(place, result[-1][0] if result else 0), rule))
    return result


def _numbered(lines: Iterable[str]) -> list[tuple[str, int]]:
    """Tell equal lines apart."""
    seen: Counter[str] = Counter()
    result = []
    for line in lines:
        result.append((line, seen[line]))
        seen[line] += 1
    return result


def _bracketed(counters: Counters) -> str:
    """Return what stands before a rule's line to set its counters."""
    return f"[{counters[0]}:{counters[1]}] " if counters[0] else ""
