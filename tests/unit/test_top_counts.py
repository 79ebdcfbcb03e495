"""Packets of `top`: those that came from a source while it looked, and the layer they belong to."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING

from sipfw.cli import top as command
from sipfw.kernel.state.sniffer import Arrived, Sample
from sipfw.monitor.top.arriving import arrivals
from sipfw.monitor.top.source import DroppedSource, Top, merged
from sipfw.monitor.top.top import counted
from sipfw.ruleset.match import ONE_ADDRESS

if TYPE_CHECKING:
    import pytest

NOW = 1_790_000_000.0
ADDRESS = IPv4Address("198.51.100.66")
SOURCE = ip_network(ADDRESS)
SAMPLE = Sample((), {ADDRESS: Arrived(100, NOW, NOW + 2)}, 2.0, 0)
BANNED = DroppedSource(SOURCE, "banned", "banned.drop", "", first=NOW - 60, left=3540)


def rows(*found: DroppedSource, sample: Sample = SAMPLE) -> dict[str, DroppedSource]:
    return {i.layer: i for i in counted(found, arrivals(sample, ONE_ADDRESS), sample)}


def test_packets_that_a_ban_drops_are_those_that_came() -> None:
    row = rows(BANNED)["banned"]
    assert (row.packets, row.rate, row.first, row.last) == (100, 50.0, NOW - 60, NOW + 2)


def test_no_packet_is_told_twice() -> None:
    scans = DroppedSource(SOURCE, "scanner-block", "scanner.options-udp", "", 70, NOW, NOW + 1)
    limit = DroppedSource(SOURCE, "rate-limit", "rate.source", "", last=NOW)
    found = rows(limit, scans, BANNED)
    assert {name: row.packets for name, row in found.items()} == {
        "banned": 30,
        "scanner-block": 70,
        "rate-limit": 0,
    }


def test_who_is_silent_sent_nothing_and_without_a_look_nobody_knows() -> None:
    silent = rows(BANNED, sample=Sample((), {}, 2.0, 0))["banned"]
    assert (silent.packets, silent.rate, silent.last) == (0, 0.0, None)
    unknown = rows(BANNED, sample=Sample((), {}, 0.0, 0))["banned"]
    assert (unknown.packets, unknown.rate) == (None, None)


def test_first_is_never_later_than_last() -> None:
    """The kernel tells whole seconds, and a ban may be renewed after the last packet seen."""
    seen = DroppedSource(SOURCE, "banned", "banned.drop", "", last=NOW)
    renewed = DroppedSource(SOURCE, "banned", "banned.drop", "", first=NOW + 5)
    (row,) = merged([seen, renewed])
    assert row.first is not None
    assert row.last is not None
    assert row.first <= row.last


def test_a_watch_in_a_pipe_prints_block_after_block_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([Top((BANNED,), (), 2.0)] * 3)

    def looked(*_: object) -> Top:
        found = next(looks, None)
        if found is None:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(command, "_looked", looked)
    view = command._View(20, (), names=False)
    assert command._watch(None, view, 0.0, 0.0, as_json=False) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out.count("198.51.100.66  banned") == 3
