"""Checks of who may send RTP: where the setting does nothing, and where it costs somebody's audio.

What is said here about phones and carriers: docs/decisions/0019-expected-media.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.diagnostics import Severity
from sipfw.policy.finding import Finding
from sipfw.policy.model import MediaFrom, Policy, Transport, UnknownSources

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCES = ("media", "sources")
_UNREAD = (Transport.TLS, Transport.WS, Transport.WSS)
_MOST_NAMES = 3
# RTCP comes every 5 seconds (RFC 3550, 6.2).
_SHORTEST, _LONGEST = 10, 3600
# A network wider than this holds a noticeable part of the Internet.
_WIDEST = {4: 8, 6: 16}


def media_sources(policy: Policy) -> Iterator[Finding]:
    """Yield what is wrong with `media`, and warnings where not everybody may send RTP."""
    if not _SHORTEST <= policy.media.expected_for <= _LONGEST:
        message = (
            f"'{policy.media.expected_for}' seconds is not for a call: a silent one sends its "
            "reports every 5 seconds, and whom the switch once spoke to may inject audio for as "
            "long; write 10s to 1h"
        )
        yield Finding(("media", "expected_for"), message)
    if policy.media.sources is MediaFrom.ANYWHERE:
        return
    if not policy.media.ports:
        message = (
            f"'{policy.media.sources}' guards nothing, because media.ports is empty; "
            "name the ports that the switch uses for RTP"
        )
        yield Finding(_SOURCES, message, Severity.WARNING)
        return
    yield from _wide_media(policy)
    yield from _unlearned_phones(policy)
    yield from _peers_without_media(policy)


def _wide_media(policy: Policy) -> Iterator[Finding]:
    for index, peer in enumerate(policy.trusted_peers):
        for place, network in enumerate(peer.media):
            if network.prefixlen < _WIDEST[network.version]:
                message = (
                    f"'{network}' lets a large part of the Internet send RTP, so "
                    f"media.sources: {policy.media.sources} guards little; name the networks of "
                    "its media gateways, or leave them out and write media.sources: expected"
                )
                path = ("trusted_peers", index, "media", place)
                yield Finding(path, message, Severity.WARNING, related=_SOURCES)


def _unlearned_phones(policy: Policy) -> Iterator[Finding]:
    """Nobody is learned over what cannot be read, and so not let in before the switch speaks."""
    if policy.limits.unknown_sources is UnknownSources.DENIED:
        return
    spoken = [item for item in _UNREAD if getattr(policy.signalling, item.value)]
    plain = policy.signalling.udp or policy.signalling.tcp
    if not policy.learning.enabled or not plain:
        who = "no phone is learned here"
    elif spoken:
        named = " and ".join(item.upper() for item in spoken)
        who = f"phones over {named} are never learned"
    else:
        return
    if policy.media.sources is MediaFrom.PEERS:
        what = "so 'peers' drops their RTP; write expected, or anywhere"
    else:
        what = (
            "so the RTP of one behind NAT is dropped until the switch sends to its public "
            "address, which ICE makes it do; without ICE write anywhere"
        )
    path = ("signalling", spoken[0].value) if spoken else ("learning", "enabled")
    yield Finding(_SOURCES, f"{who}, {what}", Severity.WARNING, related=path)


def _peers_without_media(policy: Policy) -> Iterator[Finding]:
    unnamed = [peer.name for peer in policy.trusted_peers if not peer.media]
    if not unnamed:
        return
    shown = ", ".join(unnamed[:_MOST_NAMES])
    more = len(unnamed) - _MOST_NAMES
    who = f"{shown} and {more} more" if more > 0 else shown
    if policy.media.sources is MediaFrom.PEERS:
        what = (
            f"RTP of {who} is taken from the signalling addresses only, because no media networks "
            "are named; add `media`, with the same addresses where RTP comes from there"
        )
    else:
        what = (
            f"{who}: no media networks are named, so RTP from elsewhere is taken once the switch "
            "sends RTP there; a call between two such carriers stays silent where it only relays; "
            "add `media`, with the same addresses where RTP comes from there"
        )
    yield Finding(_SOURCES, what, Severity.WARNING, related=("trusted_peers",))


__all__ = ["media_sources"]
