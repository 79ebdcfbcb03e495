"""Limits in the kernel: who has a bucket, and what is left in it. Reads; changes nothing.

Limits are named as the ruleset names them. What a kernel shows differs:

- xt_hashlimit lists every bucket with its credit, refilled up to this moment (dl_seq_show).
- A window is an ipset with counters (`limit_windows`), or xt_recent, where there is none: it lists
  every source with the times of its packets, in ticks of the kernel's clock.
- nf_tables lists the elements of a bucket set, but not their tokens (nft_limit_dump). A source
  without an element has a full bucket. One that was silent for as long as a token takes has one.

`read` is for whole tables and cuts them short at `MOST` buckets; `ask` is for one source.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sipfw.errors import BackendError
from sipfw.kernel.netlink import elements as nft_elements
from sipfw.lower import nftables
from sipfw.lower.iptables_match import Draft, add_match
from sipfw.lower.naming import set_name
from sipfw.ruleset.match import RateAbove, SeenAtLeast
from sipfw.ruleset.model import Chain, Layer, Priority, Ruleset
from sipfw.ruleset.rule import Drop, Family, Origin, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.ruleset.addresses import IpAddress

SourceLimit: TypeAlias = RateAbove | SeenAtLeast

# More would take longer than a screen may wait; nf_tables takes 0.1 s for them.
MOST = 20_000

_PROC_NET = Path("/proc/net")
_HASHLIMIT = {Family.IP: "ipt_hashlimit", Family.IP6: "ip6t_hashlimit"}
_BITS = {Family.IP: 32, Family.IP6: 128}

# The tick rates that the kernel's configuration offers for x86 and arm.
_TICK_RATES = (100, 250, 300, 1000)
_TICK = 1 / min(_TICK_RATES)
_JIFFIES = re.compile(r"^jiffies: (\d+)$", re.MULTILINE)


class Standing(StrEnum):
    """What happens to the next packet of a bucket."""

    UNKNOWN = "unknown"
    WITHIN = "within"
    EXCEEDED = "exceeded"


@dataclass(frozen=True, slots=True)
class SourceBucket:
    """The state of one source in one limit.

    `length` is that of the source's prefix; `port` is None where the limit does not ask for it.
    `left` is how many packets may still come at once, None where the kernel does not tell;
    `expires` is in how many seconds the kernel forgets the bucket, None where it does not tell.
    """

    address: IpAddress
    length: int
    port: int | None
    standing: Standing
    left: float | None
    expires: float | None

    @property
    def network(self) -> IPv4Network | IPv6Network:
        """Return the source as a network."""
        return ip_network((self.address, self.length))


@dataclass(frozen=True, slots=True)
class LimitTable:
    """The buckets of one limit in one family.

    `cut` says that there are more. `full` says that xt_hashlimit makes no further bucket and drops
    who has none; where nf_tables makes none, it lets pass.
    """

    limit: SourceLimit
    family: Family
    buckets: tuple[SourceBucket, ...]
    cut: bool = False
    full: bool = False


class LimitState(Protocol):
    """The limits of one backend."""

    def read(self, limits: Iterable[SourceLimit]) -> list[LimitTable]:
        """Return a table for each limit and family; one that xtables lacks is left out.

        nf_tables does not tell a set that it lacks from an empty one.
        """
        ...

    def ask(
        self, limit: SourceLimit, source: IpAddress, port: int | None = None
    ) -> LimitTable | None:
        """Return the limit with this source's buckets only: one, or none.

        Several where the limit asks for the port and `port` is None. None if the kernel lacks it.
        """
        ...


def source_limits(ruleset: Ruleset) -> tuple[SourceLimit, ...]:
    """Return the limits of a ruleset that hold a state for each source, in packet order."""
    found = (
        match
        for chain in ruleset.chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, RateAbove | SeenAtLeast)
    )
    return tuple(dict.fromkeys(found))


def prefix(limit: SourceLimit, family: Family) -> int:
    """Return how many leading bits of an address are one source to this limit."""
    return limit.prefix.ip if family is Family.IP else limit.prefix.ip6


class XtLimits:
    """xt_hashlimit and xt_recent, the same for both flavours of iptables.

    `proc_net` is another folder for a thread in a network namespace of its own.
    """

    def __init__(self, proc_net: Path = _PROC_NET) -> None:
        self._proc_net = proc_net

    def read(self, limits: Iterable[SourceLimit]) -> list[LimitTable]:
        """Return a table for each limit and family that the kernel has."""
        tables = (self._table(limit, family) for limit in limits for family in Family)
        return [table for table in tables if table is not None]

    def ask(
        self, limit: SourceLimit, source: IpAddress, port: int | None = None
    ) -> LimitTable | None:
        """Return the limit with this source's buckets only."""
        return self._table(limit, _family(source), source, port)

    def _table(
        self,
        limit: SourceLimit,
        family: Family,
        source: IpAddress | None = None,
        port: int | None = None,
    ) -> LimitTable | None:
        path = self._proc_net / _xt_place(limit, family)
        try:
            lines = path.read_text("ascii").splitlines()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BackendError(f"{path}: cannot be read: {error}") from error
        wanted = lines if source is None else _about(lines, limit, family, source, port)
        try:
            buckets = tuple(islice(_xt_buckets(wanted, limit, family), MOST))
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise BackendError(f"{path}: is not written as this version reads it") from error
        # xt_recent makes room by forgetting whom it has not seen for longest.
        full = isinstance(limit, RateAbove) and len(lines) >= limit.table_size
        return LimitTable(limit, family, buckets, cut=len(wanted) > MOST, full=full)


