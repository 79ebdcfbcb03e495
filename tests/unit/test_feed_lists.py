"""Which answer counts: the last good copy, its age, its friends, and what is said about it."""

from __future__ import annotations

import json
import os
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sipfw.deploy.lists import exempt as spared
from sipfw.deploy.lists import fill as feed_fill
from sipfw.deploy.lists import follow as feeds_module
from sipfw.deploy.lists.files import KnownList, read_known, write_copy, write_tries
from sipfw.deploy.lists.follow import ask_sources, is_due, keep, lists_of, read_all
from sipfw.deploy.lists.sets import forget_all
from sipfw.feeds.errors import FeedError
from sipfw.feeds.fetch import FeedResponse, Seen
from sipfw.feeds.parse import LeftOut
from sipfw.feeds.store import Copy, Tries, copy_text, identity, read_copy
from sipfw.host.files import Layout
from sipfw.host.own_addresses import own_addresses
from sipfw.policy.feed import Feed
from sipfw.policy.model import Policy
from sipfw.ruleset.model import AddressSet, Ruleset, SetKind
from sipfw.ruleset.rule import Origin

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from feed_server import running

if TYPE_CHECKING:
    from sipfw.deploy.lists.exempt import Exempt
    from sipfw.deploy.lists.follow import Lists

NOW = 1_000_000.0
URL = "http://127.0.0.1:1/list"


def feed(**fields: Any) -> Feed:
    return Feed(**{"name": "x", "url": URL, **fields})


def nets(*texts: str) -> tuple[Any, ...]:
    return tuple(ip_network(text) for text in texts)


TEN = nets(*(f"203.0.113.{number}" for number in range(10)))
OLD = KnownList(Copy(NOW - 100, TEN, (), Seen('"1"')), Tries(NOW - 100, NOW - 100, None))


def body(*texts: str) -> FeedResponse:
    return FeedResponse("\n".join(texts).encode(), Seen('"2"'))


def asked(
    answer: FeedResponse | FeedError, known: KnownList = OLD, *, accept: bool = False
) -> KnownList:
    def ask(_: str, seen: Seen) -> FeedResponse:
        assert seen == (Seen() if known.copy is None else known.copy.seen)
        if isinstance(answer, FeedError):
            raise answer
        return answer

    found = ask_sources([feed()], {"x": known}, accept=["x"] if accept else [], ask=ask)
    return found["x"]


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spared, "own_addresses", lambda: [ip_network("192.0.2.1")[0]])
    monkeypatch.setattr(spared, "ssh_sessions", tuple)
    monkeypatch.setattr(feeds_module.time, "time", lambda: NOW)


def test_a_good_answer_becomes_the_copy() -> None:
    found = asked(body("198.51.100.1", "198.51.100.2", "junk", *map(str, TEN)))
    assert found.copy is not None
    assert len(found.copy.networks) == 12
    assert found.copy.seen == Seen('"2"')
    assert found.tries == Tries(NOW, NOW, None)


def test_an_unchanged_answer_makes_the_copy_young_again() -> None:
    found = asked(FeedResponse(None, Seen('"1"')))
    assert found.copy == OLD.copy
    assert found.good == NOW


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (FeedError("answered 404"), "answered 404"),
        (body(), "is empty; if that is right: sipfw refresh --accept x"),
        (body("# nothing"), "is empty"),
        (body("127.0.0.1"), "is empty"),
        (body("203.0.113.1", "203.0.113.2"), "has shrunk from 10 to 2 entries"),
        (body(*map(str, TEN[:4])), "has shrunk from 10 to 4 entries"),
        (body("<html>", "203.0.113.1"), ""),
        (body("<html>", "<p>", "203.0.113.1"), "is not a list of addresses"),
    ],
)
def test_a_bad_answer_leaves_the_copy(answer: FeedResponse | FeedError, reason: str) -> None:
    found = asked(answer)
    assert found.copy == OLD.copy
    assert found.tries is not None
    assert reason in (found.tries.error or "")
    assert found.tries.error is not None
    assert found.good == OLD.good


