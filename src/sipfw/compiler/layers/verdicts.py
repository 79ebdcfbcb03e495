"""The switch's judgement, the bad half: which answers count against whom.

What counts, for whom and how long is docs/decisions/0015-evidence.md. Endpoints (address, transport
and port) are asked first: what one of them has earned, good or bad, is not its neighbours'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.judging import ask, chain, forget, rule, write
from sipfw.compiler.layers.known import trusted_sets
from sipfw.compiler.layers.probes import probe_chains
from sipfw.ruleset.match import (
    CountAbove,
    Direction,
    InSet,
    L4Proto,
    PayloadAt,
    PayloadContains,
    Protocol,
    Rate,
    RateWithin,
    TimeUnit,
)
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, Done, Goto, Rule, UpdateSet
from sipfw.words import format_duration, pluralize

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.model import Chain

_DST = Direction.DESTINATION

# What a learned source may get wrong, all its phones together, in terms of one of them.
_PHONES_AT_FAULT = 5
# Challenges in a row that a good phone may leave open, in terms of failures and at least: each of
# its lamp keys may be challenged before it answers the first one.
_UNANSWERED = 3
_CHALLENGES = 20
_LAMP_KEYS = 32
# Calls that are refused with 403 although the caller is known: a dialler's barred numbers mostly.
_CALLS_REFUSED = 6

# Replies follow requests, so this is what a spoofer could make the switch ban at most.
_BAN_WRITES = Rate(100, TimeUnit.SECOND)
_BAN_BURST = 200


def verdict_chains(context: Context) -> list[Chain]:
    """Return the chains of failure; none where nothing can be banned."""
    if not context.bans:
        return []
    return [
        _refused(context),
        _challenge(context),
        _challenge_of_bare(context),
        _unanswered(context),
        _stale(context),
        _forbidden(context),
        _forbidden_login(context),
        _call_refused(context),
        *probe_chains(context),
        _wrong(context),
        _learned_failure(context),
        _failure(context),
        _banning(context),
        chain(names.NO_FAULT, "nobody's fault", rule(context, "no-fault", (), Done(), "no")),
    ]


def _refused(context: Context) -> Chain:
    codes = {
        "401": names.CHALLENGE,
        "407": names.CHALLENGE,
        "403": names.FORBIDDEN,
        "404": names.PROBED,
    }
    return chain(
        names.REFUSED,
        "which refusals may be somebody's fault",
        *(
            rule(
                context,
                f"refused.{code}-udp",
                (PayloadAt(L4Proto.UDP, f"SIP/2.0 {code}".encode()),),
                Goto(chain),
                f"{code} over UDP",
            )
            for code, chain in codes.items()
        ),
        forget(context, "refused.bare", names.SET_BARE),
        rule(context, "refused.other", (), Done(), "a refusal that is nobody's fault"),
    )


def _challenge(context: Context) -> Chain:
    return chain(
        names.CHALLENGE,
        "401 and 407: a challenge, or a wrong password",
        write(context, "challenge.noted", names.SET_CHALLENGED, "somebody who is challenged"),
        ask(
            context,
            "challenge.bare",
            names.SET_BARE,
            names.CHALLENGE_OF_BARE,
            "it had sent a request without one",
        ),
        ask(context, "challenge.login", names.SET_LOGINS, names.STALE, "it had tried a password"),
        rule(context, "challenge.only", (), Done(), "it had asked nothing"),
    )


def _challenge_of_bare(context: Context) -> Chain:
    """One bare request explains one challenge: the next one is about a password.

    Who hides each guess behind a bare request that the switch never answers still meets a limit,
    high enough for a trunk that is challenged for each call, and of REGISTERs alone.
    """
    learning = context.policy.learning
    most = _CHALLENGES * learning.failures
    return chain(
        names.CHALLENGE_OF_BARE,
        "a challenge of a request without credentials",
        forget(context, "challenge.bare-answered", names.SET_BARE),
        rule(
            context,
            "challenge.count",
            (),
            AddOnce(names.SET_CHALLENGES, _DST),
            "challenges by port",
        ),
        rule(
            context,
            "challenge.too-many",
            (CountAbove(names.SET_CHALLENGES, most - 1, _DST),),
            UpdateSet(names.SET_NO_REGISTER, _DST),
            f"no more REGISTERs with credentials after {pluralize(most, 'challenge')} in "
            f"{format_duration(learning.window)}",
        ),
        rule(context, "challenge.unanswered", (), Goto(names.UNANSWERED), "is it answered?"),
    )


def _unanswered(context: Context) -> Chain:
    """Who is challenged again and again and never answers tries names, not a login."""
    learning = context.policy.learning
    most = max(_UNANSWERED * learning.failures, _LAMP_KEYS)
    return chain(
        names.UNANSWERED,
        "challenges that nobody has answered, by port; a login clears them",
        *_spared(context, "unanswered"),
        ask(context, "unanswered.learned", names.SET_LEARNED, names.NO_FAULT, "learned source"),
        rule(
            context,
            "unanswered.count",
            (),
            AddOnce(names.SET_UNANSWERED, _DST),
            "challenge that awaits a login",
        ),
        rule(
            context,
            "unanswered.ban",
            (CountAbove(names.SET_UNANSWERED, most - 1, _DST),),
            Goto(names.BANNING),
            f"{pluralize(most, 'challenge')} without a login in {format_duration(learning.window)}",
        ),
        rule(context, "unanswered.done", (), Done(), "may still be answered"),
    )


def _stale(context: Context) -> Chain:
    """RFC 7616, 3.3: `stale` says that the digest was right or was not looked at."""
    return chain(
        names.STALE,
        "a login refused: unless only the nonce was old",
        *(
            rule(
                context,
                f"stale.{name}",
                (PayloadContains(text),),
                Goto(names.NO_FAULT),
                "the nonce was old",
            )
            for name, text in (("plain", b"stale=true"), ("quoted", b'stale="true"'))
        ),
        rule(context, "stale.wrong", (), Goto(names.WRONG), "a wrong password"),
    )


def _forbidden(context: Context) -> Chain:
    return chain(
        names.FORBIDDEN,
        "403: a wrong password, a barred number, or a name that is tried",
        ask(
            context,
            "forbidden.login",
            names.SET_LOGINS,
            names.FORBIDDEN_LOGIN,
            "it had tried a password",
        ),
        rule(context, "forbidden.probe", (), Goto(names.PROBED), "it had not"),
    )


def _forbidden_login(context: Context) -> Chain:
    """Asterisk's chan_sip and FreeSWITCH answer a wrong password with 403, a barred number too."""
    return chain(
        names.FORBIDDEN_LOGIN,
        "403 to a login: of a call it may be the number's fault",
        ask(context, "forbidden.register", names.SET_PENDING, names.WRONG, "a wrong password"),
        ask(
            context,
            "forbidden.call",
            names.SET_RINGING,
            names.CALL_REFUSED,
            "a wrong password or a barred number",
        ),
        rule(context, "forbidden.other", (), Goto(names.WRONG), "a wrong password"),
    )


