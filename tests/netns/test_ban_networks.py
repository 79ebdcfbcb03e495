"""Bans and trust of networks, of peers by name, and of repeat offenders, in a real kernel."""

from __future__ import annotations

import json

import pytest
from test_bans import ATTACKER, Guarded, arrives, guarded, legacy, shared_lab

__all__ = ["guarded", "legacy", "shared_lab"]

pytestmark = pytest.mark.netns

GROWING = ("--set", "bans.growth=2", "--set", "bans.duration=1h")


def test_a_network_is_banned_and_freed(guarded: Guarded) -> None:
    sink = guarded.lab.switch.udp_sink(5060)
    said = guarded.must("ban", "198.51.100.64/28", "--for", "1h").stderr
    assert "banned: 198.51.100.64/28 for 1 h, until " in said
    assert not arrives(guarded.lab, sink, source=ATTACKER)
    assert not arrives(guarded.lab, sink, source="198.51.100.67")
    assert len(guarded.listed()) == 16
    guarded.must("verify")
    said = guarded.must("unban", "198.51.100.64/28", "203.0.113.0/28").stderr
    assert said.count("free again: ") == 16
    assert "not banned: 203.0.113.0/28" in said
    assert arrives(guarded.lab, sink, source=ATTACKER)
    assert not guarded.book.exists()


def test_the_same_guards_hold_for_a_network(legacy: Guarded) -> None:
    for network, whose in (
        ("192.0.2.0/24", "192.0.2.0 belongs to an admin network; 192.0.2.0/24 cannot be banned"),
        ("198.51.100.0/28", "198.51.100.1 is this host's own; 198.51.100.0/28 cannot be banned"),
        ("2001:db8::/32", "more than 4,096 at once belong into a block list"),
        ("2001:db8:77::/96", "is not one source: here that is a /64"),
    ):
        said = legacy.must("ban", network, code=4).stderr
        assert whose in said
        assert said.count("\n") == 2
    session = {"SSH_CONNECTION": "198.51.100.67 50022 198.51.100.1 22"}
    said = legacy.must("ban", "198.51.100.64/28", code=4, env=session).stderr
    assert "198.51.100.67 is logged in by ssh" in said
    assert not legacy.book.exists()
    assert len(list((legacy.root / "var/lib/sipfw/generations").iterdir())) == 1


def test_ipset_refuses_thirty_days_before_any_generation(legacy: Guarded) -> None:
    for words in (("ban", ATTACKER), ("trust", "198.51.100.67")):
        said = legacy.must(*words, "--for", "30d", code=4).stderr
        assert "its longest timeout is 2147483 s" in said
    assert not legacy.book.exists()
    assert len(list((legacy.root / "var/lib/sipfw/generations").iterdir())) == 1
    legacy.must("ban", ATTACKER, "--for", "24d")


def test_a_repeat_offender_is_banned_for_longer(legacy: Guarded) -> None:
    legacy.apply(*GROWING)
    for length in ("1 h", "2 h", "4 h"):
        assert f"banned: {ATTACKER} for {length}, " in legacy.must("ban", ATTACKER).stderr
    assert f"banned: {ATTACKER} for 5 min, " in legacy.must("ban", ATTACKER, "--for", "5m").stderr
    legacy.must("unban", ATTACKER)
    assert f"banned: {ATTACKER} for 1 h, " in legacy.must("ban", ATTACKER).stderr


def test_a_network_is_trusted_for_a_time(guarded: Guarded) -> None:
    said = guarded.must("trust", "198.51.100.64/30", "--for", "1h").stderr
    assert said.count("trusted: ") == 4
    assert guarded.holds("guests", ATTACKER)
    found = json.loads(guarded.must("trust", "--list", "--json").stdout)["trusts"]
    assert len(found) == 4
    guarded.must("trust", "--end", "198.51.100.64/30")
    assert not guarded.holds("guests", ATTACKER)


def test_a_peer_is_trusted_by_its_name(legacy: Guarded) -> None:
    legacy.apply(
        "--set",
        "trusted_peers=[{name: some, signalling: [198.51.100.67], source_ports: [5070]}, "
        "{name: wholly, signalling: [198.51.100.68]}]",
    )
    assert "trusted: 198.51.100.67 for 1 h" in legacy.must("trust", "some", "--for", "1h").stderr
    assert legacy.holds("guests", "198.51.100.67")
    assert (
        "there is nothing to trust" in legacy.must("trust", "wholly", "--for", "1h", code=4).stderr
    )
    said = legacy.must("trust", "som", "--for", "1h", code=4).stderr
    assert "'som' is no trusted peer of the firewall in force; did you mean some?" in said