def test_half_of_the_entries_are_enough() -> None:
    found = asked(body(*map(str, TEN[:5])))
    assert found.copy is not None
    assert found.copy.networks == TEN[:5]


def test_the_operator_may_accept_less_but_no_page() -> None:
    for answer, count in ((body(), 0), (body("203.0.113.1"), 1)):
        found = asked(answer, accept=True)
        assert found.copy is not None
        assert len(found.copy.networks) == count
    found = asked(body("<html>", "<p>", "203.0.113.1"), accept=True)
    assert found.copy == OLD.copy


def test_an_expired_copy_does_not_hold_a_shorter_list_back() -> None:
    long_ago = NOW - 8 * 86400
    expired = KnownList(
        Copy(long_ago, TEN, (), Seen('"1"')), Tries(NOW - 1, long_ago, "answered 404")
    )
    found = asked(body("203.0.113.1"), expired)
    assert found.copy is not None
    assert found.copy.networks == TEN[1:2]


def test_a_source_that_hangs_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(feeds_module, "DEADLINE", 0.5)
    monkeypatch.setattr(feeds_module, "_PATIENCE", 0.1)
    (tmp_path / "misbehave").touch()
    with running(tmp_path) as server:
        slow = feed(url=f"http://127.0.0.1:{server.port}/slow-head")
        started = time.monotonic()
        found = ask_sources([slow], {"x": KnownList()})
        assert time.monotonic() - started < 5
    assert found["x"].tries is not None
    assert found["x"].tries.error == "no answer within 0.5 s"


def test_a_fault_of_our_own_is_one_reason_and_no_hang() -> None:
    def broken(_: str, __: Seen) -> FeedResponse:
        raise KeyError("x")

    found = ask_sources([feed()], {"x": OLD}, ask=broken)["x"]
    assert found.copy == OLD.copy
    assert found.tries is not None
    assert found.tries.error == "a fault in sipfw itself: KeyError"


@pytest.mark.parametrize(
    ("good", "tried", "due"),
    [
        (100, 100, False),
        (21_599, 21_599, False),
        (21_601, 21_601, True),
        (30_000, 60, False),
        (30_000, 901, True),
        (-500, -500, True),
        (None, 60, False),
        (None, 901, True),
        (None, None, True),
    ],
)
def test_when_a_source_is_asked_again(good: float | None, tried: float | None, due: bool) -> None:
    copy = None if good is None else Copy(NOW - good, TEN)
    tries = (
        None if tried is None else Tries(NOW - tried, None if good is None else NOW - good, "error")
    )
    assert is_due(feed(), KnownList(copy, tries), NOW) is due


def wanted(known: KnownList, policy: dict[str, Any] | None = None, **fields: Any) -> Lists:
    data = {"feeds": [{"name": "x", "url": URL, **fields}], **(policy or {})}
    return lists_of(Policy.model_validate(data), {"x": known}, {}, now=NOW)


def said(lists: Lists) -> str:
    return "\n".join(map(str, lists.remarks))


def test_a_good_copy_is_in_force_without_a_word() -> None:
    found = wanted(OLD)
    assert found.networks == {"x": TEN}
    assert (found.remarks, found.missing) == ((), ())


def test_a_stand_in_is_said_with_its_age() -> None:
    found = wanted(KnownList(OLD.copy, Tries(NOW, NOW - 7200, "answered 404")))
    assert found.networks == {"x": TEN}
    assert found.missing == ()
    assert said(found) == (
        "warning: feeds.x: the last try failed: answered 404; the last good one stays in "
        "force: 10 entries, 2 h old"
    )


def test_a_copy_that_covers_more_than_the_policy_now_allows_drops_nobody() -> None:
    """It may be older than the bound."""
    wide = KnownList(Copy(NOW, nets("203.0.0.0/8"), (), Seen()), Tries(NOW, NOW, None))
    found = wanted(wide, max_coverage="1/250")
    assert (found.networks["x"], found.missing) == ((), ("x",))
    assert "covers 0.5 % of all IPv4 addresses in use" in said(found)
    assert "nothing is dropped by it" in said(found)
    assert wanted(wide).networks["x"] == nets("203.0.0.0/8")