def _call_refused(context: Context) -> Chain:
    learning = context.policy.learning
    most = _CALLS_REFUSED * learning.failures
    return chain(
        names.CALL_REFUSED,
        "calls refused after a login",
        rule(
            context,
            "refused-call.count",
            (),
            AddOnce(names.SET_REFUSED_CALLS, _DST),
            "call refused after a login",
        ),
        rule(
            context,
            "refused-call.shut",
            (CountAbove(names.SET_REFUSED_CALLS, most - 1, _DST),),
            UpdateSet(names.SET_SHUT, _DST),
            f"port shut after {pluralize(most, 'refused call')} "
            f"in {format_duration(learning.window)}",
        ),
        ask(context, "refused-call.learned", names.SET_LEARNED, names.NO_FAULT, "learned source"),
        rule(context, "refused-call.stranger", (), Goto(names.FAILURE), "unknown source"),
    )


def _spared(context: Context, prefix: str) -> list[Rule]:
    return [
        rule(
            context,
            f"{prefix}.{name}",
            (InSet(name, _DST),),
            Done(),
            f"{name} sources are not counted",
        )
        for name in sorted(trusted_sets(context))
    ]


def _wrong(context: Context) -> Chain:
    learning = context.policy.learning
    failures = pluralize(learning.failures, "wrong password")
    return chain(
        names.WRONG,
        "a wrong password: its port first, then its source",
        # A datagram is one login and is charged once; a segment may hold many.
        rule(
            context,
            "wrong.login",
            (Protocol(L4Proto.UDP),),
            DeleteFromSet(names.SET_LOGINS, _DST),
            "answered: leaves logins",
        ),
        # While its source is banned this would be a way round for each port that has logged in.
        forget(context, "wrong.registered", names.SET_REGISTERED),
        *_spared(context, "wrong"),
        rule(context, "wrong.count", (), AddOnce(names.SET_WRONG, _DST), "wrong password"),
        rule(
            context,
            "wrong.shut",
            (CountAbove(names.SET_WRONG, learning.failures - 1, _DST),),
            UpdateSet(names.SET_SHUT, _DST),
            f"port shut after {failures} in {format_duration(learning.window)}",
        ),
        ask(
            context, "wrong.learned", names.SET_LEARNED, names.LEARNED_FAILURE, "a learned source's"
        ),
        rule(context, "wrong.stranger", (), Goto(names.FAILURE), "an unknown source's"),
    )


