"""How the judgement of the switch's answers is written: rules about their destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.ruleset.match import Direction, InSet
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import DeleteFromSet, Goto, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import Match
    from sipfw.ruleset.rule import Action

_DST = Direction.DESTINATION


def chain(name: str, summary: str, *rules: Rule) -> Chain:
    """Return a chain of the judgement."""
    return Chain(name, Layer.REPLIES, summary, rules, Priority.RAW)


def rule(
    context: Context, rule_id: str, matches: tuple[Match, ...], action: Action, summary: str
) -> Rule:
    """Return a rule of the judgement."""
    return Rule(rule_id, matches, action, summary, context.origin("learning"))


def ask(context: Context, rule_id: str, name: str, following: str, summary: str) -> Rule:
    """Return a rule that leads on who is in the set of that name."""
    return rule(context, rule_id, (InSet(name, _DST),), Goto(following), summary)


def write(context: Context, rule_id: str, name: str, summary: str) -> Rule:
    """Return a rule that puts who is answered into a set."""
    return rule(context, rule_id, (), UpdateSet(name, _DST), summary)


def forget(context: Context, rule_id: str, name: str) -> Rule:
    """Return a rule that takes who is answered out of a set."""
    action = DeleteFromSet(name, _DST)
    return rule(context, rule_id, (), action, f"answered: leaves {name}")
