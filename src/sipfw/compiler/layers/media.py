"""RTP: who may send to the media ports, and to whom the switch has spoken.

Media stands behind connection tracking, in the hooks that hold packets for the switch alone:
before routing nobody knows whether a packet is for the switch or for somebody behind this host,
whose own connections use the same ports. What the switch sends is noted where SIP's answers are
read. Why, and for whom it fits, is docs/decisions/0019-expected-media.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.context import Context, join_ports
from sipfw.compiler.layers.lost import beside_notes, beside_rule
from sipfw.policy.model import MediaFrom
from sipfw.ruleset.match import (
    ConntrackState,
    CtState,
    Direction,
    InSet,
    Interface,
    L4Proto,
    PortRange,
    Ports,
)
from sipfw.ruleset.model import AddressSet, Base, Chain, Hook, Layer, Priority, SetKind
from sipfw.ruleset.rule import Action, Done, Drop, Goto, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.ruleset.match import Match

_DST = Direction.DESTINATION

# RTP is 50 packets a second in each direction of each call; only the first one in a while writes.
_RENEWALS = 4


def media_guarded(context: Context) -> bool:
    """Tell whether not everybody may send RTP."""
    media = context.policy.media
    return bool(media.ports) and media.sources is not MediaFrom.ANYWHERE


def media_noted(context: Context) -> bool:
    """Tell whether the rules note to whom the switch sends RTP."""
    return media_guarded(context) and context.policy.media.sources is MediaFrom.EXPECTED


def media_guard(context: Context) -> list[Rule]:
    """Return the rule that leads RTP to its judgement, ahead of all others: it is most packets."""
    if not media_guarded(context):
        return []
    return [_rule(context, "media.guard", (_ports(context),), Goto(names.MEDIA), "RTP to the host")]


def media_admitted(context: Context) -> list[Rule]:
    """Return the rule by which the host's guard lets RTP in that nobody judges."""
    if media_guarded(context) or not context.policy.media.ports:
        return []
    return [Rule("host.media", (_ports(context),), Done(), "RTP", context.origin("media"))]


def media_chains(context: Context) -> list[Chain]:
    """Return the judgement of RTP to this host, and of that to a switch behind it."""
    if not media_guarded(context):
        return []
    chains = [
        _judgement(context, names.MEDIA, "media", Priority.FILTER),
        *beside_notes(context, names.BESIDE, "beside", Priority.FILTER),
    ]
    if behind := context.policy.signalling.behind:
        forwarded = [
            _rule(
                context,
                f"forward.media-{number}",
                (_ports(context), Interface(name, _DST)),
                Goto(names.MEDIA_BEHIND),
                f"RTP to the switch behind {name}",
            )
            for number, name in enumerate(behind, start=1)
        ]
        chains += [
            Chain(
                names.FORWARD,
                Layer.MEDIA,
                "RTP to a switch behind this host, where DNAT has led it on",
                tuple(forwarded),
                # In filter, Docker puts its jumps in front of others, and they accept.
                Priority.MANGLE,
                Base(Hook.FORWARD, Priority.MANGLE),
            ),
            _judgement(context, names.MEDIA_BEHIND, "media-behind", Priority.MANGLE),
            *beside_notes(context, names.BESIDE_BEHIND, "beside-behind", Priority.MANGLE),
        ]
    return chains


def spoken_rules(context: Context, prefix: str) -> list[Rule]:
    """Return the rules that find RTP among what the switch sends.

    Most of it goes to somebody who was noted a moment ago, and looking is cheaper than writing.
    """
    if not media_noted(context):
        return []
    own = _without(context.policy.media.ports, context.policy.host.udp_ports)
    if not own:
        return []
    sent = Ports(L4Proto.UDP, own, Direction.SOURCE)
    return [
        _rule(
            context,
            f"{prefix}.media-known",
            (sent, InSet(names.SET_SPOKEN, _DST)),
            Done(),
            "RTP to somebody who was noted a moment ago",
        ),
        _rule(context, f"{prefix}.media-spoken", (sent,), Goto(names.SPOKEN), "RTP of the switch"),
    ]