def _learned_failure(context: Context) -> Chain:
    learning = context.policy.learning
    most = _PHONES_AT_FAULT * learning.failures
    return chain(
        names.LEARNED_FAILURE,
        "wrong passwords of a learned source, all its phones together",
        rule(
            context,
            "learned-failure.count",
            (),
            AddOnce(names.SET_LEARNED_FAILURES, _DST),
            "wrong password of a learned source",
        ),
        rule(
            context,
            "learned-failure.ban",
            (CountAbove(names.SET_LEARNED_FAILURES, most - 1, _DST),),
            Goto(names.BANNING),
            f"{pluralize(most, 'wrong password')} in {format_duration(learning.window)}",
        ),
        rule(context, "learned-failure.done", (), Done(), "pluralize"),
    )


def _failure(context: Context) -> Chain:
    learning = context.policy.learning
    failures = pluralize(learning.failures, "failure")
    return chain(
        names.FAILURE,
        "failures of unknown sources lead to a ban",
        *_spared(context, "failure"),
        ask(context, "failure.learned", names.SET_LEARNED, names.NO_FAULT, "learned source"),
        Rule(
            "failure.count",
            (),
            AddOnce(names.SET_FAILURES, _DST),
            "failure of an unknown source",
            context.origin("learning", "failures"),
        ),
        Rule(
            "failure.ban",
            (CountAbove(names.SET_FAILURES, learning.failures - 1, _DST),),
            Goto(names.BANNING),
            f"{failures} in {format_duration(learning.window)}",
            context.origin("learning", "failures"),
        ),
        rule(context, "failure.done", (), Done(), "pluralize"),
    )


def _banning(context: Context) -> Chain:
    """What only datagrams say touches no stream: a datagram's source can be forged."""
    within = RateWithin(_BAN_WRITES, _BAN_BURST)
    return chain(
        names.BANNING,
        "a source is banned: for streams only by what it did on streams",
        write(context, "ban.barred", names.SET_BARRED, "its logins are barred for the window"),
        rule(
            context,
            "ban.stream",
            (Protocol(L4Proto.TCP), within),
            UpdateSet(names.SET_BANNED_TCP, _DST),
            "source banned over TCP",
        ),
        rule(context, "ban.source", (within,), UpdateSet(names.SET_BANNED, _DST), "source banned"),
        rule(context, "ban.done", (), Done(), "banned"),
    )
