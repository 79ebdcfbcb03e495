from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from sipfw.deploy.names.answers import Answer, Listed, Standards
from sipfw.deploy.names.grace import KnownName, NameAddress, followed, is_due, still
from sipfw.policy.names import Names

HOUR = 3600.0
ONE, TWO, SIX = (ip_network(text) for text in ("198.51.100.1", "198.51.100.2", "2001:db8::6"))
BOUNDS = Standards(Names(grace="1h"))


def _answer(*networks: object, ttl: int = 0, incomplete: str | None = None) -> Answer:
    listed = tuple(Listed(ip_network(str(network)), "A") for network in networks)
    return Answer(listed, ttl, (), incomplete)


def _follow(known: KnownName | None, answer: Answer, now: float) -> KnownName:
    return followed(known, answer, now, BOUNDS)[0]


def test_answers_that_rotate_keep_all_their_addresses() -> None:
    known = None
    for turn in range(50):
        known = _follow(known, _answer(ONE if turn % 2 else TWO), turn * 600.0)
        if turn:
            assert known.addresses == (ONE, TWO)


def test_an_address_goes_when_it_has_been_missing_for_the_grace() -> None:
    known = _follow(None, _answer(ONE, SIX), 0.0)
    known, said = followed(known, _answer(TWO), 5000.0, BOUNDS)
    assert known.addresses == (ONE, TWO, SIX)
    assert said == ("listed no more: 198.51.100.1, 2001:db8::6; trusted for another 1 h",)
    known, said = followed(known, _answer(TWO), 5000.0 + HOUR - 1, BOUNDS)
    assert (known.addresses, said) == ((ONE, TWO, SIX), ())
    assert _follow(known, _answer(TWO), 5000.0 + HOUR).addresses == (TWO,)
    # Also when nobody answers in the meantime, or it is not time to ask.
    assert still(known, 5000.0 + HOUR - 1, BOUNDS).addresses == (ONE, TWO, SIX)
    assert still(known, 5000.0 + HOUR, BOUNDS).addresses == (TWO,)


def test_what_comes_back_in_time_is_as_if_it_had_never_been_gone() -> None:
    known = _follow(_follow(None, _answer(ONE), 0.0), _answer(TWO), 100.0)
    known = _follow(known, _answer(ONE, TWO), 200.0)
    assert [member.missing for member in known.members] == [None, None]


def test_days_without_dns_are_no_absence() -> None:
    known = _follow(None, _answer(ONE), 0.0)
    assert still(known, 90 * HOUR, BOUNDS).addresses == (ONE,)
    assert _follow(known, _answer(TWO), 90 * HOUR).addresses == (ONE, TWO)


def test_behind_an_incomplete_answer_nothing_has_gone() -> None:
    known = _follow(None, _answer(ONE), 0.0)
    for moment in (HOUR, 9 * HOUR):
        known, said = followed(known, _answer(TWO, incomplete="SRV of x: refused"), moment, BOUNDS)
        assert known.addresses == (ONE, TWO)
        assert said == (
            "a part of the answer is missing (SRV of x: refused); nothing is taken out",
        )


def test_rotation_without_end_is_capped_and_what_is_listed_wins() -> None:
    bounds = Standards(Names(grace="7d", max_addresses=8))
    known = None
    for turn in range(40):
        known, _ = followed(known, _answer(f"198.51.100.{turn}"), turn * 60.0, bounds)
        assert len(known.addresses) <= 8
    assert known is not None
    assert {str(n.network_address) for n in known.addresses} == {
        f"198.51.100.{turn}" for turn in range(32, 40)
    }
    known, _ = followed(known, _answer(*(f"203.0.113.{n}" for n in range(8))), 9999.0, bounds)
    assert all(str(network).startswith("203.0.113.") for network in known.addresses)


def test_no_grace_means_none() -> None:
    bounds = Standards(Names(grace="0s"))
    known, said = followed(KnownName((NameAddress(ONE),), 0.0), _answer(TWO), 1.0, bounds)
    assert (known.addresses, said) == ((TWO,), ())


def test_what_root_takes_out_of_the_hosts_file_is_gone_at_once() -> None:
    local = replace(_answer(TWO), local=True)
    assert _follow(KnownName((NameAddress(ONE),), 0.0), local, 1.0).addresses == (TWO,)


def test_an_administrator_who_is_logged_in_is_not_shut_out() -> None:
    bounds = Standards(Names(grace="0s"), logged_in=frozenset({ip_address("198.51.100.1")}))
    known = KnownName((NameAddress(ONE), NameAddress(SIX)), 0.0)
    held, _ = followed(known, _answer(TWO), 10 * HOUR, bounds, admin=True)
    assert held.addresses == (ONE, TWO)
    assert followed(known, _answer(TWO), 10 * HOUR, bounds)[0].addresses == (TWO,)
    assert still(held, 99 * HOUR, bounds, admin=True).addresses == (ONE, TWO)


def test_a_ttl_is_obeyed_within_the_bounds() -> None:
    bounds = Standards(Names(min_ttl="10m", max_ttl="2h"))
    due = {
        ttl: followed(None, _answer(ONE, ttl=ttl), 0.0, bounds)[0].due
        for ttl in (0, 599, 700, 7200, 2**31 - 1)
    }
    assert due == {0: 600, 599: 600, 700: 700, 7200: 7200, 2**31 - 1: 7200}


def test_when_a_name_is_asked_again() -> None:
    known = KnownName((NameAddress(ONE),), 1000.0, 1300.0)
    assert [is_due(known, now, 3600) for now in (1000.0, 1299.0, 1300.0)] == [False, False, True]
    # A clock that was in the future once must not keep a name from being asked for years.
    assert is_due(KnownName((NameAddress(ONE),), 9e9, 9e9 + 300), 1000.0, 3600)
    assert is_due(None, 0.0, 3600)
    assert is_due(KnownName((), 1000.0, 1300.0), 1000.0, 3600)


def test_a_clock_that_goes_back_keeps_nobody_for_ever() -> None:
    known = _follow(_follow(None, _answer(ONE), 9e8), _answer(TWO), 9e8 + 1)
    known = _follow(known, _answer(TWO), 100.0)
    assert known.addresses == (ONE, TWO)
    assert _follow(known, _answer(TWO), 100.0 + HOUR).addresses == (TWO,)
