"""Lists of bans as text and JSON: what is written is read, and what others wrote is not trusted."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import Exit
from sipfw.manual.addresses import Owners, parse_address, parse_source
from sipfw.manual.bans import Ban, BanRequest
from sipfw.manual.text import MOST_BANS, as_json, as_text, read_list
from sipfw.policy.types import parse_network

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

NOW = 1_800_000_000.4
NASTY = "`rm -rf /`; $(x) \"y\" 'z' # -j ACCEPT {} \\n ü"
BANS = (
    Ban(ip_address("198.51.100.66"), "manual", 3600, NASTY, "anna"),
    Ban(ip_address("2001:db8::66"), "manual", 60, "", "uid 0"),
    Ban(ip_address("198.51.100.67"), "automatic", None, "the switch refused its logins", "sipfw"),
)
WISHES = (
    BanRequest(BANS[0].address, NASTY, int(NOW) + 3600),
    BanRequest(BANS[1].address, "", int(NOW) + 60),
    BanRequest(BANS[2].address, "the switch refused its logins", None),
)


@pytest.mark.parametrize("form", [as_text, lambda bans, now: json.dumps(as_json(bans, now))])
@pytest.mark.parametrize("later", [0, 30])
def test_what_is_exported_is_imported_with_the_same_end(form: object, later: int) -> None:
    assert callable(form)
    found = read_list(form(BANS, NOW), "", NOW + later)
    assert (found.wishes, found.faults, found.expired) == (WISHES, (), 0)


def test_an_end_that_has_come_is_counted() -> None:
    found = read_list(as_text(BANS, NOW), "", NOW + 61)
    assert [wish.address for wish in found.wishes] == [BANS[0].address, BANS[2].address]
    assert found.expired == 1


def test_a_plain_list_is_read_too() -> None:
    text = "\ufeff\r\n# mine\n198.51.100.1\r\n; theirs\n\t198.51.100.2 ; why\n198.51.100.3/32 2h\n"
    found = read_list(text, "from a friend", NOW)
    assert found.faults == ()
    assert [str(wish.address)[-1] for wish in found.wishes] == ["1", "2", "3"]
    assert [wish.until for wish in found.wishes] == [None, None, int(NOW) + 7200]
    assert {wish.reason for wish in found.wishes} == {"from a friend"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("198.51.100.300", "is not an address"),
        ("198.51.100.0/24", "is a network"),
        ("-A INPUT -j ACCEPT", "is not an address"),
        ("$(reboot)", "is not an address"),
        ("fe80::1%eth0", "is not an address"),
        ("::ffff:198.51.100.1", "is an IPv4 address in IPv6 form"),
        ("198.51.100.1 tomorrow", "is not an end"),
        ("198.51.100.1 99d", "is not an end"),
        ("198.51.100.1 9999-12-31T00:00:00Z", "is too far away"),
        ("198.51.100.1 2h \x1b[2J", "is not a reason"),
        ("198.51.100.1 2h a\x85b", "is not a reason"),
        ("198.51.100.1 2h " + "x" * 81, "is not a reason"),
        ("198.51.100.1\x00", "is not an address"),
    ],
)
def test_a_hostile_line_is_named_by_its_number(line: str, said: str) -> None:
    found = read_list(f"198.51.100.9\n{line}\nx\n", "", NOW)
    first, second = found.faults
    assert first.startswith("line 2: ")
    assert said in first
    assert first.isprintable()
    assert second.startswith("line 3: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ('{"format": 1}', "no list of bans"),
        ('{"format": 9, "bans": []}', "no list of bans of format 1"),
        ('{"format": 1, "bans": [7]}', "ban 1 has no address"),
        ('{"format": 1, "bans": [{"address": "198.51.100.1", "until": 7}]}', "that is not a text"),
        ('{"a":' * 100_000, ""),
        ('{"format": 1, "bans": [{"address": "x\\ny"}]}', "ban 1: 'x\\x0ay' is not an address"),
    ],
)
def test_hostile_json_is_one_line(text: str, said: str) -> None:
    found = read_list(text, "", NOW)
    (fault,) = found.faults
    assert said in fault
    assert not found.wishes


def test_a_list_has_an_end() -> None:
    assert read_list("198.51.100.1\n" * MOST_BANS, "", NOW).faults == ()
    too_long = read_list("198.51.100.1\n" * (MOST_BANS + 1), "", NOW)
    assert too_long.faults == ("more than 100,000 bans",)
    comments = read_list("\n" * 2 * MOST_BANS, "", NOW)
    assert comments.faults == ("more than 200,000 lines",)


def test_an_address_is_one_address() -> None:
    assert parse_address("198.51.100.1/32") == ip_address("198.51.100.1")
    with pytest.raises(ValueError, match="block list"):
        parse_address("2001:db8::/64")


def test_a_prefix_of_ipv6_may_be_a_source() -> None:
    assert parse_source("2001:db8::/64") == ip_network("2001:db8::/64")
    assert parse_source("2001:db8::5/128") == ip_address("2001:db8::5")
    assert parse_source("198.51.100.1") == ip_address("198.51.100.1")
    for text, said in (("198.51.100.0/24", "block list"), ("2001:db8::1/64", "host bits")):
        with pytest.raises(ValueError, match=said):
            parse_source(text)


def test_an_exported_prefix_is_read_by_its_first_address() -> None:
    prefix = ip_network("2001:db8:5::/64")
    bans = [Ban(prefix.network_address, "manual", 60, "", "anna", network=prefix)]
    for text in (as_text(bans, NOW), json.dumps(as_json(bans, NOW))):
        (wish,) = read_list(text, "", NOW).wishes
        assert wish.address == prefix.network_address


def test_owners_inside_a_prefix_are_found() -> None:
    networks = [("2001:db8::10", "one"), ("2001:db8:1::/48", "wide"), ("198.51.100.7", "four")]
    owners = Owners([(parse_network(text), whose) for text, whose in networks])
    assert owners.inside(ip_network("2001:db8::/64")) == (ip_network("2001:db8::10"), "one")
    assert owners.inside(ip_network("2001:db8:0:1::/64")) is None
    assert owners.inside(ip_network("2001:db8:1::/64")) is None
    assert owners.of(ip_address("2001:db8:1::")) == "wide"
    assert owners.inside(ip_network("198.51.100.7")) is None


def test_owners_are_found_by_the_narrowest_network() -> None:
    networks = [("198.51.100.0/24", "wide"), ("198.51.100.7", "narrow"), ("2001:db8::/32", "six")]
    owners = Owners([(parse_network(text), whose) for text, whose in networks])
    assert owners.of(ip_address("198.51.100.7")) == "narrow"
    assert owners.of(ip_address("198.51.100.8")) == "wide"
    assert owners.of(ip_address("203.0.113.8")) is None
    assert owners.of(ip_address("2001:db8:1::")) == "six"


@pytest.mark.parametrize(
    "words",
    [
        ("ban",),
        ("ban", "198.51.100.1", "--import", "-"),
        ("ban", "198.51.100.1", "--for", "never"),
        ("ban", "198.51.100.1", "--reason", "a\nb"),
        ("ban", "--", "-j", "x;y"),
        ("ban", "--import", "missing.txt"),
        ("unban",),
        ("unban", "--all", "198.51.100.1"),
        ("unban", "evil"),
        ("trust",),
        ("trust", "198.51.100.1"),
        ("trust", "198.51.100.1", "--for", "31d"),
        ("trust", "198.51.100.1", "--for", "0s"),
        ("trust", "2001:db8::/64", "--for", "1h"),
        ("trust", "--end", "--list"),
        ("trust", "--end", "198.51.100.1", "--for", "1h"),
        ("trust", "--list", "198.51.100.1"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_done(
    words: tuple[str, ...], sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = sipfw(words[0], "--root", str(tmp_path), *words[1:])
    assert ran.code == Exit.USAGE
    assert ran.stdout == ""
    assert ran.stderr
    assert list(tmp_path.iterdir()) == []
