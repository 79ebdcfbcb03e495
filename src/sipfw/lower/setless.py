"""Sets on a host without ipset: one rule per network, and xt_recent for what is learned.

The limits of that: every packet walks all networks of a list, xt_recent forgets the oldest of
100 addresses (`ip_list_tot`), so spoofed sources can push bans and learned phones out, and
failures are counted up to the hit count the kernel takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Severity
from sipfw.lower.naming import set_name
from sipfw.lower.shortlist import written_out
from sipfw.lower.xtables import Family, XMatch, XParam
from sipfw.ruleset.match import CountAbove, Direction, InSet, Match
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, UpdateSet

if TYPE_CHECKING:
    from sipfw.ruleset.model import Ruleset

# Above this, walking the networks one by one costs more than the rest of the firewall.
_MANY_NETWORKS = 200


def warnings(ruleset: Ruleset) -> list[Diagnostic]:
    """Say what a host without ipset loses with this ruleset."""
    messages = []
    learned = [item.name for item in ruleset.sets if item.dynamic]
    if learned:
        messages.append(
            f"without ipset {', '.join(learned)} are xt_recent lists of 100 addresses each: "
            "spoofed sources can push entries out; raise ip_list_tot of xt_recent, or install ipset"
        )
    networks = sum(len(item.networks) + len(item.endpoints) for item in ruleset.sets)
    if networks > _MANY_NETWORKS:
        messages.append(
            f"without ipset {networks} networks become one rule each, walked for every packet; "
            "install ipset"
        )
    return [Diagnostic(text, "--no-ipset", severity=Severity.WARNING) for text in messages]


class Setless:
    """Says set matches and set changes without ipset."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset

    def question(self, match: InSet | CountAbove, family: Family) -> XMatch | None:
        """Return the xt_recent form of a question to a dynamic set; None for a static set."""
        item = self._ruleset.set(match.set)
        if not item.dynamic:
            return None
        # `timeout` is set on every dynamic set; the packet path alone fills them.
        params = [XParam("rcheck"), XParam("seconds", (str(item.timeout),))]
        if isinstance(match, CountAbove):
            params.append(XParam("hitcount", (str(match.count + 1),)))
        params.append(XParam("name", (set_name(match.set, family),)))
        return XMatch("recent", (*params, _end(match.direction)))

    def change(self, action: UpdateSet | AddOnce | DeleteFromSet, family: Family) -> XMatch:
        """Return the xt_recent form of a change to a dynamic set."""
        verb = "remove" if isinstance(action, DeleteFromSet) else "set"
        name = XParam("name", (set_name(action.set, family),))
        return XMatch("recent", (XParam(verb), name, _end(action.direction)))

    def alternatives(self, match: InSet | CountAbove, family: Family) -> list[tuple[Match, ...]]:
        """Return one tuple of matches for each element of a static set in this family."""
        return written_out(self._ruleset.set(match.set), match.direction, family)


def _end(direction: Direction) -> XParam:
    return XParam("rsource" if direction is Direction.SOURCE else "rdest")