def _about(
    lines: list[str], limit: SourceLimit, family: Family, source: IpAddress, port: int | None
) -> list[str]:
    """Return the lines of one source, which the kernel writes in full (%pI4, %pI6)."""
    text = ip_network((source, prefix(limit, family)), strict=False).network_address.exploded
    if isinstance(limit, SeenAtLeast):
        return [line for line in lines if line.startswith(f"src={text} ")]
    # Without the port in its key, the kernel prints port 0.
    end = ":" if port is None and limit.with_port else f":{port if limit.with_port else 0}->"
    return [line for line in lines if f" {text}{end}" in line]


def _xt_buckets(lines: list[str], limit: SourceLimit, family: Family) -> Iterator[SourceBucket]:
    if isinstance(limit, SeenAtLeast):
        return _recent_buckets(lines, limit, _Clock.now(), prefix(limit, family))
    return _hashlimit_buckets(lines, limit, prefix(limit, family))


def _hashlimit_buckets(lines: list[str], limit: RateAbove, length: int) -> Iterator[SourceBucket]:
    """Read `59 192.0.2.2:5060->0.0.0.0:0 263333033955552 274877906000000 13743895300000`."""
    for line in lines:
        expires, ends, credit, _, cost = line.split()
        source, _, port = ends[: ends.index("->")].rpartition(":")
        left = int(credit) / int(cost)
        yield SourceBucket(
            ip_address(source),
            length,
            int(port) if limit.with_port else None,
            Standing.WITHIN if left >= 1 else Standing.EXCEEDED,
            left,
            int(expires),
        )


def _recent_buckets(
    lines: list[str], limit: SeenAtLeast, clock: _Clock | None, length: int
) -> Iterator[SourceBucket]:
    """Read `src=192.0.2.2 ttl: 64 last_seen: 4301189073 oldest_pkt: 1 4301189073, 4301189100`.

    The number before the times is where the next one goes (recent_seq_show).
    """
    for line in lines:
        fields = line.replace(",", "").split()
        seen = [int(field) for field in fields[7:]]
        if clock is None:
            standing = Standing.WITHIN if len(seen) < limit.hits else Standing.UNKNOWN
            yield SourceBucket(ip_address(fields[0][4:]), length, None, standing, None, None)
            continue
        counted = [moment for moment in map(clock.seconds_ago, seen) if moment <= limit.seconds]
        left = max(0, limit.hits - len(counted))
        yield SourceBucket(
            ip_address(fields[0][4:]),
            length,
            None,
            Standing.WITHIN if left else Standing.EXCEEDED,
            left,
            max(0.0, limit.seconds - min(counted, default=limit.seconds)),
        )


