from __future__ import annotations

import pytest

from sipfw.ruleset.lint import lint
from sipfw.ruleset.match import InSet
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority, Ruleset
from sipfw.ruleset.rule import Action, Done, Drop, Goto, Jump, Origin, Return, Rule, UpdateSet

_ORIGIN = Origin("limits", "policy.yaml")


def _rule(rule_id: str, action: Action, *matches: InSet) -> Rule:
    return Rule(rule_id, matches, action, "a rule", _ORIGIN)


def _chain(name: str, *rules: Rule, base: bool = False, priority: Priority = Priority.RAW) -> Chain:
    hook = Base(Hook.PREROUTING, priority) if base else None
    return Chain(name, Layer.ENTRY, "a chain", rules, priority, hook)


def _found(*chains: Chain) -> list[str]:
    return lint(Ruleset(chains, (), ()))


def test_a_sound_ruleset_has_no_findings() -> None:
    entry = _chain("A", _rule("a", Goto("B")), base=True)
    assert _found(entry, _chain("B", _rule("b", Done()))) == []


@pytest.mark.parametrize(
    ("chains", "finding"),
    [
        (
            [_chain("A", _rule("a", Drop()), _rule("a", Drop()), base=True)],
            "rule id a is used 2 times",
        ),
        ([_chain("A", base=True)], "chain A has no rule that could carry our mark"),
        (
            [_chain("A", _rule("a", Goto("B")), base=True)],
            "rule a names the chain B, which is missing",
        ),
        pytest.param(
            [_chain("A", _rule("a", Jump("B")), base=True)],
            "rule a names the chain B, which is missing",
        ),
        (
            [
                _chain("A", _rule("a", Goto("B")), base=True),
                _chain("B", _rule("b", Drop()), priority=Priority.FILTER),
            ],
            "rule a leads into a chain of another hook priority",
        ),
        (
            [_chain("A", _rule("a", UpdateSet("banned")), base=True)],
            "rule a changes the set banned, which is missing",
        ),
        (
            [_chain("A", _rule("a", Drop(), InSet("trusted")), base=True)],
            "rule a asks the set trusted, which is missing",
        ),
        (
            [_chain("A", _rule("a", Jump("B")), base=True), _chain("B", _rule("b", Done()))],
            "rule b says done in B, which is reached by a jump",
        ),
        (
            [
                _chain("A", _rule("a", Jump("B")), base=True),
                _chain("B", _rule("b", Goto("C"))),
                _chain("C", _rule("c", Done())),
            ],
            "rule c says done in C, which is reached by a jump",
        ),
        (
            [_chain("A", _rule("a", Drop()), base=True), _chain("B", _rule("b", Return()))],
            "chain B is never reached",
        ),
    ],
)
def test_each_contradiction_is_named(chains: list[Chain], finding: str) -> None:
    assert _found(*chains) == [finding]


def test_chains_that_call_each_other_end_the_walk() -> None:
    one = _chain("A", _rule("a", Jump("B")), base=True)
    assert _found(one, _chain("B", _rule("b", Jump("C"))), _chain("C", _rule("c", Jump("B")))) == []
