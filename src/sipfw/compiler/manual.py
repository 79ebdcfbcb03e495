"""Rules for what operators ban and trust by hand; they stand only while there is such an address.

A lookup costs every packet of a stranger some 50 ns, so a firewall without such addresses has none
of this. The rules come right behind those of the peers: whom the policy trusts no ban can harm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.ruleset.match import Direction, InSet
from sipfw.ruleset.model import AddressSet, Chain, Layer, Priority, Ruleset, SetKind
from sipfw.ruleset.rule import Done, Drop, Goto, Origin, Reset, Return, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import Match

_BAN = Origin("bans by hand", "sipfw ban")
_TRUST = Origin("temporary trust", "sipfw trust")

PEERS = frozenset(
    {
        names.SET_TRUSTED,
        names.SET_TRUSTED_TIERS,
        names.SET_TRUSTED_UDP,
        names.SET_TRUSTED_TCP,
        names.SET_TRUSTED_TLS,
        names.SET_TRUSTED_PORTS,
        names.SET_TRUSTED_TLS_PORTS,
    }
)
# A listing shows the layers in this order, and the wall is the first of the banned one.
_BEFORE_BANNED = frozenset({Layer.ENTRY, Layer.TRUSTED, Layer.LEARNED})

_JUDGES_MEDIA = {names.MEDIA: "media", names.MEDIA_BEHIND: "media-behind"}

MOST_GUESTS = 1024

# Every element has a time of its own; the sets must have one to take that.
_DAY = 86400


@dataclass(frozen=True, slots=True)
class ByHand:
    """Whether anybody is `blocked` or a `guest` by hand."""

    blocked: bool = False
    guests: bool = False


NOBODY = ByHand()


def with_by_hand(ruleset: Ruleset, context: Context, wanted: ByHand) -> Ruleset:
    """Add the rules and sets that `wanted` asks for and the ruleset lacks.

    A firewall without a SIP port has no place for them and stays as it is.
    """
    present = {item.name for item in ruleset.sets}
    if wanted.guests and names.SET_GUESTS not in present:
        ruleset = _with_guests(ruleset)
    if wanted.blocked and names.SET_BLOCKED not in present:
        ruleset = _with_wall(ruleset, context)
    return ruleset


def _with_guests(ruleset: Ruleset) -> Ruleset:
    rules = {
        names.TRUSTED: _guest("trusted.guest"),
        names.ENCRYPTED: _guest("encrypted.guest"),
        names.CONNECTIONS: replace(
            _guest("connections.guest"), action=Return(), summary="trusted for a time by hand"
        ),
        **{
            chain: _guest(rule_id)
            for chain, rule_id in (
                (names.STREAM, "stream.guest"),
                (names.STREAM_ENCRYPTED, "stream-encrypted.guest"),
            )
        },
        # Their failures would be a ban on the day that the trust ends.
        **{
            chain: replace(
                _guest(rule_id),
                matches=(InSet(names.SET_GUESTS, Direction.DESTINATION),),
                summary="guests sources are not counted",
            )
            for chain, rule_id in (
                (names.FAILURE, "failure.guests"),
                (names.WRONG, "wrong.guests"),
                (names.UNANSWERED, "unanswered.guests"),
            )
        },
    }
    chains = [
        _behind(chain, PEERS, rules[chain.name]) if chain.name in rules else _with_media(chain)
        for chain in ruleset.chains
    ]
    if tuple(chains) == ruleset.chains:
        return ruleset
    guests = AddressSet(
        names.SET_GUESTS,
        SetKind.HOST,
        "sources that are trusted for a time",
        _TRUST,
        timeout=_DAY,
        size=MOST_GUESTS,
    )
    return replace(ruleset, chains=tuple(chains), sets=(*ruleset.sets, guests))


def _guest(rule_id: str) -> Rule:
    summary = "trusted for a time by hand, delivered untouched"
    return Rule(rule_id, (InSet(names.SET_GUESTS),), Done(), summary, _TRUST)


def _with_media(chain: Chain) -> Chain:
    """Let guests send RTP where only the peers' networks may."""
    for rule in chain.rules:
        if _asks(rule, {names.SET_MEDIA}):
            guests = tuple(_for_guests(match) for match in rule.matches)
            name = rule.id.replace("peers", "guests")
            summary = "RTP of somebody who is trusted for a time"
            found = replace(rule, id=name, matches=guests, summary=summary, origin=_TRUST)
            return _behind(chain, frozenset({names.SET_MEDIA}), found)
    return chain


def _before_media(chain: Chain) -> Chain:
    """Cut a banned source's call short; no peer is ever banned by hand, so none is asked for."""
    prefix = _JUDGES_MEDIA.get(chain.name)
    if prefix is None:
        return chain
    wall = replace(_to_wall(f"{prefix}.blocked"), action=Drop())
    return replace(chain, rules=(wall, *chain.rules))


def _for_guests(match: Match) -> Match:
    return InSet(names.SET_GUESTS, match.direction) if isinstance(match, InSet) else match


def _with_wall(ruleset: Ruleset, context: Context) -> Ruleset:
    rules = {
        names.TRUSTED: _to_wall("identity.blocked"),
        names.ENCRYPTED: _to_wall("encrypted.blocked"),
        # Connections that the switch has opened are not seen before.
        names.STREAM: replace(_to_wall("stream.blocked"), action=_end(context)),
    }
    chains = [
        _behind(chain, PEERS | {names.SET_GUESTS}, rules[chain.name])
        if chain.name in rules
        else _before_media(chain)
        for chain in ruleset.chains
    ]
    if tuple(chains) == ruleset.chains:
        return ruleset
    # deploy reads `ByHand` of here, also where nobody needs pydantic.
    from sipfw.compiler.logged import logged  # noqa: PLC0415 - see above

    drop = Rule("blocked.drop", (), Drop(), "source banned by hand", _BAN)
    wall = Chain(
        names.BLOCKED,
        Layer.BANNED,
        "sources banned by hand: dropped, without probation",
        (drop,),
        Priority.RAW,
    )
    if any(_leads_to(chain, wall.name) for chain in chains):
        listed = [*chains, wall]
        place = next(n for n, item in enumerate(listed) if item.layer not in _BEFORE_BANNED)
        chains[place:place] = logged(context, [wall])
    blocked = AddressSet(
        names.SET_BLOCKED,
        SetKind.HOST,
        "sources banned by hand",
        _BAN,
        timeout=_DAY,
        size=context.policy.bans.size,
        prefix=context.source,
    )
    return replace(ruleset, chains=tuple(chains), sets=(*ruleset.sets, blocked))


def _end(context: Context) -> Drop | Reset:
    return Drop() if context.policy.signalling.behind else Reset()


def _to_wall(rule_id: str) -> Rule:
    matches = (InSet(names.SET_BLOCKED),)
    return Rule(rule_id, matches, Goto(names.BLOCKED), "source is banned by hand", _BAN)


def _behind(chain: Chain, sets: frozenset[str], rule: Rule) -> Chain:
    """Put a rule behind the last one that asks one of these sets."""
    place = max(number for number, item in enumerate(chain.rules, 1) if _asks(item, sets))
    return replace(chain, rules=(*chain.rules[:place], rule, *chain.rules[place:]))


def _leads_to(chain: Chain, name: str) -> bool:
    return any(rule.action == Goto(name) for rule in chain.rules)


def _asks(rule: Rule, sets: frozenset[str] | set[str]) -> bool:
    return any(isinstance(match, InSet) and match.set in sets for match in rule.matches)