def test_an_expired_copy_drops_nobody_and_never_is_never() -> None:
    old = KnownList(Copy(NOW - 8 * 86400, TEN), None)
    found = wanted(old)
    assert (found.networks, found.missing) == ({"x": ()}, ("x",))
    assert "8 d old and has expired" in said(found)
    assert wanted(old, expiry="never").networks == {"x": TEN}


def test_without_a_copy_there_is_no_entry_so_that_live_sets_stay() -> None:
    found = wanted(KnownList())
    assert (found.networks, found.missing) == ({}, ("x",))
    assert "no copy yet" in said(found)


def test_a_user_who_may_not_read_the_copy_is_told_so() -> None:
    found = wanted(KnownList(unreadable=True))
    assert found.networks == {}
    assert "only root may read the copy, so the set is empty here" in said(found)


def test_an_accepted_empty_list_is_nothing_to_warn_of() -> None:
    found = wanted(KnownList(Copy(NOW, ()), Tries(NOW, NOW, None)))
    assert (found.networks, found.missing, found.remarks) == ({"x": ()}, (), ())


def test_friends_are_cut_out_and_named() -> None:
    policy = {
        "admin": {"networks": ["203.0.113.32/28"]},
        "trusted_peers": [
            {
                "name": "a",
                "signalling": ["203.0.113.10", "sip.a.example"],
                "media": ["198.51.100.0/28"],
            }
        ],
        "feeds": [{"name": "x", "url": URL}],
    }
    copy = Copy(NOW, nets("192.0.2.1", "192.0.2.2", "198.51.100.3", "203.0.113.0/24"))
    names = {"sip.a.example": nets("192.0.2.2")}
    found = lists_of(Policy.model_validate(policy), {"x": KnownList(copy)}, names, now=NOW)
    kept = found.networks["x"]
    for friend in nets(
        "192.0.2.1", "192.0.2.2", "198.51.100.0/28", "203.0.113.10", "203.0.113.32/28"
    ):
        assert not any(friend.overlaps(network) for network in kept)
    assert sum(network.num_addresses for network in kept) == 256 - 1 - 16
    for words in (
        "203.0.113.32/28 (an admin network)",
        "203.0.113.10/32 (trusted peer a)",
        "192.0.2.2/32 (trusted peer a)",
        "192.0.2.1/32 (this host)",
    ):
        assert words in said(found)


def test_a_peer_that_may_be_anybody_does_not_empty_every_list() -> None:
    peer = {"name": "any", "signalling": ["0.0.0.0/0"], "allow_any": True}
    assert wanted(OLD, {"trusted_peers": [peer]}).networks == {"x": TEN}


def test_who_is_logged_in_by_ssh_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        client = ip_network("203.0.113.4")[0]

    monkeypatch.setattr(spared, "ssh_sessions", lambda: (Session(),))
    found = wanted(OLD)
    assert ip_network("203.0.113.4") not in found.networks["x"]
    assert "203.0.113.4/32 (logged in by ssh)" in said(found)


def test_own_addresses_come_from_proc(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.0\n        /24 link UNICAST\n"
        "     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n"
        "        /32 link BROADCAST\nLocal:\n     |-- 192.0.2.7\n        /32 host LOCAL\n"
    )
    (tmp_path / "net" / "if_inet6").write_text(
        "20010db8000000000000000000000007 02 40 00 80     eth0\njunk\n"
    )
    assert [str(address) for address in own_addresses(tmp_path)] == ["192.0.2.7", "2001:db8::7"]
    assert own_addresses(tmp_path / "nowhere") == []


