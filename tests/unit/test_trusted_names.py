from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.deploy.manual_list import forget_by_hand
from sipfw.host.files import Layout
from sipfw.manual.trusted_names import (
    TrustedName,
    disown,
    name_that_brought,
    read_trusted_names,
    write_trusted_names,
)

if TYPE_CHECKING:
    from pathlib import Path

LATER = 2**35
ONE, TWO = ip_address("198.51.100.1"), ip_address("2001:db8::2")
FOUND = {
    "sip.a.example": TrustedName(
        "sip.a.example", LATER, LATER + 60, "load test", "root", (ONE, TWO)
    ),
    "sip.b.example A/AAAA": TrustedName(
        "sip.b.example A/AAAA", LATER, LATER + 60, "", "uid 0", (ONE,)
    ),
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path)
    write_trusted_names(found, FOUND)
    return found


def test_what_was_written_comes_back_until_its_time_is_over(layout: Layout) -> None:
    assert read_trusted_names(layout) == FOUND
    assert layout.trusted_names.stat().st_mode & 0o777 == 0o600
    assert read_trusted_names(layout, now=LATER + 59) == FOUND
    assert read_trusted_names(layout, now=LATER + 60) == {}


def test_without_a_name_there_is_no_file(layout: Layout) -> None:
    write_trusted_names(layout, {})
    assert not layout.trusted_names.exists()
    write_trusted_names(layout, FOUND)
    forget_by_hand(layout)
    assert not layout.trusted_names.exists()


def test_who_brought_an_address_and_who_no_longer_does(layout: Layout) -> None:
    assert name_that_brought(FOUND, TWO) == "sip.a.example"
    disown(layout, [ONE])
    after = read_trusted_names(layout)
    assert [item.brought for item in after.values()] == [(TWO,), ()]
    assert name_that_brought(after, ONE) is None


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sip.a.example; reboot"},
        {"name": "one-label"},
        {"name": 1},
        {"until": LATER - 1},
        {"until": 2**60},
        {"since": -1},
        {"since": True},
        {"who": "x\n"},
        {"reason": "\x1b[2J"},
        {"brought": ["203.0.113.0/24"]},
        {"brought": ["127.0.0.1"]},
        {"brought": "203.0.113.1"},
        {"more": 1},
    ],
)
def test_a_damaged_entry_costs_itself_alone(layout: Layout, change: dict[str, object]) -> None:
    data = json.loads(layout.trusted_names.read_text())
    data["names"][1] |= change
    layout.trusted_names.write_text(json.dumps(data))
    assert list(read_trusted_names(layout)) == ["sip.a.example"]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 9, "names": []}'])
def test_a_file_that_is_none_has_no_names(layout: Layout, text: str) -> None:
    layout.trusted_names.write_text(text)
    assert read_trusted_names(layout) == {}
    write_trusted_names(layout, FOUND)
    layout.trusted_names.chmod(0o666)
    assert read_trusted_names(layout) == {}
