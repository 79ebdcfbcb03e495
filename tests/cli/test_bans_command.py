"""`sipfw bans` and `trust --list`: their words, for people and for programs."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.deploy.manual_list import ManualEntry
from sipfw.manual import bans as deployed
from sipfw.manual import trust as trusted
from sipfw.manual.bans import ActiveBans, Ban
from sipfw.manual.trust import Guest
from sipfw.ruleset.match import L4Proto

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

ONE = ip_address("198.51.100.66")
BANS = (
    Ban(ONE, "manual", 7199, "toll fraud", "anna"),
    Ban(
        ip_address("198.51.100.67"),
        "replies",
        60,
        "the switch refused its logins",
        "sipfw",
        (L4Proto.UDP,),
    ),
    Ban(ip_address("198.51.100.68"), "automatic", None, "one or the other", "sipfw"),
)
MOMENT = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"


@pytest.fixture
def banned(monkeypatch: pytest.MonkeyPatch) -> list[Ban]:
    found = list(BANS)
    monkeypatch.setattr(deployed, "list_bans", lambda _: ActiveBans(tuple(found), (), ()))
    return found


def test_a_ban_by_hand_is_called_so(sipfw: Sipfw, banned: list[Ban]) -> None:
    head, *lines = sipfw("bans").stdout.splitlines()
    assert len(lines) == len(banned)
    assert head.split() == ["address", "left", "until", "over", "cause", "why", "by"]
    cells = [re.split(r"\s{2,}", line) for line in lines]
    assert [row[3] for row in cells] == ["UDP, TCP", "UDP", "UDP, TCP"]
    assert [row[4] for row in cells] == ["by hand", "replies", "by packets"]
    assert [row[1] for row in cells] == ["1 h 59 min", "1 min", "-"]
    assert re.fullmatch(MOMENT, cells[0][2])
    assert cells[2][2] == "-"


@pytest.mark.usefixtures("banned")
def test_programs_find_both_words_and_utc(sipfw: Sipfw) -> None:
    found = json.loads(sipfw("bans", "--json").stdout)["bans"]
    assert [item["layer"] for item in found] == ["manual", "replies", "automatic"]
    assert [item["cause"] for item in found] == ["by hand", "replies", "by packets"]
    assert [item["transports"] for item in found] == [["udp", "tcp"], ["udp"], ["udp", "tcp"]]
    assert found[0]["until"].endswith("Z")


def test_in_ipv6_a_ban_is_shown_as_its_prefix(sipfw: Sipfw, banned: list[Ban]) -> None:
    prefix = ip_network("2001:db8::/64")
    banned[:] = [Ban(prefix.network_address, "manual", 60, "", "anna", network=prefix)]
    assert sipfw("bans").stdout.splitlines()[1].startswith("2001:db8::/64 ")
    (found,) = json.loads(sipfw("bans", "--json").stdout)["bans"]
    assert (found["address"], found["source"]) == ("2001:db8::", "2001:db8::/64")


def test_how_many_were_exported(sipfw: Sipfw, banned: list[Ban], tmp_path: Path) -> None:
    target = str(tmp_path / "bans.txt")
    assert sipfw("bans", "--export", target).stderr == "exported: 3 bans\n"
    del banned[1:]
    assert sipfw("bans", "--export", target).stderr == "exported: 1 ban\n"


def test_a_trust_is_listed_in_the_same_words(sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(
        ManualEntry(ONE, 1_795_000_000, 1_795_007_200, "load test", "anna"), 7199, in_kernel=True
    )
    monkeypatch.setattr(trusted, "list_trusts", lambda _: ((guest,), ()))
    _, line = sipfw("trust", "--list").stdout.splitlines()
    assert re.search(rf"  1 h 59 min  {MOMENT}  load test  anna  yes$", line)


@pytest.mark.parametrize(
    "words", [("ban",), ("unban",), ("trust", "--for", "2h"), ("trust", "--end")]
)
def test_addresses_that_are_none_end_every_one_of_them(
    words: tuple[str, ...], sipfw: Sipfw, tmp_path: Path
) -> None:
    name, *options = words
    ran = sipfw(name, "--root", str(tmp_path), *options, "198.51.100.66", "Nobody", "fe80::1%eth0")
    assert ran.code == 2
    first, second, last = ran.stderr.splitlines()
    assert "Nobody" in first
    assert "fe80::1%eth0" in second
    assert last == "nothing was changed"