def test_copies_survive_on_disk_for_root_alone(tmp_path: Path) -> None:
    layout, policy = Layout(tmp_path), Policy.model_validate({"feeds": [{"name": "x", "url": URL}]})
    copy = Copy(
        NOW, (*TEN, *nets("2001:db8::/48")), (LeftOut("no address", 3, 7),), Seen('"1"', "d")
    )
    keep(layout, policy, {"x": KnownList(copy, Tries(NOW, NOW, None))})
    assert read_all(layout, policy) == {"x": KnownList(copy, Tries(NOW, NOW, None))}
    folder = tmp_path / "var/lib/sipfw/feeds"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    # A failure is noted beside the copy, and the copy is not written again.
    (folder / "x.json").chmod(0o400)
    keep(layout, policy, {"x": KnownList(copy, Tries(NOW + 5, NOW, "answered 500"))})
    assert (folder / "x.json").stat().st_mode & 0o777 == 0o400
    assert read_known(layout, policy.feeds[0]).tries == Tries(NOW + 5, NOW, "answered 500")
    forget_all(layout)
    assert not folder.exists()


def test_the_copies_of_other_policies_are_forgotten(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_copy(layout, feed(name="gone"), Copy(NOW, TEN))
    write_tries(layout, feed(name="gone"), Tries(NOW))
    keep(layout, Policy.model_validate({"feeds": [{"name": "x", "url": URL}]}), {})
    assert list((tmp_path / "var/lib/sipfw/feeds").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"url": "http://127.0.0.1:1/other"}, {"format": "csv"}, {"max_entries": 9}, {"name": "y"}],
)
def test_a_copy_of_another_source_is_no_copy(change: dict[str, Any]) -> None:
    text = copy_text(feed(), Copy(NOW, TEN))
    assert read_copy(text, feed()) == Copy(NOW, TEN)
    assert read_copy(text, feed(refresh="1h", expiry="2d")) == Copy(NOW, TEN)
    assert read_copy(text, feed(**change)) is None


def test_a_key_of_a_later_version_leaves_the_copy_what_it_is() -> None:
    class LaterFeed(Feed):
        added_later: int = 0

    later = LaterFeed(name="x", url=URL)
    assert read_copy(copy_text(feed(), Copy(NOW, TEN)), later) == Copy(NOW, TEN)
    assert identity(feed(url="https://lists.example/x")) == (
        "a721bf160e2bd10f961672fb945b723c6f13ab0bf0088ccdebb8103cad4b4319"
    )


def test_a_copy_that_somebody_has_changed_is_no_copy(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_copy(layout, feed(), Copy(NOW, TEN))
    path = tmp_path / "var/lib/sipfw/feeds/x.json"
    good = path.read_text()
    data = json.loads(good)
    wrong = [
        {**data, "networks": "0.0.0.0/0"},
        {**data, "identity": identity(feed(name="y"))},
        {**data, "time": "now"},
        {**data, "seen": {"etag": "a\r\nX: y", "modified": None}},
        {**data, "format": 2},
    ]
    for text in ("", "{", "[" * 100_000, "null", *map(json.dumps, wrong)):
        path.write_text(text)
        assert read_known(layout, feed()) == KnownList()
    path.write_text(good)
    path.chmod(0o622)
    assert read_known(layout, feed()) == KnownList()
    path.unlink()
    os.mkfifo(path)
    assert read_known(layout, feed()) == KnownList()


def test_a_firewall_that_comes_back_does_not_wait_for_very_long_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    policy = Policy.model_validate({"feeds": [{"name": "x", "url": URL}]})
    folder = layout.generations / "1"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "policy.json").write_text(policy.model_dump_json(by_alias=True))
    keep(layout, policy, {"x": KnownList(Copy(NOW, TEN), Tries(NOW, NOW, None))})
    origin = Origin("feeds.x", "policy.yaml")
    empty = Ruleset((), (AddressSet("feed-x", SetKind.NETWORK, "x", origin),), ())
    assert feed_fill.filled(empty, layout, 1).set("feed-x").networks == TEN
    assert feed_fill.filled(empty, layout, 2) == empty
    monkeypatch.setattr(feed_fill, "_AT_ONCE", 100)
    assert feed_fill.filled(empty, layout, 1) == empty


def test_spare_leaves_other_lists_as_they_are() -> None:
    kept, met = spared.cut_exempt(TEN, [_friend("198.51.100.0/24"), _friend("2001:db8::/32")])
    assert (kept, met) == (TEN, [])


def _friend(network: str) -> Exempt:
    return spared.Exempt(ip_network(network), "a friend")
