"""A ruleset for a kernel that cannot search texts: what stands without its teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.reached import reached
from sipfw.ruleset.match import CountAbove, InSet, PayloadContains
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, Goto, Jump, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.ruleset.model import Chain, Ruleset

# A reply's method stands in its text, and so do credentials. Without them nobody is learned and no
# failure may be counted: every login begins with a challenge that looks like one.
_CHAINS = {
    names.LEARNED,
    names.REGISTERED,
    names.LOGIN,
    names.ASKED_REGISTER,
    names.STRANGER_LOGIN,
    names.TEXTS,
    names.PROBATION,
    names.SUCCESS,
    names.REFUSED,
    names.STREAM_REFUSED,
    names.MASKED_REPLIES,
    names.STREAM_REGISTERED,
}
_SETS = {
    names.SET_CALLERS,
    names.SET_ASKED_REGISTER,
    names.SET_LEARNED,
    names.SET_FORMER,
    names.SET_REGISTERED,
    names.SET_PENDING,
    names.SET_RINGING,
    names.SET_DIALLING,
    names.SET_LOGINS,
    names.SET_BARE,
    names.SET_CHALLENGED,
    names.SET_CHALLENGES,
    names.SET_NO_REGISTER,
    names.SET_UNANSWERED,
    names.SET_FAILURES,
    names.SET_LEARNED_FAILURES,
    names.SET_WRONG,
    names.SET_REFUSED_CALLS,
    names.SET_SHUT,
    names.SET_BARRED,
    names.SET_TRIED,
    names.SET_MASKED,
}


def without_string_match(ruleset: Ruleset) -> Ruleset:
    """Return the ruleset without text searches and without all that rests on them.

    A ban is a wall then: probation would let guesses in and nobody out.
    """
    chains = [
        replace(chain, rules=_rules(chain)) for chain in ruleset.chains if chain.name not in _CHAINS
    ]
    return replace(
        ruleset,
        # The log of a rule that is gone would stay alone.
        chains=tuple(reached(chains)),
        sets=tuple(item for item in ruleset.sets if item.name not in _SETS),
    )


def _rules(chain: Chain) -> tuple[Rule, ...]:
    kept = [rule for rule in chain.rules if not _rests_on_texts(rule)]
    if chain.name == names.BANNED:
        return tuple(
            replace(rule, matches=(), summary="banned source")
            for rule in kept
            if rule.id == "banned.drop"
        )
    return tuple(kept)


def _rests_on_texts(rule: Rule) -> bool:
    action = rule.action
    if isinstance(action, Goto | Jump) and action.chain in _CHAINS:
        return True
    if isinstance(action, UpdateSet | AddOnce | DeleteFromSet) and action.set in _SETS:
        return True
    return any(
        isinstance(match, PayloadContains)
        or (isinstance(match, InSet | CountAbove) and match.set in _SETS)
        for match in rule.matches
    )
