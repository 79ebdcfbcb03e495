"""`sipfw top` names who is being dropped, by which layer and why, while it happens."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from guarded_switch import BACKENDS, GuardedSwitch, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

OPTIONS = b"OPTIONS sip:100@198.51.100.1 SIP/2.0\r\nUser-Agent: friendly\r\n\r\n"
INVITE = b"INVITE sip:1@198.51.100.1 SIP/2.0\r\n\r\n"
REGISTER = b"REGISTER sip:198.51.100.1 SIP/2.0\r\nCSeq: 1 REGISTER\r\n\r\n"
POLICY = {
    "trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}],
    "limits": {"recent": None, "hashlimit": {"rate": "5/second", "burst": 5}},
}
LOGGED = {**POLICY, "logging": {"layers": ["rate-limit"], "to": "nflog", "rate": "100/second"}}


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Switch(GuardedSwitch):
    def top(self, *options: str) -> dict[str, Any]:
        done = self.host.sipfw("top", "--json", *options)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def rows(self, *options: str) -> dict[tuple[str, str], dict[str, Any]]:
        return {(item["source"], item["layer"]): item for item in self.top(*options)["sources"]}

    @contextmanager
    def sending(self, role: str, payload: bytes, gap: float = 0.02) -> Iterator[None]:
        """Send to the switch from one port until the block ends."""
        host = self.lab.hosts[role]
        target, stop = self.lab.switch.address_for(host), threading.Event()

        def work() -> None:
            while not stop.wait(gap):
                host.send_udp(target, 5060, payload, source_port=5060)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.fixture(scope="module", params=BACKENDS)
def switch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Switch]:
    with guarded(Switch, request, tmp_path_factory, POLICY) as made:
        yield made


def test_nobody_is_dropped(switch: Switch) -> None:
    with switch.sending("carrier", OPTIONS):
        assert switch.rows("--seconds", "1") == {}
    done = switch.host.sipfw("top", "--seconds", "0")
    assert done.stdout == "nobody is being dropped\n"


def test_a_scanner_that_leaves_no_trace_is_seen(switch: Switch) -> None:
    with switch.sending("attacker", OPTIONS), switch.sending("carrier", OPTIONS):
        rows = switch.rows("--seconds", "2")
    assert {key[0] for key in rows} == {"198.51.100.66"}
    row = rows["198.51.100.66", "scanner-block"]
    assert row["rule"] == "scanner.options-udp"
    assert row["packets"] >= 5
    assert row["packets_per_second"] >= 2
    assert moment(row["first"]) < moment(row["last"])


def test_a_banned_source(switch: Switch) -> None:
    switch.host.kernel.add("banned", "198.51.100.66")
    switch.host.kernel.add("banned", "2001:db8:66::")
    try:
        with switch.sending("attacker", INVITE):
            rows = switch.rows("--seconds", "2")
        row = rows["198.51.100.66", "banned"]
        assert row["rule"] == "banned.drop"
        assert row["packets"] >= 5
        assert 3500 < row["left_seconds"] <= 3600
        silent = rows["2001:db8:66::/64", "banned"]
        assert silent["packets"] == 0
        assert silent["first"] is not None
    finally:
        for address in ("198.51.100.66", "2001:db8:66::"):
            switch.host.kernel.remove("banned", address)


def test_a_source_above_its_limit(switch: Switch) -> None:
    """nftables does not show the state of a limit: the log tells."""
    switch.host.apply(LOGGED)
    try:
        with switch.sending("office", REGISTER):
            rows = switch.rows("--seconds", "2", "--layer", "rate-limit")
        row = rows["192.0.2.100", "rate-limit"]
        assert row["rule"] == "rate.hashlimit"
        assert row["packets"] >= 5
        assert {layer for _, layer in rows} == {"rate-limit"}
    finally:
        switch.host.apply(POLICY)
    if switch.host.backend == "iptables-legacy":
        # A bucket that was just refilled is not exceeded, and the look takes one moment.
        with switch.sending("office", REGISTER):
            looks = (switch.rows("--seconds", "1") for _ in range(4))
            assert any("rate-limit" in {layer for _, layer in rows} for rows in looks)


def test_a_page_for_people(switch: Switch) -> None:
    with switch.sending("attacker", OPTIONS):
        done = switch.host.sipfw("top", "--seconds", "1", "-n", "1")
    head, line, *_ = done.stdout.splitlines()
    assert head.split()[:3] == ["source", "layer", "packets"]
    assert line.startswith("198.51.100.66  scanner-block")
    assert "scanner.options-udp: " in line


def test_looking_changes_no_rule(switch: Switch) -> None:
    before = switch.host.everything()
    switch.top("--seconds", "0.2")
    strip = [line for line in before.splitlines() if line.startswith(("-A", "add", "\t\t"))]
    after = switch.host.everything().splitlines()
    assert [line.split("[")[0] for line in after if line.startswith("-A")] == [
        line.split("[")[0] for line in strip if line.startswith("-A")
    ]


def test_nothing_live_is_said(switch: Switch) -> None:
    command = ["top", "--root", str(switch.host.folder / "nothing")]
    done = switch.host.sipfw(*command)
    assert done.returncode == 4
    assert done.stderr.startswith("no firewall of sipfw is in force")
