"""Logging: what a logged layer drops goes through a chain of its own that logs and then drops.

A reset is a drop with an answer.

It is a chain, and no second rule with the same matches: a look at a bucket costs a token, so each
match is asked once. Every rule has its own bucket, so that a flood against one hides no other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.policy.logging import LogTo
from sipfw.ruleset.match import RateWithin
from sipfw.ruleset.model import Chain
from sipfw.ruleset.rule import Drop, Goto, Log, Reset, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.compiler.context import Context

# xt_LOG keeps 30 bytes with the NUL (linux/netfilter/xt_LOG.h); NFLOG and nft take more, but a line
# means the same wherever it was written. The kernel puts its own words right behind: hence a blank.
_MARK, _END = "sipfw ", " "
_LONGEST_ID = 29 - len(_MARK) - len(_END)

# A rule id never holds it, so a shortened one is never taken for a whole one.
_CUT = "~"
_DIGITS = 6


def logged(context: Context, chains: list[Chain]) -> list[Chain]:
    """Return the chains with a log before each drop of the layers that the policy names."""
    layers = {layer.value for layer in context.policy.logging.layers}
    prefixes = log_prefixes(
        rule.id
        for chain in chains
        if chain.layer.value in layers
        for rule in chain.rules
        if isinstance(rule.action, Drop | Reset)
    )
    return [item for chain in chains for item in _with_logs(context, chain, prefixes)]


def _with_logs(context: Context, chain: Chain, prefixes: dict[str, str]) -> Iterator[Chain]:
    drops = [rule for rule in chain.rules if rule.id in prefixes]
    yield replace(
        chain,
        rules=tuple(
            replace(rule, action=Goto(_chain_name(rule.id))) if rule in drops else rule
            for rule in chain.rules
        ),
    )
    # Right behind, so that a listing by layers stays one.
    for rule in drops:
        yield _log_chain(context, chain, rule, prefixes[rule.id])


def _log_chain(context: Context, chain: Chain, rule: Rule, prefix: str) -> Chain:
    logging = context.policy.logging
    note = Rule(
        f"log.{rule.id}.note",
        (RateWithin(logging.rate, logging.burst),),
        Log(prefix, logging.group if logging.to is LogTo.NFLOG else None),
        f"logged as '{prefix.strip()}', at most {logging.rate}",
        context.origin("logging"),
    )
    drop = replace(rule, id=f"log.{rule.id}.drop", matches=())
    return Chain(
        _chain_name(rule.id),
        chain.layer,
        f"log of {rule.id}, then the drop",
        (note, drop),
        chain.priority,
    )


def _chain_name(rule_id: str) -> str:
    """Name the chain by its rule alone, so that it stays when other rules come and go."""
    return f"{names.LOG_PREFIX}{_digest(rule_id)[:12]}"


def log_prefixes(rule_ids: Iterable[str]) -> dict[str, str]:
    """Return the prefix of each rule's log lines: `sipfw banned.drop `.

    An id that is too long ends in a mark and digits of its own, more of them where two would
    still look alike.
    """
    short = {rule_id: _shortened(rule_id, _DIGITS) for rule_id in rule_ids}
    times = Counter(short.values())
    return {
        rule_id: _MARK
        + (text if times[text] == 1 else _shortened(rule_id, _LONGEST_ID - 1 - len(_CUT)))
        + _END
        for rule_id, text in short.items()
    }


def _shortened(rule_id: str, digits: int) -> str:
    if len(rule_id) <= _LONGEST_ID:
        return rule_id
    head = rule_id[: _LONGEST_ID - len(_CUT) - digits]
    return f"{head}{_CUT}{_digest(rule_id)[:digits]}"


def _digest(rule_id: str) -> str:
    return hashlib.sha256(rule_id.encode()).hexdigest()
