"""What trusted peers send and no rule admits: dropped as before, and noted.

A carrier whose audio comes to a port outside `media.ports`, or from an address that the policy
does not know, is not heard while every counter looks well. So where nothing else is left, packets
of a peer go through a chain that notes from where and to which port, and drops. Packets that pass
meet nothing of this, and who is no peer leaves no note: a flood cannot fill the sets, and a full
one drops no more and no less than an empty one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.collapsed import collapsed
from sipfw.compiler.layers.rates import NEIGHBOURS
from sipfw.policy.model import MediaFrom
from sipfw.policy.types import Hostname
from sipfw.ruleset.match import InSet, L4Proto, PrefixLengths, Protocol
from sipfw.ruleset.model import AddressSet, Chain, Layer, Priority, SetKind
from sipfw.ruleset.rule import AddOnce, Drop, Goto, Rule, UpdateSet
from sipfw.ruleset.source import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.compiler.context import Context
    from sipfw.policy.types import Network

# How long a note is kept, in seconds: a day's calls are over then.
_KEPT = 86_400
# A peer has few addresses, and its calls that fail have few ports.
_NOTES = 4096
_DIGITS = 6
_CHAIN = "what was sent in vain: noted, then dropped"


def host_rules(context: Context) -> list[Rule]:
    """Return the rules before the last drop of the host's guard."""
    if not context.policy.trusted_peers:
        return []
    return [
        Rule(
            f"host.peer-{proto}",
            (Protocol(proto), InSet(names.SET_PEERS)),
            Goto(names.LOST),
            f"{proto.upper()} of a trusted peer that no rule admits",
            context.origin("trusted_peers"),
        )
        for proto in (L4Proto.UDP, L4Proto.TCP)
    ]


def host_notes(context: Context) -> list[Chain]:
    """Return the chain that notes what the host's guard drops of peers."""
    if not context.policy.trusted_peers:
        return []
    rules = _notes(context, "lost", _names(context)[:2])
    return [Chain(names.LOST, Layer.HOST, _CHAIN, rules, Priority.FILTER)]


def beside_rule(context: Context, prefix: str, chain: str) -> list[Rule]:
    """Return the rule before the last drop of RTP; `chain` is where the noting is done.

    What a peer sends from its own networks has left by then. An address beside them is most likely
    the same carrier's, where the policy alone says who may send. With `expected` it is dropped
    until the switch speaks to it, which is as it should be.
    """
    if not _beside(context):
        return []
    return [
        Rule(
            f"{prefix}.beside",
            (InSet(names.SET_BESIDE),),
            Goto(chain),
            "RTP from an address beside a trusted peer's",
            context.origin("media", "sources"),
        )
    ]


def beside_notes(context: Context, chain: str, prefix: str, priority: Priority) -> list[Chain]:
    """Return the chain that notes what is dropped of addresses beside peers."""
    if not _beside(context):
        return []
    rules = _notes(context, prefix, _names(context)[2:])
    return [Chain(chain, Layer.MEDIA, _CHAIN, rules, priority)]


def lost_sets(context: Context, *, guarded: bool) -> list[AddressSet]:
    """Return the sets of peers and of notes; `guarded` tells whether the host is."""
    peers = context.policy.trusted_peers
    if not peers:
        return []
    own = [n for peer in peers for n in (*peer.media, *context.addresses(peer))]
    found = []
    if guarded:
        found.append(_networks(context, names.SET_PEERS, "networks of trusted peers", own))
    if _beside(context):
        around = [source_of(n.network_address, _prefix(n)) for n in own]
        summary = "networks around those of trusted peers"
        found.append(_networks(context, names.SET_BESIDE, summary, around))
    lost, lost_at, beside, beside_at = _names(context)
    return [
        *found,
        _noted(context, lost, "what trusted peers have sent in vain", counted=True),
        _noted(context, lost_at, "when trusted peers have sent in vain", counted=False),
        _noted(context, beside, "RTP in vain from beside trusted peers", counted=True),
        _noted(context, beside_at, "when RTP has come in vain from there", counted=False),
    ]


def _beside(context: Context) -> bool:
    policy = context.policy
    only_peers = bool(policy.media.ports) and policy.media.sources is MediaFrom.PEERS
    return only_peers and bool(policy.trusted_peers)


def _notes(context: Context, prefix: str, sets: tuple[str, ...]) -> tuple[Rule, ...]:
    counts, moments = sets
    origin = context.origin("trusted_peers")
    counting = AddOnce(counts, counting=True)
    return (
        Rule(f"{prefix}.at", (), UpdateSet(moments), "noted when, by source and port", origin),
        Rule(f"{prefix}.count", (), counting, "counted by source and port", origin),
        Rule(f"{prefix}.drop", (), Drop(), "sent in vain by a trusted peer", origin),
    )


def _networks(context: Context, name: str, summary: str, networks: Sequence[Network]) -> AddressSet:
    named = any(
        isinstance(entry, Hostname)
        for peer in context.policy.trusted_peers
        for entry in peer.signalling
    )
    return AddressSet(
        name,
        SetKind.NETWORK,
        summary,
        context.origin("trusted_peers"),
        networks=collapsed(list(networks)),
        resolved=named,
    )


def _prefix(network: Network) -> PrefixLengths:
    """Return how much of a network's addresses is its neighbourhood: itself where it is wider."""
    length = network.prefixlen
    return PrefixLengths(min(length, NEIGHBOURS.ip), min(length, NEIGHBOURS.ip6))


def _noted(context: Context, name: str, summary: str, *, counted: bool) -> AddressSet:
    origin = context.origin("trusted_peers")
    return AddressSet(
        name, SetKind.TARGET, summary, origin, timeout=_KEPT, size=_NOTES, counted=counted
    )


def _names(context: Context) -> tuple[str, ...]:
    """Name the sets of notes by what is admitted: another policy begins with empty ones.

    So what it has mended does not go on as a complaint, and what it leaves alone is still known.
    """
    policy = context.policy
    host, admin = policy.host, policy.admin
    said: list[tuple[object, ...]] = [
        *((match.proto, *match.ranges) for match in context.signalling()),
        ("media", policy.media.sources, *policy.media.ports),
        ("tcp", *host.tcp_ports),
        ("udp", *host.udp_ports),
        ("interfaces", *host.interfaces),
        ("admin", host.default_drop, admin.ssh_port, *admin.web_ports, *admin.networks),
        *(("peer", *peer.signalling, *peer.media) for peer in policy.trusted_peers),
    ]
    # The words of the policy, so that no new field of a class begins all notes anew.
    text = "\n".join(" ".join(map(str, words)) for words in said)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    bases = (names.SET_LOST, names.SET_LOST_AT, names.SET_BESIDE_LOST, names.SET_BESIDE_LOST_AT)
    return tuple(f"{base}-{digest}" for base in bases)
