"""Notes of what strangers ask over TCP, for the judgement of the switch's answers.

A stream may be cut anywhere and carry one request behind the other, so an answer cannot be told
from the next one. Only a connection that sends nothing but whole REGISTERs can be learned by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.known import CREDENTIALS, UNCHALLENGED, answered_rule
from sipfw.compiler.layers.scanners import KNOWN_STARTS
from sipfw.compiler.layers.stream_writing import chain, rule
from sipfw.ruleset.match import L4Proto, PayloadAt, PayloadContains, StartsWithOneOf
from sipfw.ruleset.rule import DeleteFromSet, Done, Goto, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.model import Chain

# What a bare segment may be challenged for; a keep-alive is not, and explains no challenge.
CHALLENGEABLE = tuple(word for word in KNOWN_STARTS if word not in UNCHALLENGED)

# A second request in a segment that begins a REGISTER: the answer that teaches might be to it.
_SECOND = (
    "OPTIONS",
    "INVITE",
    "SUBSCRIBE",
    "MESSAGE",
    "PUBLISH",
    "NOTIFY",
    "INFO",
    "BYE",
    "CANCEL",
    "REFER",
    "UPDATE",
    "PRACK",
)


def note_chains(context: Context) -> list[Chain]:
    """Return the chains of the notes."""
    return [
        _notes(context),
        _register(context),
        chain(
            context,
            names.STREAM_PIPELINED,
            "a second request behind a REGISTER: the answer may be to either",
            rule(
                context,
                "stream-pipelined.forget",
                (),
                DeleteFromSet(names.SET_PENDING),
                "leaves pending",
            ),
            rule(context, "stream-pipelined.more", (), Goto(names.STREAM_REQUEST), "a login, too?"),
        ),
        chain(
            context,
            names.STREAM_REQUEST,
            "does the segment hold a login?",
            rule(
                context,
                "stream-request.login",
                (PayloadContains(CREDENTIALS),),
                Goto(names.STREAM_LOGIN),
                "a login",
            ),
            rule(
                context,
                "stream-request.bare",
                (StartsWithOneOf(CHALLENGEABLE, L4Proto.TCP),),
                UpdateSet(names.SET_BARE),
                "request without credentials",
            ),
            rule(context, "stream-request.pass", (), Done(), "no login"),
        ),
        chain(
            context,
            names.STREAM_LOGIN,
            "logins over TCP: the switch's answer will be a judgement",
            *answered_rule(context, "stream-login", L4Proto.TCP),
            rule(context, "stream-login.noted", (), UpdateSet(names.SET_LOGINS), "login noted"),
            rule(context, "stream-login.pass", (), Done(), "to be judged"),
        ),
    ]


def _notes(context: Context) -> Chain:
    """Only who sends nothing but REGISTERs can be learned by what is answered on a stream."""
    return chain(
        context,
        names.STREAM_NOTES,
        "whose REGISTER or INVITE the switch will judge",
        rule(
            context,
            "stream-notes.register",
            (PayloadAt(L4Proto.TCP, b"REGISTER "),),
            Goto(names.STREAM_REGISTER),
            "begins a REGISTER",
        ),
        rule(
            context,
            "stream-notes.other",
            (),
            DeleteFromSet(names.SET_PENDING),
            "begins no REGISTER: leaves pending",
        ),
        rule(
            context,
            "stream-notes.ringing",
            (PayloadAt(L4Proto.TCP, b"INVI"),),
            UpdateSet(names.SET_RINGING),
            "INVITE whose answer will be judged",
        ),
        rule(context, "stream-notes.more", (), Goto(names.STREAM_REQUEST), "a login, too?"),
    )


def _register(context: Context) -> Chain:
    seconds = [
        rule(
            context,
            f"stream-register.{method.lower()}",
            (PayloadContains(f"\n{method} ".encode()),),
            Goto(names.STREAM_PIPELINED),
            f"a {method} behind the REGISTER",
        )
        for method in _SECOND
    ]
    return chain(
        context,
        names.STREAM_REGISTER,
        "REGISTERs over TCP",
        *seconds,
        rule(
            context,
            "stream-register.pending",
            (),
            UpdateSet(names.SET_PENDING),
            "REGISTER whose answer will be judged",
        ),
        rule(context, "stream-register.more", (), Goto(names.STREAM_REQUEST), "a login, too?"),
    )