def spoken_chains(context: Context) -> list[Chain]:
    """Return the chain that notes to whom the switch sends RTP."""
    if not media_noted(context):
        return []
    return [
        Chain(
            names.SPOKEN,
            Layer.REPLIES,
            "to whom the switch sends RTP: from there RTP may come",
            (
                _rule(
                    context,
                    "spoken.expected",
                    (),
                    UpdateSet(names.SET_EXPECTED, _DST),
                    "the switch speaks to it: its RTP may come",
                ),
                _rule(
                    context,
                    "spoken.noted",
                    (),
                    UpdateSet(names.SET_SPOKEN, _DST),
                    "not to be noted again for a while",
                ),
                _rule(context, "spoken.done", (), Done(), "noted"),
            ),
            Priority.RAW,
        )
    ]


def media_sets(context: Context) -> list[AddressSet]:
    """Return the sets that hold to whom the switch sends RTP.

    Both are made alike but for their time, so that no change of a policy empties only one of them.
    """
    if not media_noted(context):
        return []
    lifetime = context.policy.media.expected_for
    pause = max(1, lifetime // _RENEWALS)
    return [
        AddressSet(
            name,
            SetKind.HOST,
            summary,
            context.origin("media", "sources"),
            timeout=timeout,
            prefix=context.source,
        )
        for name, summary, timeout in (
            # Whoever was noted is not looked at again before `pause` has passed.
            (names.SET_EXPECTED, "sources to which the switch sends RTP", lifetime + pause),
            (names.SET_SPOKEN, "sources that were noted a moment ago", pause),
        )
    ]


def _judgement(context: Context, chain: str, prefix: str, priority: Priority) -> Chain:
    """Judge RTP: the commonest case first, and what else may come to these ports last."""
    sources = context.policy.media.sources
    found: list[tuple[str, tuple[Match, ...], Action, str]] = []
    if sources is MediaFrom.EXPECTED:
        matches: tuple[Match, ...] = (InSet(names.SET_EXPECTED),)
        found.append(("expected", matches, Done(), "the switch sends RTP to it"))
    found.append(("peers", (InSet(names.SET_MEDIA),), Done(), "RTP of a trusted peer"))
    if context.learning:
        found.append(("learned", (InSet(names.SET_LEARNED),), Done(), "RTP of a learned source"))
    found += _bystanders(context)
    if sources is MediaFrom.PEERS:
        # What the switch sends is not noted then, and this host itself asks from such ports.
        answers = ConntrackState((CtState.ESTABLISHED, CtState.RELATED))
        found.append(("answers", (answers,), Done(), "answers to what was sent from here"))
    rules = [
        _rule(context, f"{prefix}.{name}", conditions, action, summary)
        for name, conditions, action, summary in found
    ]
    notes = names.BESIDE if chain == names.MEDIA else names.BESIDE_BEHIND
    rules += beside_rule(context, prefix, notes)
    stranger = "RTP of somebody to whom nobody has spoken"
    rules.append(_rule(context, f"{prefix}.drop", (), Drop(), stranger))
    return Chain(chain, Layer.MEDIA, "who may send RTP", tuple(rules), priority)


def _bystanders(context: Context) -> list[tuple[str, tuple[Match, ...], Action, str]]:
    """Return who is not asked: the host itself, the switch behind it, what the policy opens."""
    policy = context.policy
    found: list[tuple[str, tuple[Match, ...], Action, str]] = [
        ("loopback", (Interface("lo"),), Done(), "loopback")
    ]
    found += [
        (f"from-switch-{number}", (Interface(name),), Done(), f"the switch behind {name}")
        for number, name in enumerate(policy.signalling.behind, start=1)
    ]
    found += [
        (f"interface-{number}", (Interface(name),), Done(), f"inner network on {name}")
        for number, name in enumerate(policy.host.interfaces, start=1)
    ]
    opened = join_ports(policy.host.udp_ports)
    if any(one.overlaps(port) for one in policy.media.ports for port in opened):
        matches = (Ports(L4Proto.UDP, opened),)
        found.append(("open", matches, Done(), "UDP ports open to everybody"))
    return found


def _without(ranges: tuple[PortRange, ...], opened: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    """Leave out ports that are open to everybody: their answers go to anybody who asks."""
    left = join_ports(ranges)
    for gap in opened:
        below = [PortRange(item.first, min(item.last, gap.first - 1)) for item in left]
        above = [PortRange(max(item.first, gap.last + 1), item.last) for item in left]
        left = join_ports(item for item in (*below, *above) if item.first <= item.last)
    return left


def _ports(context: Context) -> Ports:
    return Ports(L4Proto.UDP, join_ports(context.policy.media.ports))


def _rule(
    context: Context, rule_id: str, matches: tuple[Match, ...], action: Action, summary: str
) -> Rule:
    return Rule(rule_id, matches, action, summary, context.origin("media", "sources"))
