"""Checks that look at more than one value of a policy. Pure: policy in, findings out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.diagnostics import Severity
from sipfw.policy.feed import MOST_FEEDS, SHORTEST_REFRESH, Feed, FeedFormat
from sipfw.policy.finding import Finding
from sipfw.policy.logging import LoggedLayer
from sipfw.policy.media_rules import media_sources
from sipfw.policy.model import Bucket, MediaFrom, Peer, Policy, UnknownSources
from sipfw.policy.names import names_faults
from sipfw.policy.peer_coverage import peer_coverage, too_wide
from sipfw.policy.port_rules import port_faults
from sipfw.policy.signatures import select, shipped_signatures
from sipfw.policy.types import Hostname, Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.policy.yaml_tree import Path
    from sipfw.ruleset.match import Rate

# "This network" and the reserved class with the broadcast address (RFC 6890, 2.2.2).
_NEVER_A_SOURCE = frozenset({0, *range(240, 256)})

# hashlimit keeps burst * interval in 32 bits of jiffies * 32 (net/netfilter/xt_hashlimit.c,
# user2credits); with HZ=1000 that is 134,217 seconds. So does limit (xt_limit.c).
_LONGEST_REFILL = 86_400


def findings(policy: Policy) -> list[Finding]:
    """Return everything that is wrong or worth a warning, in policy order."""
    checks = (
        _peer_names,
        _peer_networks,
        peer_coverage,
        _peer_overlaps,
        port_faults,
        media_sources,
        _behind,
        _buckets,
        _recent,
        _signatures,
        _names,
        _feeds,
        _wide_admin,
        _unheard_peers,
        _missing_parts,
        _logging,
    )
    return [finding for check in checks for finding in check(policy)]


def apply_blockers(policy: Policy) -> list[Finding]:
    """Return what forbids to make this policy live although it is well formed."""
    if policy.limits.unknown_sources is UnknownSources.DENIED and not policy.trusted_peers:
        message = (
            "unknown sources are denied and no peer is trusted, so nobody could call; "
            "add trusted_peers first"
        )
        return [Finding(("limits", "unknown_sources"), message)]
    return []


def setless_blockers(policy: Policy) -> list[Finding]:
    """Return what a host without ipset cannot do: failures are xt_recent hits there."""
    found = []
    if policy.feeds:
        message = "block lists are ipsets, and this firewall has none; take feeds out, or use ipset"
        found.append(Finding(("feeds", 0), message))
    failures, most = policy.learning.failures, policy.target.recent_hits
    if policy.learning.enabled and policy.bans.enabled and failures > most:
        message = (
            f"'{failures}' is more than xt_recent counts on the target kernel ({most}), and "
            "without ipset failures are counted there; lower it, or raise target.recent_hits"
        )
        related = ("target", "recent_hits")
        found.append(Finding(("learning", "failures"), message, related=related))
    return found


def _peer_names(policy: Policy) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, peer in enumerate(policy.trusted_peers):
        if peer.name in first:
            message = f"'{peer.name}' names two peers; give each its own name"
            yield Finding(("trusted_peers", index, "name"), message)
        first.setdefault(peer.name, index)


def _peer_networks(policy: Policy) -> Iterator[Finding]:
    for index, peer in enumerate(policy.trusted_peers):
        for place, network in enumerate(peer.signalling):
            if isinstance(network, Hostname):
                continue
            message = _unfit(network, peer)
            if message:
                yield Finding(("trusted_peers", index, "signalling", place), message)


def _unfit(network: Network, peer: Peer) -> str | None:
    if too_wide(network):
        return (
            None
            if peer.allow_any
            else (
                f"'{network}' trusts a large part of the Internet; name the peer's own networks, "
                "or set allow_any: true"
            )
        )
    for problem in ("loopback", "multicast", "unspecified"):
        if getattr(network, f"is_{problem}"):
            return f"'{network}' is a {problem} address and never a peer; remove it"
    # Integers: subnet_of costs more than all the rest of the checks for 100,000 peers.
    if network.version == 4 and int(network.network_address) >> 24 in _NEVER_A_SOURCE:
        return f"'{network}' is never the source of a packet; remove it"
    return None


@dataclass(frozen=True, slots=True)
class _Claim:
    network: Network
    peer_index: int
    place: int


def _peer_overlaps(policy: Policy) -> Iterator[Finding]:
    claims = [
        _Claim(network, index, place)
        for index, peer in enumerate(policy.trusted_peers)
        for place, network in enumerate(peer.signalling)
        # A peer that may be anybody overlaps everybody, and that is what allow_any is for.
        if not isinstance(network, Hostname) and not too_wide(network)
    ]
    for version in (4, 6):
        yield from _overlapping(policy, [c for c in claims if c.network.version == version])


def _overlapping(policy: Policy, claims: list[_Claim]) -> Iterator[Finding]:
    """Sweep in address order; a stack of the enclosing networks makes this fast for 5,000 peers."""
    claims.sort(key=lambda c: (int(c.network.network_address), c.network.prefixlen))
    enclosing: list[_Claim] = []
    for claim in claims:
        start = int(claim.network.network_address)
        while enclosing and int(enclosing[-1].network.broadcast_address) < start:
            enclosing.pop()
        for wider in enclosing:
            mine, theirs = (policy.trusted_peers[c.peer_index] for c in (claim, wider))
            if told_apart(mine, theirs, same=claim.peer_index == wider.peer_index):
                continue
            later, earlier = sorted(
                (claim, wider), key=lambda c: (c.peer_index, c.place), reverse=True
            )
            message = (
                f"'{later.network}' overlaps '{earlier.network}' of "
                f"{policy.trusted_peers[earlier.peer_index].name}; keep one"
            )
            yield Finding(("trusted_peers", later.peer_index, "signalling", later.place), message)
            break
        enclosing.append(claim)


def told_apart(one: Peer, other: Peer, *, same: bool) -> bool:
    """Two customers behind one address are fine when port or transport tells them apart."""
    if same:
        return False
    ports = bool(one.source_ports and other.source_ports) and not any(
        mine.overlaps(theirs) for mine in one.source_ports for theirs in other.source_ports
    )
    transports = bool(one.transports and other.transports) and not (
        set(one.transports) & set(other.transports)
    )
    return ports or transports


def _behind(policy: Policy) -> Iterator[Finding]:
    behind = policy.signalling.behind
    for index, name in enumerate(behind):
        if name == "lo":
            message = "'lo' is this host itself, which is never limited; remove it"
            yield Finding(("signalling", "behind", index), message)
        elif name in behind[:index]:
            yield Finding(("signalling", "behind", index), f"'{name}' is there twice; remove one")
    if behind and policy.media.notrack:
        message = (
            "RTP of a switch behind this host needs connection tracking, which changes its "
            "addresses; set notrack: false, or take signalling.behind out"
        )
        yield Finding(("media", "notrack"), message, related=("signalling", "behind"))


def _all_buckets(policy: Policy) -> Iterator[tuple[Path, Rate, int]]:
    limits, learning = policy.limits, policy.learning
    buckets: dict[Path, Bucket | None] = {
        ("limits", "hashlimit"): limits.hashlimit,
        ("limits", "per_source"): limits.per_source,
        ("limits", "per_subnet"): limits.per_subnet,
        ("limits", "methods", "register"): limits.methods.register_,
        ("limits", "methods", "invite"): limits.methods.invite,
        ("limits", "methods", "options"): limits.methods.options,
        ("limits", "methods", "other"): limits.methods.other,
    }
    for path, bucket in buckets.items():
        if bucket is not None:
            yield path, bucket.rate, bucket.burst
    yield ("learning",), learning.rate, learning.burst
    yield ("logging",), policy.logging.rate, policy.logging.burst


def _buckets(policy: Policy) -> Iterator[Finding]:
    for path, rate, burst in _all_buckets(policy):
        refill = burst * rate.unit.seconds // rate.amount
        if refill > _LONGEST_REFILL:
            message = (
                f"a burst of {burst} at {rate} takes {refill} seconds to refill, "
                f"more than the kernel counts; raise the rate or lower the burst"
            )
            yield Finding((*path, "burst"), message)


def _recent(policy: Policy) -> Iterator[Finding]:
    recent, most = policy.limits.recent, policy.target.recent_hits
    if recent is not None and recent.hits > most:
        message = (
            f"'{recent.hits}' is more than xt_recent counts on the target kernel ({most}); "
            "lower it, or set target.recent_hits to 255 for kernels from 4.0 on"
        )
        yield Finding(("limits", "recent", "hits"), message)


def _signatures(policy: Policy) -> Iterator[Finding]:
    agents = policy.scanners.user_agents
    selection = select(shipped_signatures(), agents.add, agents.remove, agents.optional)
    for note in selection.notes:
        path = ("scanners", "user_agents", note.field, note.index)
        yield Finding(path, note.message, note.severity)


def _names(policy: Policy) -> Iterator[Finding]:
    entries = [entry for peer in policy.trusted_peers for entry in peer.signalling]
    used = (e.name for e in (*policy.admin.networks, *entries) if isinstance(e, Hostname))
    for path, message in names_faults(policy.names, used):
        yield Finding(("names", *path), message)


def _feeds(policy: Policy) -> Iterator[Finding]:
    names: set[str] = set()
    for index, feed in enumerate(policy.feeds):
        if feed.name in names:
            message = f"'{feed.name}' names two lists; give each its own name"
            yield Finding(("feeds", index, "name"), message)
        names.add(feed.name)
        if feed.url is None and feed.file is None:
            yield Finding(("feeds", index), "has no source; write url: or file:")
        if feed.url is not None and feed.file is not None:
            yield Finding(("feeds", index), "has two sources; keep url: or file:")
        for field, message in _feed_faults(feed):
            yield Finding(("feeds", index, field), message)
    if len(policy.feeds) > MOST_FEEDS:
        message = f"{len(policy.feeds)} lists are too many to look up; keep at most {MOST_FEEDS}"
        yield Finding(("feeds", MOST_FEEDS), message)


def _feed_faults(feed: Feed) -> Iterator[tuple[str, str]]:
    if feed.column != 1 and feed.format is not FeedFormat.CSV:
        yield "column", f"a {feed.format} has no columns; write format: csv, or take column out"
    if feed.refresh < SHORTEST_REFRESH:
        yield "refresh", f"'{feed.refresh}' seconds is too often; write at least 5m"
    if feed.expiry is not None and feed.expiry < feed.refresh:
        yield "expiry", "the list would expire before it is fetched again; write more than refresh"


def _wide_admin(policy: Policy) -> Iterator[Finding]:
    for index, network in enumerate(policy.admin.networks):
        if not isinstance(network, Hostname) and too_wide(network):
            message = f"'{network}' lets a large part of the Internet reach ssh; name your own"
            yield Finding(("admin", "networks", index), message, Severity.WARNING)


def _unheard_peers(policy: Policy) -> Iterator[Finding]:
    for index, peer in enumerate(policy.trusted_peers):
        if peer.transports and not any(
            getattr(policy.signalling, transport.value) for transport in peer.transports
        ):
            names = ", ".join(peer.transports)
            message = f"the switch has no port for {names}, so this peer is trusted nowhere"
            yield Finding(("trusted_peers", index, "transports"), message, Severity.WARNING)


def _logging(policy: Policy) -> Iterator[Finding]:
    guarded = policy.admin.networks and policy.host.default_drop
    if LoggedLayer.HOST in policy.logging.layers and not guarded:
        message = (
            "'host' drops nothing here, so nothing of it is logged; it needs admin.networks and "
            "host.default_drop"
        )
        index = policy.logging.layers.index(LoggedLayer.HOST)
        yield Finding(("logging", "layers", index), message, Severity.WARNING)
    if LoggedLayer.MEDIA in policy.logging.layers and policy.media.sources is MediaFrom.ANYWHERE:
        message = "'media' drops nothing here; it needs media.sources: expected, or peers"
        index = policy.logging.layers.index(LoggedLayer.MEDIA)
        yield Finding(("logging", "layers", index), message, Severity.WARNING)


def _missing_parts(policy: Policy) -> Iterator[Finding]:
    if not policy.trusted_peers:
        message = "no trusted peers: carriers are treated like strangers; add trusted_peers"
        yield Finding(("trusted_peers",), message, Severity.WARNING)
    if not policy.admin.networks:
        message = "no admin networks: only the SIP ports are guarded, the rest of the host is open"
        yield Finding(("admin", "networks"), message, Severity.WARNING)


__all__ = ["Finding", "apply_blockers", "findings", "setless_blockers", "told_apart"]
