"""Who was banned is told while he goes on, and after his ban, on every backend."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from guarded_switch import BACKENDS, guarded
from test_top import INVITE, OPTIONS, Switch, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

POLICY = {
    "trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10"]}],
    "limits": {"recent": None, "per_source": {"rate": "5/second", "burst": 5}},
    "bans": {"duration": "30s"},
}
SCANNER = "198.51.100.66"


class Remembering(Switch):
    def events(self, *options: str) -> list[dict[str, Any]]:
        done = self.host.sipfw("events", "--json", *options)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["events"]
        return found


@pytest.fixture(scope="module", params=(*BACKENDS, "iptables-nft"))
def switch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Remembering]:
    with guarded(Remembering, request, tmp_path_factory, POLICY) as made:
        yield made


def test_a_scanner_that_is_banned_while_it_sends(switch: Remembering) -> None:
    """Its packets die by the ban set: they are counted as they arrive, and the ban is kept."""
    with switch.sending("attacker", INVITE, 0.01):
        first = switch.rows("--seconds", "1")[SCANNER, "banned"]
        row = switch.rows("--seconds", "1")[SCANNER, "banned"]
    assert min(first["packets"], row["packets"]) >= 10
    assert row["packets_per_second"] >= 10
    assert moment(row["first"]) <= moment(row["last"])
    assert 0 < row["left_seconds"] <= 30
    # What expires is gone from the set, too.
    switch.host.kernel.remove("banned", SCANNER)
    (event,) = switch.events(SCANNER)
    assert (event["kind"], event["rule"], event["known"]) == ("ban", "banned", False)
    assert event["reason"] != ""
    assert event["packets"] >= first["packets"] + row["packets"]
    assert moment(event["first"]) < moment(event["last"]) < moment(event["until"])
    assert "last event: ban" in switch.host.sipfw("why", SCANNER).stdout


def test_a_ban_by_hand_has_who_and_until_when(switch: Remembering) -> None:
    switch.host.sipfw("ban", "198.51.100.67", "--for", "2h", "--reason", "toll fraud")
    switch.host.sipfw("unban", "198.51.100.67")
    (event,) = switch.events("198.51.100.67")
    assert (event["kind"], event["layer"], event["rule"]) == ("ban by hand", "manual", "blocked")
    assert event["reason"] == "toll fraud"
    assert event["who"] == event["freed_by"] != ""
    assert moment(event["until"]) - moment(event["first"]) < 60
    assert "toll fraud" in switch.host.sipfw("events", "198.51.100.0/24").stdout


def test_the_timer_sees_a_ban_that_is_over_before_anybody_asks(switch: Remembering) -> None:
    switch.host.kernel.add("banned", "198.51.100.68")
    switch.host.sipfw("keep")
    switch.host.kernel.remove("banned", "198.51.100.68")
    (event,) = switch.events("198.51.100.68")
    assert (event["kind"], event["freed_by"]) == ("ban", "")


def test_a_damaged_file_harms_nothing(switch: Remembering) -> None:
    path = switch.host.root / "var/lib/sipfw/events.sqlite"
    path.write_bytes(b"\xff" * 9000)
    with switch.sending("attacker", OPTIONS):
        done = switch.host.sipfw("top", "--seconds", "1")
    assert done.returncode == 0
    assert SCANNER in done.stdout
    assert "was damaged" in done.stderr
    assert "Traceback" not in done.stderr
    (event,) = switch.events(SCANNER)
    assert event["rule"] == "scanner.options-udp"
