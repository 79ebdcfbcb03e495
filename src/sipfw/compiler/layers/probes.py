"""Names that strangers try: 404 and 403 to requests without credentials.

Not every such answer is one to a probe: a keep-alive is refused with them too, and a number that
was dialled after a login.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.judging import ask, chain, forget, rule
from sipfw.compiler.layers.signatures import DIGITS
from sipfw.ruleset.match import PayloadContains
from sipfw.ruleset.rule import Done, Goto

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.model import Chain


def probe_chains(context: Context) -> list[Chain]:
    """Return the chains that tell probes from other requests that are refused so."""
    return [_probed(context), _probed_bare(context), _probed_method(context)]


def _probed(context: Context) -> Chain:
    return chain(
        names.PROBED,
        "404 and 403 to who tries names: not to who logs in, or sends anything else",
        ask(context, "probed.bare", names.SET_BARE, names.PROBED_BARE, "without credentials"),
        ask(context, "probed.login", names.SET_LOGINS, names.NO_FAULT, "a login, a wrong number"),
        rule(context, "probed.again", (), Goto(names.PROBED_BARE), "answered once more"),
    )


def _probed_bare(context: Context) -> Chain:
    return chain(
        names.PROBED_BARE,
        "404 and 403 to a request without credentials",
        forget(context, "probed.answered", names.SET_BARE),
        ask(
            context, "probed.register", names.SET_PENDING, names.PROBED_METHOD, "had sent REGISTER"
        ),
        ask(context, "probed.invite", names.SET_RINGING, names.PROBED_METHOD, "had sent INVITE"),
        rule(context, "probed.other", (), Done(), "had sent neither"),
    )


def _probed_method(context: Context) -> Chain:
    texts = [
        rule(
            context,
            f"probed.{method.lower()}-{digit}",
            (PayloadContains(f"{digit} {method}\r\n".encode()),),
            Goto(names.FAILURE),
            f"{method} for a name that is not there",
        )
        for method in ("REGISTER", "INVITE")
        for digit in DIGITS
    ]
    return chain(
        names.PROBED_METHOD,
        "keep-alives are refused too, and are nobody's fault",
        *texts,
        rule(context, "probed.method", (), Done(), "another method"),
    )
