"""What `sipfw why` found, in an operator's words; lines and JSON share them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler.names import SET_BANNED, SET_BLOCKED
from sipfw.monitor.why.state import network_of
from sipfw.monitor.why.why import Effect, RemedyKind
from sipfw.ruleset.match import (
    ConnectionsAbove,
    CountAbove,
    Direction,
    RateAbove,
    SeenAtLeast,
    VolumeAbove,
)
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.source import source_text
from sipfw.simulate.state import Limit
from sipfw.words import format_duration, pluralize

if TYPE_CHECKING:
    from sipfw.kernel.state.limits import SourceBucket
    from sipfw.kernel.state.sources import Held
    from sipfw.monitor.why.state import LimitReading, SourceState
    from sipfw.monitor.why.why import Remedy
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Rule

_LOGGED = ("log.", ".drop")
_SHOWN_PORTS = 4


def rule_id(rule: Rule) -> str:
    """Return the id that counters and the policy's documentation use; a logged drop has another."""
    start, end = _LOGGED
    if rule.id.startswith(start) and rule.id.endswith(end):
        return rule.id.removeprefix(start).removesuffix(end)
    return rule.id


def limit_text(reading: LimitReading, source: SourceState) -> str:
    """Say what a limit allows, and to whom."""
    limit = reading.limit
    network = network_of(reading, source)
    whom = "source" if network.num_addresses == 1 else str(network)
    match limit:
        case RateAbove():
            port = " and port" if limit.with_port else ""
            return f"{limit.rate}, burst {limit.burst}, for {_each(whom)}{port}"
        case SeenAtLeast():
            requests = pluralize(limit.hits, "request")
            return f"{requests} in {format_duration(limit.seconds)}, for {_each(whom)}"
        case ConnectionsAbove():
            return f"{pluralize(limit.count, 'connection')}, for {_each(whom)}"
        case CountAbove() | VolumeAbove():
            item = source.world.ruleset.set(limit.set)
            what = f"{limit.size:,} bytes" if isinstance(limit, VolumeAbove) else str(limit.count)
            of_port = item.kind is SetKind.ENDPOINT
            each = "each connection" if of_port else _each(whom)
            return f"{what} in {format_duration(item.timeout or 0)} ({item.name}), for {each}"


def _each(whom: str) -> str:
    return "each source" if whom == "source" else f"all of {whom}"


def standing_text(reading: LimitReading) -> str:
    """Say where the source stands against a limit."""
    limit, buckets = reading.limit, reading.buckets
    if isinstance(limit, ConnectionsAbove):
        if reading.connections is None:
            return "unknown: its connections cannot be counted on this host"
        if reading.standing is Limit.WITHIN:
            return f"within: at most {reading.connections} open"
        return f"unknown: {reading.connections} open, and the kernel may count fewer"
    if isinstance(limit, CountAbove | VolumeAbove):
        return _entry_text(reading, limit)
    if not buckets and reading.full:
        return "exceeded: the kernel's table is full, and it drops whom it does not know"
    if not buckets and reading.standing is Limit.UNKNOWN:
        return "unknown: the kernel does not show this limit"
    if not buckets:
        return "within: nothing counted"
    shown = [_bucket_text(bucket, limit) for bucket in buckets[:_SHOWN_PORTS]]
    if len(buckets) > _SHOWN_PORTS:
        shown.append(f"and {pluralize(len(buckets) - _SHOWN_PORTS, 'more port')}")
    text = "; ".join(shown)
    several = any(bucket.port is not None for bucket in buckets)
    if several and reading.standing is Limit.UNKNOWN:
        return f"unknown without --port: {text}"
    return text


def _entry_text(reading: LimitReading, limit: CountAbove | VolumeAbove) -> str:
    entry = reading.entry
    if entry is None or entry.present is None:
        return "unknown without --port, or not shown by the kernel"
    if not entry.present:
        return "within: nothing counted"
    seen = entry.bytes if isinstance(limit, VolumeAbove) else entry.packets
    if seen is None:
        return "unknown: it is counted, and the kernel does not show how much"
    most = limit.size if isinstance(limit, VolumeAbove) else limit.count
    left = "" if entry.left is None else f", from zero in {format_duration(entry.left)}"
    return f"{reading.standing}: {seen:,} of {most:,} counted{left}"


def _bucket_text(bucket: SourceBucket, limit: RateAbove | SeenAtLeast) -> str:
    port = "" if bucket.port is None else f"port {bucket.port}: "
    most = limit.hits if isinstance(limit, SeenAtLeast) else limit.burst
    if bucket.left is not None and bucket.left >= 1:
        return f"{port}within: {int(bucket.left)} of {most} left"
    if bucket.left is not None:
        wait = wait_of(bucket, limit)
        after = "" if wait is None else f", the next one passes in {_short(wait)}"
        return f"{port}exceeded{after}"
    if isinstance(limit, SeenAtLeast) or bucket.expires is None:
        return f"{port}unknown: it is counted, and the kernel does not show how often"
    silent = max(0.0, limit.lifetime - bucket.expires)
    if bucket.standing == "within":
        return f"{port}within: its last one came {_short(silent)} ago"
    return (
        f"{port}unknown: its last one came {_short(silent)} ago, and nftables does not show "
        "how many are left"
    )


