"""Repeat offenders, the longest times of the kernel, and networks as what they are made of."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.deploy.manual_list import ManualEntry
from sipfw.errors import BackendError, PolicyError
from sipfw.host.files import Layout
from sipfw.kernel.state.timeouts import fitting, longest_timeout, require_fitting
from sipfw.manual.offenders import (
    FORGOTTEN_AFTER,
    forget_offenders,
    grown,
    read_offenders,
    remember_bans,
)
from sipfw.manual.sources import parse_guests, parse_named
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from pathlib import Path

ONE, SIX = ip_address("198.51.100.66"), ip_address("2001:db8:67::")
LATER = 2_000_000_000


def _entry(address: object, until: int = LATER) -> ManualEntry:
    return ManualEntry(address, until - 60, until, "", "alice")  # type: ignore[arg-type]  # either


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.mark.parametrize(
    ("growth", "count", "length"),
    [(1, 9, 3600), (2, 0, 3600), (2, 1, 7200), (2, 3, 28800), (4, 2, 57600), (16, 99, 2_147_483)],
)
def test_each_ban_lasts_longer_up_to_the_longest(growth: int, count: int, length: int) -> None:
    assert grown(3600, growth, count, 2_147_483) == length


def test_bans_are_counted_and_forgotten(layout: Layout) -> None:
    assert read_offenders(layout) == {}
    remember_bans(layout, [_entry(ONE), _entry(SIX)])
    remember_bans(layout, [_entry(ONE)])
    assert {a: item.count for a, item in read_offenders(layout).items()} == {ONE: 2, SIX: 1}
    assert layout.offenders.stat().st_mode & 0o077 == 0
    assert read_offenders(layout, now=LATER + FORGOTTEN_AFTER - 1)
    assert read_offenders(layout, now=LATER + FORGOTTEN_AFTER) == {}
    forget_offenders(layout, [ONE])
    assert list(read_offenders(layout)) == [SIX]
    forget_offenders(layout, [SIX])
    assert not layout.offenders.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        '{"format": 2, "offenders": []}',
        '{"format": 1, "offenders": 7}',
        '{"format": 1, "offenders": [7, {"address": "x", "count": 1, "until": 2000000000}]}',
        '{"format": 1, "offenders": [{"address": "198.51.100.66", "count": true, "until": 9}]}',
        '{"format": 1, "offenders": [{"address": "198.51.100.66", "count": 0, "until": 9}]}',
    ],
)
def test_a_damaged_file_remembers_nobody(layout: Layout, text: str) -> None:
    layout.state.mkdir(parents=True)
    layout.offenders.write_text(text)
    assert read_offenders(layout, now=0.0) == {}


def test_ipset_holds_no_address_for_thirty_days() -> None:
    assert longest_timeout("ipset") == 2_147_483
    require_fitting(2_147_483, "ipset")
    require_fitting(30 * 86_400, "nf_tables")
    with pytest.raises(BackendError, match=r"30 d .* longest timeout is 2147483 s .24\.9 days"):
        require_fitting(30 * 86_400, "ipset")
    assert fitting(30 * 86_400, "ipset") == 2_147_483
    assert fitting(30 * 86_400, "nf_tables") == 30 * 86_400


@pytest.mark.parametrize("value", ["0", "17", "1.5", "yes", "'2'"])
def test_growth_is_a_small_whole_number(value: str) -> None:
    assert load(Request(settings=("bans.growth=16",))).policy.bans.growth == 16
    assert load(Request()).policy.bans.growth == 1
    with pytest.raises(PolicyError, match=r"bans\.growth"):
        load(Request(settings=(f"bans.growth={value}",)))


def test_a_network_is_its_addresses() -> None:
    assert parse_named("198.51.100.0/24") == ip_network("198.51.100.0/24")
    assert parse_named("198.51.100.7/32") == ip_address("198.51.100.7")
    assert parse_guests("198.51.100.0/30") == [
        ip_address(f"198.51.100.{number}") for number in range(4)
    ]
    assert len(parse_guests("2001:db8::/118")) == 1024
    for text, said in (
        ("2001:db8::/117", "sipfw peer add"),
        ("198.51.100.1/24", "host bits"),
        ("$(reboot)", "is not an address"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_guests(text)
