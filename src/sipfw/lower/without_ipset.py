"""Sets on a host without ipset: one rule per network, and xt_recent for what is learned.

The limits of that: every packet walks all networks of a list, xt_recent forgets the oldest of
100 addresses (`ip_list_tot`), so spoofed sources can push bans and learned phones out, and
failures are counted up to the hit count the kernel takes. A list knows no ports and no bytes: what
is kept by endpoint is kept by address, and the volume of a stream is not limited.
"""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Severity
from sipfw.lower.inline_small_sets import written_out
from sipfw.lower.naming import set_name
from sipfw.lower.xtables import Family, XMatch, XParam
from sipfw.ruleset.match import (
    CountAbove,
    Direction,
    InSet,
    Match,
    PrefixLengths,
    SeenAtLeast,
    VolumeAbove,
)
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, Record, UpdateSet

if TYPE_CHECKING:
    from sipfw.ruleset.model import Ruleset

# ip_pkt_list_tot of kernel 3.10: a larger hit count is refused there.
_EVERY_KERNEL = 20

_WHOLE_ADDRESS = 128

# names.SET_EXPECTED; the compiler's names are not for what comes behind it.
_EXPECTED = "expected"

# Above this, walking the networks one by one costs more than the rest of the firewall.
_MANY_NETWORKS = 200


def warnings(ruleset: Ruleset) -> list[Diagnostic]:
    """Say what a host without ipset loses with this ruleset."""
    messages = []
    kept = [item for item in ruleset.sets if item.kind is not SetKind.TARGET]
    learned = [item.name for item in kept if item.dynamic]
    if learned:
        messages.append(
            f"without ipset {', '.join(learned)} are xt_recent lists of 100 addresses each: "
            "spoofed sources can push entries out; raise ip_list_tot of xt_recent, or install ipset"
        )
    if any(item.name == _EXPECTED for item in ruleset.sets):
        messages.append(
            "without ipset a switch that speaks to more than 100 addresses at once loses RTP of "
            "the others; raise ip_list_tot of xt_recent, install ipset, or set media.sources"
        )
    networks = sum(len(item.networks) + len(item.endpoints) for item in ruleset.sets)
    if networks > _MANY_NETWORKS:
        messages.append(
            f"without ipset {networks} networks become one rule each, walked for every packet; "
            "install ipset"
        )
    return [Diagnostic(text, "--no-ipset", severity=Severity.WARNING) for text in messages]


class WithoutIpset:
    """Says set matches and set changes without ipset."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        counts = [
            match.count + 1
            for chain in ruleset.chains
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match, CountAbove)
        ]
        # The policy's own count has been held against the target kernel; multiples of it have not.
        self._most_hits = max(_EVERY_KERNEL, min(counts, default=0))

    def question(self, match: InSet | CountAbove | VolumeAbove, family: Family) -> XMatch | None:
        """Return the xt_recent form of a question to a dynamic set; None for a static set.

        Also None where bytes are counted, which xt_recent does not: such a rule is left out.
        """
        item = self._ruleset.set(match.set)
        if not item.dynamic or isinstance(match, VolumeAbove):
            return None
        # `timeout` is set on every dynamic set; the packet path alone fills them.
        params = [XParam("rcheck"), XParam("seconds", (str(item.timeout),))]
        if isinstance(match, CountAbove):
            hits = min(match.count + 1, self._most_hits)
            params.append(XParam("hitcount", (str(hits),)))
        params.append(XParam("name", (set_name(match.set, family),)))
        return XMatch("recent", (*params, *recent_end(match.direction, item.prefix, family)))

    def window(self, match: SeenAtLeast, family: Family) -> tuple[XParam, ...]:
        """Return the xt_recent form of a question to a window."""
        return (
            XParam("rcheck"),
            XParam("seconds", (str(match.seconds),)),
            XParam("hitcount", (str(match.hits),)),
            XParam("name", (set_name(match.list, family),)),
            *recent_end(Direction.SOURCE, match.prefix, family),
        )

    def record(self, action: Record, family: Family) -> XMatch:
        """Return the xt_recent form of a note in a window."""
        name = XParam("name", (set_name(action.list, family),))
        end = recent_end(Direction.SOURCE, action.prefix, family)
        return XMatch("recent", (XParam("set"), name, *end))

    def change(self, action: UpdateSet | AddOnce | DeleteFromSet, family: Family) -> XMatch:
        """Return the xt_recent form of a change to a dynamic set."""
        verb = "remove" if isinstance(action, DeleteFromSet) else "set"
        name = XParam("name", (set_name(action.set, family),))
        item = self._ruleset.set(action.set)
        return XMatch(
            "recent", (XParam(verb), name, *recent_end(action.direction, item.prefix, family))
        )

    def alternatives(
        self, match: InSet | CountAbove | VolumeAbove, family: Family
    ) -> list[tuple[Match, ...]]:
        """Return one tuple of matches for each element of a static set in this family."""
        return written_out(self._ruleset.set(match.set), match.direction, family)


def recent_end(direction: Direction, prefix: PrefixLengths, family: Family) -> tuple[XParam, ...]:
    """Return which address a list is about, and how much of it."""
    end = XParam("rsource" if direction is Direction.SOURCE else "rdest")
    if family is Family.IP or prefix.ip6 == _WHOLE_ADDRESS:
        return (end,)
    return (XParam("mask", (str(IPv6Network((0, prefix.ip6)).netmask),)), end)
