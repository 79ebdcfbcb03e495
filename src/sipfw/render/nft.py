"""nft text of a plan: one transaction that replaces what we have in `table inet sipfw`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.lower.nftables_plan import TABLE, NftChain, NftPlan, NftRule, NftSet
from sipfw.lower.nftables_words import statement
from sipfw.render.environment import render_template

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Existing:
    """What the live table holds already; empty for a table that does not exist.

    `counters` are (packets, bytes) by chain and rule comment, to be carried over. `kept_sets` have
    the wanted definition, so their elements stay.
    """

    chains: tuple[str, ...] = ()
    obsolete_chains: tuple[str, ...] = ()
    kept_sets: frozenset[str] = frozenset()
    replaced_sets: tuple[str, ...] = ()
    carried: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counters: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)


def nft_text(plan: NftPlan, template_dir: Path | None = None) -> str:
    """Return a file for `nft -f` that replaces the whole table, text searches left out."""
    return render_template(
        "ruleset.nft.j2",
        template_dir,
        table=TABLE,
        first=[f"add table inet {TABLE}", f"delete table inet {TABLE}"],
        body=_body(plan, Existing()),
        searches=sum(len(chain.rules) for chain in plan.texts),
    )


def transaction_text(plan: NftPlan, existing: Existing) -> str:
    """Return the transaction that brings the live table to the plan, keeping learned elements."""
    first = [f"add table inet {TABLE}"]
    first += [f"flush chain inet {TABLE} {name}" for name in existing.chains]
    first += [f"delete chain inet {TABLE} {name}" for name in existing.obsolete_chains]
    first += [f"delete set inet {TABLE} {name}" for name in existing.replaced_sets]
    first += [
        f"flush set inet {TABLE} {item.name}"
        for item in plan.sets
        if item.static and item.name in existing.kept_sets
    ]
    return "\n".join([*first, *_body(plan, existing)]) + "\n"


def _body(plan: NftPlan, existing: Existing) -> list[str]:
    lines = [f"table inet {TABLE} {{"]
    for item in plan.sets:
        lines += _set_lines(item, existing.carried.get(item.name, ()))
    for text in plan.texts:
        lines += [f"\tchain {text.name} {{", "\t}"]
    # A base chain comes after what it leads to, so that the file reads like the packet's walk.
    for chain in plan.chains:
        lines += _chain_lines(chain, existing)
    return [*lines, "}"]


def _set_lines(item: NftSet, carried: tuple[str, ...]) -> list[str]:
    lines = [f"\tset {item.name} {{ # {item.summary}", f"\t\ttype {item.type}"]
    if item.flags:
        lines.append(f"\t\tflags {','.join(item.flags)}")
    if item.size is not None:
        lines.append(f"\t\tsize {item.size}")
    if item.timeout is not None:
        lines.append(f"\t\ttimeout {item.timeout}s")
    elements = (*item.elements, *carried)
    if elements:
        lines.append("\t\telements = {")
        lines += [f"\t\t\t{element}," for element in elements]
        lines.append("\t\t}")
    return [*lines, "\t}"]


def _chain_lines(chain: NftChain, existing: Existing) -> list[str]:
    lines = [f"\tchain {chain.name} {{ # {chain.summary}"]
    if chain.base is not None:
        lines.append(f"\t\t{chain.base}")
    lines += [f"\t\t{_rule_text(chain.name, rule, existing)}" for rule in chain.rules]
    return [*lines, "\t}"]


def _rule_text(chain: str, rule: NftRule, existing: Existing) -> str:
    words = statement(rule, _counter_text(chain, rule, existing))
    return f'{words} comment "{rule.comment}"'


def _counter_text(chain: str, rule: NftRule, existing: Existing) -> str:
    packets, octets = existing.counters.get((chain, rule.comment.partition("#")[0]), (0, 0))
    return f"counter packets {packets} bytes {octets}" if packets else "counter"
