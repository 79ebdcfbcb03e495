"""Banned sources over UDP: who has proved himself goes on, all others are on probation.

Evidence over UDP can be forged, so a ban is no wall: a framed customer must get in while the
spoofer goes on. A REGISTER without credentials guesses nothing and has a bucket of its own.
Buckets of a port come before those of the source: what is forged from other ports leaves a
phone's own alone. What exceeds the source's bucket has one more way: the repetition that every
phone sends (RFC 3261, 17.1.2.2, timer E) and the login that follows the switch's challenge
(docs/decisions/0015-evidence.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.known import CREDENTIALS, answered_rule, bare_rule, registered_rule
from sipfw.compiler.layers.signatures import moved_rule
from sipfw.ruleset.match import (
    ONE_ADDRESS,
    InSet,
    L4Proto,
    PayloadAt,
    PayloadContains,
    Protocol,
    Rate,
    RateAbove,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Goto, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import Match
    from sipfw.ruleset.rule import Action

_CALLS_OF_PORT = (Rate(4, TimeUnit.SECOND), 4)
_CALLS = (Rate(10, TimeUnit.SECOND), 20)
_REPEATED_CALLS = (Rate(40, TimeUnit.SECOND), 40)
_LOGINS_OF_PORT = (Rate(12, TimeUnit.MINUTE), 2)
_LOGINS = (Rate(1, TimeUnit.SECOND), 3)
_CHALLENGED_LOGINS = (Rate(30, TimeUnit.MINUTE), 5)

# nftables may take a segment for a datagram (`sipfw.lower.nftables_lean`).
_UDP = (Protocol(L4Proto.UDP),)


def banned_chains(context: Context) -> list[Chain]:
    """Return the chains for banned sources; none where nobody can be banned."""
    if not context.bans:
        return []
    if not context.probation:
        return [_banned(context, [])]
    to_probation = _rule(
        context,
        "banned.register",
        # The whole word, so that nothing shorter passes, whatever length its header claims.
        (PayloadAt(L4Proto.UDP, b"REGISTER "),),
        Goto(names.PROBATION),
        "banned source, a REGISTER",
    )
    return [
        _banned(context, [to_probation]),
        _probation(context),
        *_port_full(context),
        _repeated(context),
        _lane(context, names.REPEATED_LANE, "repeated", "REGISTERs that were repeated"),
        _guesses(context),
        _challenged(context),
        _lane(context, names.CHALLENGED_LANE, "challenged", "logins behind a challenge"),
    ]


def _rule(
    context: Context, rule_id: str, matches: tuple[Match, ...], action: Action, summary: str
) -> Rule:
    return Rule(rule_id, matches, action, summary, context.origin("bans", "probation"))


def _chain(name: str, summary: str, *rules: Rule) -> Chain:
    return Chain(name, Layer.BANNED, summary, rules, Priority.RAW)


def _banned(context: Context, probation: list[Rule]) -> Chain:
    proved = [registered_rule(context, "banned.registered")] if context.learning else []
    drop = Rule("banned.drop", (), Drop(), "banned source", context.origin("bans"))
    return _chain(
        names.BANNED,
        "banned sources: registered phones go on, others may try a trickle of REGISTERs",
        *proved,
        *probation,
        drop,
    )


def _above(
    context: Context, name: str, limit: tuple[Rate, int], *, with_port: bool = False
) -> RateAbove:
    rate, burst = limit
    prefix = ONE_ADDRESS if with_port else context.source
    return RateAbove(name, rate, burst, prefix, with_port=with_port)


def _probation(context: Context) -> Chain:
    return _chain(
        names.PROBATION,
        "REGISTERs of banned sources",
        moved_rule(context, "banned"),
        _rule(
            context,
            "banned.port",
            (_above(context, "callp", _CALLS_OF_PORT, with_port=True),),
            Goto(names.PORT_FULL),
            "banned source, too many REGISTERs from one port",
        ),
        _rule(
            context,
            "banned.login",
            (PayloadContains(CREDENTIALS),),
            Goto(names.GUESSES),
            "banned source, a login",
        ),
        _rule(
            context,
            "banned.trickle",
            (_above(context, "calls", _CALLS),),
            Goto(names.REPEATED),
            "banned source, too many REGISTERs",
        ),
        *_judged(context, "banned"),
    )


def _port_full(context: Context) -> list[Chain]:
    """The login that answers a challenge needs no token of the port's REGISTERs."""
    return [
        _chain(
            names.PORT_FULL,
            "a port's REGISTERs are used up: only the answer to a challenge",
            _rule(
                context,
                "port.challenged",
                (InSet(names.SET_CHALLENGED),),
                Goto(names.PORT_LOGIN),
                "a port that was just challenged",
            ),
            _rule(context, "port.drop", (), Drop(), "too many REGISTERs from one port"),
        ),
        _chain(
            names.PORT_LOGIN,
            "is it the answer to a challenge?",
            _rule(
                context,
                "port.login",
                (PayloadContains(CREDENTIALS),),
                Goto(names.GUESSES),
                "banned source, a login",
            ),
            _rule(context, "port.no-login", (), Drop(), "too many REGISTERs from one port"),
        ),
    ]


