"""`sipfw verify` at a switch under attack: layers, rates, earlier readings, health, the screen."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from guarded_switch import BACKENDS, SCAN, GuardedSwitch, guarded

from lab.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "verify.schema.json").read_text())
POLICY = {
    "trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}],
    "bans": {"size": 10},
    "conntrack": {"udp_timeout": 25},
}
PASSING = re.compile(r"\[\d+:\d+\]|packets \d+ bytes \d+|(timeout|expires) \w+")
# The cursor is back, and the screen from before (xterm's control sequences).
LEFT = b"\x1b[?25h\x1b[?1049l"
UDP_TIMEOUT = "net.netfilter.nf_conntrack_udp_timeout"


class Switch(GuardedSwitch):
    def verify(self, *options: str, code: int = 0) -> str:
        done = self.host.sipfw("verify", *options)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def data(self, *options: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.verify("--json", *options, code=code))
        jsonschema.validate(found, SCHEMA)
        return found

    def dropped(self, layer: str, *options: str) -> int:
        layers = {item["layer"]: item for item in self.data(*options)["layers"]}
        packets: int = layers[layer]["dropped"]["packets"]
        return packets

    def terminal(self, *options: str, columns: int = 120, lines: int = 40, **more: str) -> Terminal:
        command = [sys.executable, "-m", "sipfw", "verify", "--root", str(self.host.root), *options]
        inside = ["ip", "netns", "exec", self.lab.switch.namespace, *command]
        return Terminal(inside, columns=columns, lines=lines, env={**self.host.env, **more})


@pytest.fixture(scope="module", params=BACKENDS)
def switch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Switch]:
    with guarded(Switch, request, tmp_path_factory, POLICY) as made:
        yield made


def test_layers_say_who_dropped_and_who_let_through(switch: Switch) -> None:
    before = switch.dropped("scanner-block")
    switch.send("attacker", 7)
    switch.send("carrier", 3)
    layers = {item["layer"]: item for item in switch.data()["layers"]}
    assert layers["scanner-block"]["dropped"]["packets"] == before + 7
    assert layers["scanner-block"]["dropped"]["bytes"] > 7 * len(SCAN)
    assert layers["trusted"]["passed"]["packets"] >= 3
    text = switch.verify("--hits")
    (line,) = [line for line in text.splitlines() if line.startswith("scanner-block ")]
    assert str(before + 7) in line


def test_since_counts_only_what_came_later(switch: Switch) -> None:
    switch.send("attacker", 5)
    switch.forget()
    switch.verify()
    switch.send("attacker", 4)
    assert switch.dropped("scanner-block", "--since", "last") == 4
    found = switch.data("--since", "1d")
    assert found["since"] is not None
    rules = {rule["id"]: rule["counts"]["ip"] for rule in found["rules"]}
    assert rules["scanner.options-udp"]["packets"] == 4


def test_counters_that_were_set_back_are_recognised(switch: Switch) -> None:
    switch.send("attacker", 9)
    switch.forget()
    switch.verify()
    if switch.host.backend == "nftables":
        # nft 1.0.6 cannot reset the counters of rules.
        switch.host.run("nft", "delete", "table", "inet", "sipfw")
        switch.host.apply(POLICY)
    else:
        switch.host.run("iptables-legacy", "-t", "raw", "-Z")
    switch.send("attacker", 2)
    found = switch.data("--since", "last")
    assert found["counters_reset"] >= 1
    (layer,) = [item for item in found["layers"] if item["layer"] == "scanner-block"]
    assert layer["dropped"]["packets"] == 2
    # The last look is kept by now, if it came 5 seconds after the one before.
    moment = datetime.fromtimestamp(found["since"] + 0.001, UTC).isoformat()
    assert "set back" in switch.verify("--since", moment)


def test_rates_are_per_second(switch: Switch) -> None:
    switch.forget()
    switch.verify()
    started = time.monotonic()
    switch.send("attacker", 20)
    found = switch.data()
    longest = time.monotonic() - started + 1.5
    (layer,) = [item for item in found["layers"] if item["layer"] == "scanner-block"]
    assert 20 / longest <= layer["dropped_per_second"]


def test_a_selection(switch: Switch) -> None:
    switch.send("attacker", 2)
    found = switch.data("--layer", "scanner-block", "--family", "4", "--top", "2")
    assert {item["layer"] for item in found["layers"]} == {"scanner-block"}
    assert 1 <= len(found["rules"]) <= 2
    packets = [rule["counts"]["ip"]["packets"] for rule in found["rules"]]
    assert packets == sorted(packets, reverse=True)
    assert all(set(rule["counts"]) == {"ip"} for rule in found["rules"])


def test_one_line_for_a_monitoring_check(switch: Switch) -> None:
    text = switch.verify("--brief")
    line, figures = text.rstrip("\n").split(" | ")
    assert line == "HEALTHY: the live firewall is the applied one"
    assert "\n" not in figures
    assert "dropped=" in figures


def test_a_changed_setting_is_degraded(switch: Switch) -> None:
    switch.lab.switch.run(["sysctl", "-qw", f"{UDP_TIMEOUT}=99"])
    try:
        text = switch.verify("--brief", code=2)
        assert text.startswith(f"DEGRADED: {UDP_TIMEOUT} is 99, the policy says 25")
    finally:
        switch.lab.switch.run(["sysctl", "-qw", f"{UDP_TIMEOUT}=25"])


def test_a_set_that_is_nearly_full_is_degraded(switch: Switch) -> None:
    kernel = switch.host.kernel
    addresses = [f"198.51.100.{number}" for number in range(200, 209)]
    for address in addresses[:8]:
        kernel.add("banned", address)
    try:
        switch.verify("--brief")
        kernel.add("banned", addresses[8])
        assert "is 90 % full, 9 of 10" in switch.verify("--brief", code=2)
    finally:
        for address in addresses:
            kernel.remove("banned", address)


def test_drift_is_one_line_too(switch: Switch) -> None:
    if switch.host.backend == "nftables":
        switch.lab.switch.run(["nft", "flush", "chain", "inet", "sipfw", "SIP_SOURCES6"])
    else:
        switch.host.tool("ip6tables", "-t", "raw", "-F", "SIP_SOURCES")
    try:
        line = switch.verify("--brief", code=1)
        assert line.startswith("DRIFT: ")
        assert "SIP_SOURCES" in line
        assert len(line.splitlines()) == 1
    finally:
        switch.host.apply(POLICY)
    switch.verify()


def test_looking_changes_nothing(switch: Switch) -> None:
    switch.verify()
    before = switch.host.everything()
    switch.verify()
    switch.verify("--json", "--since", "last")
    assert _lasting(switch.host.everything()) == _lasting(before)


def _lasting(listing: str) -> list[str]:
    """Leave out the time of the listing and what neighbour discovery counts meanwhile."""
    lines = [line for line in listing.splitlines() if not line.startswith("#")]
    return [PASSING.sub("", line) for line in lines]


def whole_frame(terminal: Terminal, text: str) -> str:
    """Read until a frame of the new size stands from its title on; a look may take a second."""
    deadline = time.monotonic() + 20
    while not (terminal.text.startswith("sipfw") and text in terminal.text):
        assert time.monotonic() < deadline, f"no whole frame; the screen was:\n{terminal.text}"
        terminal.keep_reading(0.2)
    return terminal.text


def test_the_screen_follows_the_switch(switch: Switch) -> None:
    with switch.terminal("--watch", "--interval", "0.5") as terminal:
        terminal.wait_for("HEALTHY")
        for _ in range(6):
            switch.send("attacker", 30)
            terminal.keep_reading(0.3)
        shown = terminal.wait_for("scanner.options-udp")
        assert "scanner-block" in shown
        assert "█" in shown
        terminal.resize(80, 24)
        lines = whole_frame(terminal, "HEALTHY").splitlines()
        assert len(lines) <= 24
        terminal.resize(40, 24)
        assert "scanner-block" in whole_frame(terminal, "is the\napplied one")
        terminal.type("q")
        assert terminal.end() == 0
        assert terminal.current_settings() == terminal.settings
        assert terminal.written.endswith(LEFT)


def test_a_narrow_screen(switch: Switch) -> None:
    """Columns give way, the names of the layers stay; lines are broken between words."""
    with switch.terminal("--watch", columns=40, lines=24) as terminal:
        shown = whole_frame(terminal, "is the\napplied one")
        assert "scanner-block" in shown
        assert "dropped" in shown


def test_a_screen_is_as_large_as_its_terminal(switch: Switch) -> None:
    """A login of another day may have exported a size."""
    with switch.terminal("--watch", columns=90, lines=30, COLUMNS="40", LINES="9") as terminal:
        lines = whole_frame(terminal, "the live firewall is the applied one").splitlines()
        assert len(lines) > 9
        assert max(map(len, lines)) > 40


def test_ctrl_c_leaves_the_terminal_as_it_was(switch: Switch) -> None:
    with switch.terminal("--watch") as terminal:
        terminal.wait_for("HEALTHY")
        terminal.type("\x03")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.text
        assert terminal.current_settings() == terminal.settings


def test_a_screen_needs_a_terminal_that_can_draw(switch: Switch) -> None:
    with switch.terminal("--watch", TERM="dumb") as terminal:
        assert "can move its cursor" in terminal.wait_for("Error: ")
        assert terminal.end() == 2


def test_a_screen_needs_a_terminal(switch: Switch) -> None:
    done = switch.host.sipfw("verify", "--watch")
    assert done.returncode == 2
    assert "needs a terminal that can move its cursor" in done.stderr