def wait_of(bucket: SourceBucket, limit: RateAbove | SeenAtLeast) -> float | None:
    """Return the seconds until a bucket lets the next packet through."""
    if bucket.left is None:
        return None
    if isinstance(limit, SeenAtLeast):
        return bucket.expires if bucket.left < 1 else 0.0
    return max(0.0, 1 - bucket.left) * limit.rate.unit.seconds / limit.rate.amount


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)


def held_text(name: str, source: SourceState, ruleset: Ruleset) -> str:
    """Say whether the source is in a dynamic set; of endpoints, with which of its ports."""
    held, item = source.sets[name], ruleset.set(name)
    doors = source.doors(name)
    if doors:
        shown = [
            f"{door.proto} port {door.port}{_left_text(each)}"
            for door, each in sorted(doors.items())[:_SHOWN_PORTS]
        ]
        more = len(doors) - _SHOWN_PORTS
        return f"{name}: {', '.join([*shown, *([f'and {more} more'] if more > 0 else [])])}"
    if held.present is None:
        return f"{name}: unknown"
    if not held.present:
        return f"{name}: no"
    whole = source_text(source.address, item.prefix)
    who = "" if whole == str(source.address) else f", {whole}"
    left = _left_text(held)
    most = failures_to_ban(ruleset, name)
    if most is None:
        return f"{name}: yes{who}{left}"
    count = failures(held)
    seen = "yes, the kernel does not show how many" if count is None else str(count)
    return f"{name}: {seen}{who}{left} ({most} lead to a ban)"


def _left_text(held: Held) -> str:
    return "" if held.left is None else f", for another {format_duration(held.left)}"


def failures(held: Held) -> int | None:
    """Return what a counted entry has counted: it starts at one, and the first look adds one."""
    return None if held.packets is None else max(0, held.packets - 1)


def failures_to_ban(ruleset: Ruleset, name: str) -> int | None:
    """Return how many refusals of a source lead to a ban; None for a set that bans nobody."""
    return next(
        (
            match.count + 1
            for chain in ruleset.chains
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match, CountAbove)
            and match.set == name
            and match.direction is Direction.DESTINATION
        ),
        None,
    )


def change_text(change: Remedy, source: SourceState) -> str:
    """Say what would have to happen."""
    text = _change_text(change, source)
    return f"{text} (as far as can be known)" if change.effect is Effect.DEPENDS else text


def _change_text(change: Remedy, source: SourceState) -> str:
    ends = "" if change.seconds is None else f", in {format_duration(change.seconds)}"
    match change.kind:
        case RemedyKind.BAN_ENDS:
            return f"{_of_source(source)} ban ends{ends}"
        case RemedyKind.WINDOW_ENDS:
            return f"it is no longer in {change.name}: that ends by itself{ends}"
        case RemedyKind.SUCCESS:
            return "the switch accepts a login from it (answers 200)"
        case RemedyKind.TRUST:
            return "it becomes a trusted peer"
        case RemedyKind.ADMIN:
            return "it lies in an admin network of the policy"
        case RemedyKind.SPOKEN:
            return "the switch sends RTP to it"
        case RemedyKind.MEDIA:
            return "it lies in a media network of a trusted peer"
        case RemedyKind.LEAVES_SET:
            return f"it is no longer in {change.name}"
        case RemedyKind.FORGOTTEN:
            return f"it is no longer in {change.name}{ends}"
        case RemedyKind.BANNED:
            return "it gets banned"
        case RemedyKind.METHOD:
            return f"it sends {change.name} instead"
        case RemedyKind.TRANSPORT:
            return f"it sends over {change.name} instead"
        case RemedyKind.SLOWER:
            limits = ", ".join(item.rule_id for item in change.readings)
            return f"it sends more slowly ({limits})"
        case RemedyKind.FASTER:
            (reading,) = change.readings
            return f"it exceeds {limit_text(reading, source)} ({reading.rule_id})"


def _of_source(source: SourceState) -> str:
    """Say whose a ban is: in IPv6 that of all addresses of a prefix."""
    sets = {item.name: item for item in source.world.ruleset.sets}
    found = next((sets[name] for name in (SET_BANNED, SET_BLOCKED) if name in sets), None)
    if found is None:
        return "its"
    whole = source_text(source.address, found.prefix)
    return "its" if whole == str(source.address) else f"the {whole}"


def command_text(change: Remedy, source: SourceState, commands: frozenset[str]) -> str | None:
    """Return the command that brings a change about; None where this version has none."""
    named = {RemedyKind.BAN_ENDS: "unban", RemedyKind.TRUST: "trust", RemedyKind.BANNED: "ban"}
    command = named.get(change.kind)
    if command not in commands:
        return None
    # A trust by hand needs an end.
    length = " --for 2h" if change.kind is RemedyKind.TRUST else ""
    return f"sipfw {command} {source.address}{length}"