def _repeated(context: Context) -> Chain:
    return _chain(
        names.REPEATED,
        "what exceeds the trickle: only a port that repeats itself",
        _rule(
            context,
            "repeated.again",
            (InSet(names.SET_TRIED),),
            Goto(names.REPEATED_LANE),
            "a REGISTER that this port sent a moment ago",
        ),
        _rule(context, "repeated.first", _UDP, UpdateSet(names.SET_TRIED), "port noted"),
        _rule(context, "repeated.drop", (), Drop(), "first REGISTER of a port, not in its turn"),
    )


def _lane(context: Context, chain: str, prefix: str, what: str) -> Chain:
    limit = _REPEATED_CALLS if chain == names.REPEATED_LANE else _CHALLENGED_LOGINS
    above = _above(context, f"{prefix[:5]}", limit)
    drop = _rule(context, f"{prefix}.above", (above,), Drop(), f"banned source, too many {what}")
    return _chain(chain, f"banned sources: {what}", drop, *_judged(context, prefix))


def _guesses(context: Context) -> Chain:
    return _chain(
        names.GUESSES,
        "logins of banned sources: a password a second at most",
        _rule(
            context,
            "guesses.shut",
            (InSet(names.SET_SHUT),),
            Drop(),
            "too many wrong passwords from this port",
        ),
        _rule(
            context,
            "guesses.port",
            (_above(context, "loginp", _LOGINS_OF_PORT, with_port=True),),
            Drop(),
            "banned source, too many logins from one port",
        ),
        _rule(
            context,
            "guesses.source",
            (_above(context, "logins", _LOGINS),),
            Goto(names.CHALLENGED),
            "banned source, too many logins",
        ),
        *_judged(context, "guesses"),
    )


def _challenged(context: Context) -> Chain:
    return _chain(
        names.CHALLENGED,
        "what exceeds the logins: only a port that was challenged a moment ago",
        _rule(
            context,
            "challenged.login",
            (InSet(names.SET_CHALLENGED),),
            Goto(names.CHALLENGED_LANE),
            "a login from a port that was just challenged",
        ),
        _rule(context, "challenged.drop", (), Drop(), "login without a challenge"),
    )


def _judged(context: Context, prefix: str) -> list[Rule]:
    notes = [(names.SET_PENDING, "pending", "banned source whose REGISTER the switch will judge")]
    if prefix in {"guesses", "challenged"}:
        notes.append((names.SET_LOGINS, "noted", "banned source whose login the switch will judge"))
    login = len(notes) > 1
    return [
        *(answered_rule(context, prefix) if login else [bare_rule(context, prefix)]),
        *(
            _rule(context, f"{prefix}.{end}", _UDP, UpdateSet(name), summary)
            for name, end, summary in notes
        ),
        _rule(context, f"{prefix}.probation", (), Done(), "banned source, on probation"),
    ]
