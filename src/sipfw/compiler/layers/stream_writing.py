"""How the judgement of streams is written: where it stands, and how a segment ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler.layers.connections import priority
from sipfw.ruleset.match import InSet
from sipfw.ruleset.model import Chain, Layer
from sipfw.ruleset.rule import Drop, Goto, Reset, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import Match
    from sipfw.ruleset.rule import Action


def chain(context: Context, name: str, summary: str, *rules: Rule) -> Chain:
    """Return a chain of the judgement, where this policy judges streams."""
    return Chain(name, Layer.RATE, summary, rules, priority(context))


def rule(
    context: Context, rule_id: str, matches: tuple[Match, ...], action: Action, summary: str
) -> Rule:
    """Return a rule of the judgement."""
    return Rule(rule_id, matches, action, summary, context.origin("limits", "stream"))


def ended(context: Context) -> Drop | Reset:
    """Return the end of a segment that is refused."""
    return Drop() if context.policy.signalling.behind else Reset()


def ask(context: Context, rule_id: str, name: str, following: str, summary: str) -> Rule:
    """Return a rule that leads on who is in the set of that name."""
    return rule(context, rule_id, (InSet(name),), Goto(following), summary)
