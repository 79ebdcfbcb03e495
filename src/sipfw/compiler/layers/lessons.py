"""The switch's judgement, the good half: which answers teach, and whom.

What counts, for whom and how long is docs/decisions/0015-evidence.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.judging import ask, chain, forget, rule, write
from sipfw.compiler.layers.signatures import DIGITS
from sipfw.ruleset.match import Direction, PayloadContains
from sipfw.ruleset.rule import DeleteFromSet, Done, Goto, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.model import Chain

_DST = Direction.DESTINATION


def lesson_chains(context: Context) -> list[Chain]:
    """Return the chains of success."""
    return [
        _success(context),
        _method(context),
        _register_done(context),
        _invite_done(context),
        _learn(context),
        _called(context),
        _renew(context),
        _renew_source(context),
    ]


def _success(context: Context) -> Chain:
    return chain(
        names.SUCCESS,
        "2xx: renews who is learned, teaches who waits for it",
        forget(context, "success.bare", names.SET_BARE),
        forget(context, "success.login", names.SET_LOGINS),
        ask(context, "success.registered", names.SET_REGISTERED, names.RENEW, "registered phone"),
        ask(context, "success.pending", names.SET_PENDING, names.METHOD, "somebody who registers"),
        ask(context, "success.ringing", names.SET_RINGING, names.METHOD, "somebody who calls"),
        ask(context, "success.learned", names.SET_LEARNED, names.RENEW_SOURCE, "learned source"),
        rule(context, "success.other", (), Done(), "nobody who waits for it"),
    )


def _method(context: Context) -> Chain:
    """Read the end of the CSeq line: a digit, a blank, the method (RFC 3261, 20.16).

    Allow, which ends with REGISTER in some switches, has a comma there.
    """
    ends = {"REGISTER": names.REGISTER_DONE, "INVITE": names.INVITE_DONE}
    texts = [
        rule(
            context,
            f"method.{method.lower()}-{digit}",
            (PayloadContains(f"{digit} {method}\r\n".encode()),),
            Goto(chain),
            f"success of {method}",
        )
        for method, chain in ends.items()
        for digit in DIGITS
    ]
    return chain(
        names.METHOD,
        "of which request it is the success",
        *texts,
        ask(context, "method.learned", names.SET_LEARNED, names.RENEW_SOURCE, "learned source"),
        rule(context, "method.other", (), Done(), "success of another method"),
    )


def _register_done(context: Context) -> Chain:
    return chain(
        names.REGISTER_DONE,
        "success of a REGISTER",
        ask(context, "register.learn", names.SET_PENDING, names.LEARN, "which it had sent"),
        rule(context, "register.other", (), Done(), "which it had not sent"),
    )


def _invite_done(context: Context) -> Chain:
    return chain(
        names.INVITE_DONE,
        "success of an INVITE",
        ask(context, "invite.learn", names.SET_DIALLING, names.LEARN, "it had logged in for it"),
        ask(context, "invite.called", names.SET_RINGING, names.CALLED, "it had only called"),
        rule(context, "invite.other", (), Done(), "which it had not sent"),
    )


def _learn(context: Context) -> Chain:
    origin = context.origin("learning", "registered_ttl")
    learned = Rule(
        "learn.add",
        (),
        UpdateSet(names.SET_LEARNED, _DST),
        "source learned from the switch's answer",
        origin,
    )
    clear = [names.SET_PENDING, names.SET_DIALLING]
    if context.bans:
        # By its failures the next refused login bans it again.
        clear.append(names.SET_BANNED)
    return chain(
        names.LEARN,
        "somebody has logged in: learn the source, and the phone by its port",
        learned,
        write(context, "learn.former", names.SET_FORMER, "remembered for weeks"),
        write(context, "learn.registered", names.SET_REGISTERED, "phone registered"),
        *(
            rule(
                context,
                f"learn.clear-{name}",
                (),
                DeleteFromSet(name, _DST),
                f"leaves {name}",
            )
            for name in clear
        ),
        rule(context, "learn.done", (), Done(), "learned"),
    )


def _called(context: Context) -> Chain:
    return chain(
        names.CALLED,
        "a call was answered: its caller stays a stranger, but for that call",
        write(context, "called.add", names.SET_CALLERS, "caller noted"),
        ask(context, "called.learned", names.SET_LEARNED, names.RENEW_SOURCE, "learned source"),
        rule(context, "called.other", (), Done(), "stranger"),
    )


def _renew(context: Context) -> Chain:
    return chain(
        names.RENEW,
        "a registered phone goes on",
        write(context, "renew.registered", names.SET_REGISTERED, "phone registered anew"),
        rule(context, "renew.source", (), Goto(names.RENEW_SOURCE), "and its source"),
    )


def _renew_source(context: Context) -> Chain:
    return chain(
        names.RENEW_SOURCE,
        "every success renews a learned source",
        write(context, "renew.learned", names.SET_LEARNED, "source learned anew"),
        write(context, "renew.former", names.SET_FORMER, "remembered for weeks"),
        rule(context, "renew.done", (), Done(), "renewed"),
    )