def _xt_place(limit: SourceLimit, family: Family) -> Path:
    if isinstance(limit, SeenAtLeast):
        return Path("xt_recent", set_name(limit.list, family))
    (draft,) = add_match(Draft(), limit, family, None)
    name = next(
        param.values[0]
        for match in draft.matches
        for param in match.params
        if param.name == "hashlimit-name"
    )
    return Path(_HASHLIMIT[family], name)


@dataclass(frozen=True, slots=True)
class _Clock:
    """The kernel's clock in ticks, which /proc/timer_list shows to root."""

    ticks: int
    rate: int

    @classmethod
    def now(cls) -> _Clock | None:
        """Return the clock; None where the kernel does not show it."""
        try:
            found = _JIFFIES.search(Path("/proc/timer_list").read_text("ascii", errors="replace"))
        except OSError:
            return None
        return None if found is None else cls(int(found[1]), _tick_rate(int(found[1])))

    def seconds_ago(self, ticks: int) -> float:
        """Return how long ago the clock stood there."""
        return (self.ticks - ticks) / self.rate


def _tick_rate(ticks: int) -> int:
    """Return the rate with which the clock fits the time since boot.

    It starts five minutes before 32 bits overflow (INITIAL_JIFFIES).
    """
    up = time.clock_gettime(time.CLOCK_MONOTONIC)
    return min(_TICK_RATES, key=lambda rate: abs((ticks - (1 << 32)) / rate + 300 - up))


class NftLimits:
    """The bucket sets of our nftables table."""

    def read(self, limits: Iterable[SourceLimit]) -> list[LimitTable]:
        """Return a table for each limit and family that has buckets."""
        found = []
        for limit in limits:
            for family, name in _nft_sets(limit).items():
                elements = nft_elements.elements(name, MOST + 1)
                buckets = tuple(_nft_bucket(item, limit, family) for item in elements[:MOST])
                found.append(LimitTable(limit, family, buckets, cut=len(elements) > MOST))
        return found

    def ask(
        self, limit: SourceLimit, source: IpAddress, port: int | None = None
    ) -> LimitTable | None:
        """Return the limit with this source's buckets only."""
        family = _family(source)
        name = _nft_sets(limit)[family]
        whole = ip_network((source, prefix(limit, family)), strict=False).network_address
        with_port = isinstance(limit, RateAbove) and limit.with_port
        if with_port and port is None:
            every = nft_elements.elements(name, MOST)
            elements = [item for item in every if item.key.startswith(whole.packed)]
        else:
            every = []
            key = nft_elements.key_of(whole, port if with_port else None)
            one = nft_elements.element(name, key)
            elements = [] if one is None else [one]
        buckets = tuple(_nft_bucket(item, limit, family) for item in elements)
        return LimitTable(limit, family, buckets, cut=len(every) >= MOST)


def _nft_bucket(item: nft_elements.Element, limit: SourceLimit, family: Family) -> SourceBucket:
    size = _BITS[family] // 8
    with_port = isinstance(limit, RateAbove) and limit.with_port
    return SourceBucket(
        ip_address(item.key[:size]),
        prefix(limit, family),
        int.from_bytes(item.key[size : size + 2], "big") if with_port else None,
        _nft_standing(item, limit),
        None,
        item.left,
    )


def _nft_standing(item: nft_elements.Element, limit: SourceLimit) -> Standing:
    if isinstance(limit, SeenAtLeast) or item.left is None:
        return Standing.UNKNOWN
    # Each packet restarts the element's time, which is kept in ticks.
    silent = limit.lifetime - item.left - _TICK
    refilled = silent * limit.rate.amount >= limit.rate.unit.seconds
    return Standing.WITHIN if refilled else Standing.UNKNOWN


def _nft_sets(limit: SourceLimit) -> dict[Family, str]:
    """Name a limit's sets, by lowering a ruleset that asks nothing else."""
    origin = Origin("", "")
    rule = Rule("limit", (limit,), Drop(), "", origin)
    chain = Chain("LIMIT", Layer.RATE, "", (rule,), Priority.RAW)
    plan = nftables.lower(Ruleset((chain,), (), ()))
    return dict(zip(Family, (item.name for item in plan.sets), strict=True))


def _family(address: IpAddress) -> Family:
    return Family.IP if address.version == 4 else Family.IP6
