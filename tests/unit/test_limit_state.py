"""Limits as the kernel lists them: buckets, windows, full tables, and lines that are none."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import BackendError
from sipfw.host.runner import Completed, SubprocessRunner
from sipfw.kernel.backend import backend_of
from sipfw.kernel.netlink import elements as nft_elements
from sipfw.kernel.state import limits as limit_state
from sipfw.kernel.state.limits import MOST, NftLimits, Standing, XtLimits, source_limits
from sipfw.kernel.state.windows import IpsetLimits
from sipfw.ruleset.match import Match, PrefixLengths, Rate, RateAbove, SeenAtLeast, TimeUnit
from sipfw.ruleset.model import Chain, Layer, Priority, Ruleset
from sipfw.ruleset.rule import Drop, Family, Origin, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ONE = PrefixLengths(32, 128)
PORT = RateAbove("port", Rate(10, TimeUnit.SECOND), 20, ONE, with_port=True)
SUBNET = RateAbove("subnet", Rate(12, TimeUnit.MINUTE), 5, PrefixLengths(24, 48))
RECENT = SeenAtLeast("recent", 3, 60)
COST = 13743895300000
HERTZ = 250


def hashlimit(folder: Path, limit: RateAbove, lines: list[str], name: str = "ipt") -> None:
    (folder / f"{name}_hashlimit").mkdir(exist_ok=True)
    family = Family.IP if name == "ipt" else Family.IP6
    place = limit_state._xt_place(limit, family)
    (folder / place).write_text("".join(f"{line}\n" for line in lines))


def test_a_bucket_is_read_with_its_port_and_its_tokens(tmp_path: Path) -> None:
    line = "59 192.0.2.2:5060->0.0.0.0:0"
    hashlimit(tmp_path, PORT, [f"{line} {5 * COST // 2} {20 * COST} {COST}"])
    (table,) = XtLimits(tmp_path).read([PORT])
    (bucket,) = table.buckets
    assert (bucket.address, bucket.port, bucket.left) == (ip_address("192.0.2.2"), 5060, 2.5)
    assert (bucket.standing, bucket.expires) == (Standing.WITHIN, 59)
    assert not table.cut
    assert not table.full


def test_less_than_a_token_is_too_much(tmp_path: Path) -> None:
    hashlimit(tmp_path, PORT, [f"9 192.0.2.2:5060->0.0.0.0:0 {COST - 1} {20 * COST} {COST}"])
    (bucket,) = XtLimits(tmp_path).read([PORT])[0].buckets
    assert bucket.standing is Standing.EXCEEDED


def test_a_source_is_found_by_its_network(tmp_path: Path) -> None:
    ends = [f"192.0.{net}.0:0->0.0.0.0:0 {COST} {5 * COST} {COST}" for net in (2, 20, 200)]
    hashlimit(tmp_path, SUBNET, [f"9 {item}" for item in ends])
    table = XtLimits(tmp_path).ask(SUBNET, ip_address("192.0.2.77"))
    assert table is not None
    assert [bucket.network for bucket in table.buckets] == [ip_network("192.0.2.0/24")]


def test_a_source_of_ipv6_is_written_in_full(tmp_path: Path) -> None:
    source = "2001:0db8:0066:0000:0000:0000:0000:0000:0"
    hashlimit(tmp_path, SUBNET, [f"9 {source}->{source} 0 {COST} {COST}"], "ip6t")
    table = XtLimits(tmp_path).ask(SUBNET, ip_address("2001:db8:66::5"))
    assert table is not None
    assert [str(bucket.network) for bucket in table.buckets] == ["2001:db8:66::/48"]
    assert table.family is Family.IP6


def test_a_source_is_asked_for_one_port_or_for_all(tmp_path: Path) -> None:
    tail = f"->0.0.0.0:0 {COST} {COST} {COST}"
    hashlimit(tmp_path, PORT, [f"9 192.0.2.2:{port}{tail}" for port in (506, 5060, 5061)])
    limits = XtLimits(tmp_path)
    one = limits.ask(PORT, ip_address("192.0.2.2"), 5060)
    every = limits.ask(PORT, ip_address("192.0.2.2"))
    assert one is not None
    assert every is not None
    assert [bucket.port for bucket in one.buckets] == [5060]
    assert [bucket.port for bucket in every.buckets] == [506, 5060, 5061]


def test_a_table_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    assert XtLimits(tmp_path).ask(PORT, ip_address("192.0.2.2")) is None
    assert XtLimits(tmp_path).read([PORT, RECENT]) == []


def test_a_full_table_is_said_to_be_full(tmp_path: Path) -> None:
    small = RateAbove("port", PORT.rate, 20, ONE, table_size=2)
    ends = [f"9 192.0.2.{n}:0->0.0.0.0:0 {COST} {COST} {COST}" for n in (1, 2)]
    hashlimit(tmp_path, small, ends)
    table = XtLimits(tmp_path).ask(small, ip_address("192.0.2.3"))
    assert table is not None
    assert table.full
    assert table.buckets == ()


@pytest.mark.parametrize(
    "line", ["9 192.0.2.2:5060 1 1 1", "9 x:1->0:0 1 1 1", "9", "9 1:1->0:0 1 1 0"]
)
def test_a_line_that_is_none_is_no_traceback(tmp_path: Path, line: str) -> None:
    hashlimit(tmp_path, PORT, [line])
    with pytest.raises(BackendError, match="is not written as this version reads it"):
        XtLimits(tmp_path).read([PORT])


def test_long_tables_are_cut_and_quick(tmp_path: Path) -> None:
    tail = f":5060->0.0.0.0:0 {COST} {20 * COST} {COST}"
    lines = [f"59 10.{n >> 16}.{n >> 8 & 255}.{n & 255}{tail}" for n in range(100_000)]
    hashlimit(tmp_path, PORT, lines)
    begun = time.process_time()
    (table,) = XtLimits(tmp_path).read([PORT])
    assert time.process_time() - begun < 0.6
    assert len(table.buckets) == MOST
    assert table.cut


def recent(folder: Path, ago: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    now = (1 << 32) + 1_000_000
    clock = limit_state._Clock(now, HERTZ)
    monkeypatch.setattr(limit_state._Clock, "now", lambda: clock)
    stamps = ", ".join(str(now - round(HERTZ * seconds)) for seconds in ago)
    (folder / "xt_recent").mkdir()
    line = f"src=192.0.2.2 ttl: 64 last_seen: {now} oldest_pkt: {len(ago)} {stamps}\n"
    (folder / "xt_recent/sipfw-recent4").write_text(line)


@pytest.mark.parametrize(
    ("ago", "standing", "left"),
    [
        ([61, 50, 1], Standing.WITHIN, 1),
        ([60, 50, 1], Standing.EXCEEDED, 0),
        ([300, 200, 100], Standing.WITHIN, 3),
        ([5, 4, 3, 2, 1], Standing.EXCEEDED, 0),
    ],
)
def test_packets_in_the_window_are_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ago: list[float],
    standing: Standing,
    left: int,
) -> None:
    recent(tmp_path, ago, monkeypatch)
    table = XtLimits(tmp_path).ask(RECENT, ip_address("192.0.2.2"))
    assert table is not None
    (bucket,) = table.buckets
    assert (bucket.standing, bucket.left) == (standing, left)


def test_without_the_clock_only_few_packets_are_surely_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent(tmp_path, [1, 2, 3], monkeypatch)
    monkeypatch.setattr(limit_state._Clock, "now", lambda: None)
    many = XtLimits(tmp_path).read([RECENT])[0].buckets[0]
    few = XtLimits(tmp_path).read([SeenAtLeast("recent", 4, 60)])[0].buckets[0]
    assert (many.standing, few.standing) == (Standing.UNKNOWN, Standing.WITHIN)


@pytest.mark.parametrize("rate", [100, 250, 300, 1000])
def test_the_tick_rate_follows_from_the_time_since_boot(
    monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    monkeypatch.setattr(time, "clock_gettime", lambda _: 25_187.0)
    ticks = (1 << 32) - 300 * rate + 25_187 * rate
    assert limit_state._tick_rate(ticks) == rate


@pytest.mark.parametrize(
    ("left", "standing"),
    [(59.95, Standing.UNKNOWN), (59.5, Standing.WITHIN), (None, Standing.UNKNOWN)],
)
def test_nf_tables_tells_of_a_token_by_the_silence_before(
    monkeypatch: pytest.MonkeyPatch, left: float | None, standing: Standing
) -> None:
    key = ip_address("192.0.2.2").packed + (5060).to_bytes(2, "big") + b"\0\0"
    item = nft_elements.Element(key, left)
    monkeypatch.setattr(nft_elements, "element", lambda *_: item)
    table = NftLimits().ask(PORT, ip_address("192.0.2.2"), 5060)
    assert table is not None
    (bucket,) = table.buckets
    assert (str(bucket.address), bucket.port) == ("192.0.2.2", 5060)
    assert (bucket.standing, bucket.left) == (standing, None)


def test_a_ruleset_names_each_limit_once() -> None:
    origin = Origin("", "")
    asked: dict[str, Match] = {"one": PORT, "two": RECENT, "again": PORT}
    rules = tuple(Rule(name, (limit,), Drop(), "", origin) for name, limit in asked.items())
    chain = Chain("C", Layer.RATE, "", rules, Priority.RAW)
    assert source_limits(Ruleset((chain,), (), ())) == (PORT, RECENT)


class Listing(SubprocessRunner):
    """An `ipset` that prints this, and nothing of other sets."""

    def __init__(self, name: str, *lines: str) -> None:
        self._name = name
        self._text = "".join(f"add {name} {line}\n" for line in lines)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        assert timeout > 0
        assert env is None
        assert [*argv[:2], stdin] == ["ipset", "save", ""]
        if argv[2] == self._name:
            return Completed(0, f"create {self._name} hash:ip family inet\n{self._text}", "")
        return Completed(1, "", "ipset v7.17: The set with the given name does not exist\n")


@pytest.mark.parametrize(
    ("packets", "standing", "left"),
    [(1, Standing.WITHIN, 2), (2, Standing.WITHIN, 1), (3, Standing.EXCEEDED, 0)],
)
def test_a_window_is_read_from_its_set(
    tmp_path: Path, packets: int, standing: Standing, left: int
) -> None:
    """The packet that makes the entry is one; the look of the next one adds itself."""
    line = f"192.0.2.2 timeout 41 packets {packets} bytes 900"
    limits = IpsetLimits(Listing("sipfw-recent4", line), tmp_path)
    table = limits.ask(RECENT, ip_address("192.0.2.2"))
    assert table is not None
    (bucket,) = table.buckets
    assert (bucket.standing, bucket.left, bucket.expires) == (standing, left, 41)
    assert limits.ask(RECENT, ip_address("2001:db8::2")) is None
    other = limits.ask(RECENT, ip_address("192.0.2.3"))
    assert other is not None
    assert other.buckets == ()
    assert [each.family for each in limits.read([RECENT, PORT])] == [Family.IP]


def test_a_window_may_be_about_a_prefix(tmp_path: Path) -> None:
    window = SeenAtLeast("recent", 3, 60, prefix=PrefixLengths(32, 64))
    listing = Listing("sipfw-recent6", "2001:db8:: timeout 41 packets 3 bytes 900")
    limits = IpsetLimits(listing, tmp_path)
    table = limits.ask(window, ip_address("2001:db8::77"))
    assert table is not None
    assert [str(bucket.network) for bucket in table.buckets] == ["2001:db8::/64"]


def test_a_listing_that_is_none_is_no_traceback(tmp_path: Path) -> None:
    limits = IpsetLimits(Listing("sipfw-recent4", "192.0.2.2 timeout 41"), tmp_path)
    with pytest.raises(BackendError, match="cannot read its listing"):
        limits.ask(RECENT, ip_address("192.0.2.2"))


def test_windows_are_lists_only_without_ipset(tmp_path: Path) -> None:
    kinds = [backend_of(name, ipset=ipset).limits(tmp_path) for name, ipset in BACKENDS]
    assert [type(kind) for kind in kinds] == [IpsetLimits, XtLimits, NftLimits]


BACKENDS = [("iptables", True), ("iptables", False), ("nftables", True)]
