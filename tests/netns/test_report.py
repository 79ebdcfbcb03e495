"""`sipfw report` at a switch under attack: one file with what really happened."""

from __future__ import annotations

import re
import stat
import time
from html import unescape
from typing import TYPE_CHECKING

import pytest
from guarded_switch import BACKENDS, GuardedSwitch, guarded

from lab.browser import Browser, browser_unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

POLICY = {
    "trusted_peers": [
        {"name": "carrier-a", "signalling": ["203.0.113.10", "2001:db8:5::a"]},
        {"name": "carrier-b", "signalling": ["203.0.113.20"], "media": ["203.0.113.0/24"]},
    ],
    "conntrack": {"udp_timeout": 25},
}
HOSTILE = "</script><img src=x onerror=alert(1)>"


class Switch(GuardedSwitch):
    def report(self, *options: str) -> str:
        done = self.host.sipfw("report", "--html", "-", "--seconds", "0", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, html: str, section: str) -> dict[str, dict[str, str]]:
        """Return the table of a section: cells by the first cell's text and the column's title."""
        (part,) = re.findall(rf'<section id="{section}".*?</section>', html, re.DOTALL)
        found = {}
        for row in re.findall(r"<tr role=\"row\">(.*?)</tr>", part, re.DOTALL):
            cells = re.findall(r'data-label="([^"]*)"><div>(.*?)</div>', row, re.DOTALL)
            texts = {unescape(label): _text(cell) for label, cell in cells}
            if texts:
                found[next(iter(texts.values()))] = texts
        return found


def _text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.fixture(scope="module", params=BACKENDS)
def switch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Switch]:
    with guarded(Switch, request, tmp_path_factory, POLICY) as made:
        yield made


def test_it_tells_what_was_dropped_and_who_was_let_through(switch: Switch) -> None:
    before = switch.rows(switch.report(), "layers")["scanner-block"]["dropped"]
    switch.send("attacker", 7)
    switch.send("carrier", 5)
    html = switch.report()
    layers = switch.rows(html, "layers")
    assert int(layers["scanner-block"]["dropped"]) == int(before) + 7
    peers = switch.rows(html, "peers")
    assert int(peers["carrier-a"]["packets"]) >= 5
    assert peers["carrier-a"]["signalling"] == "203.0.113.10, 2001:db8:5::a"
    assert peers["carrier-b"]["packets"] == "0"
    rules = switch.rows(html, "rules")
    assert rules["scanner.options-udp"]["policy"] == "built-in: scanners.block_options"
    assert switch.rows(html, "generations")["1"]["state"] == "live"
    assert "HEALTHY" in html


def test_charts_come_from_kept_readings(switch: Switch) -> None:
    switch.forget()
    assert "one reading so far" in switch.report()
    (file,) = (switch.host.root / "var/lib/sipfw/readings").iterdir()
    # A reading of ten minutes ago, as if somebody had looked then.
    old = time.time() - 600
    text = re.sub(r'"taken":[\d.]+', f'"taken":{old}', file.read_text())
    file.unlink()
    file.with_name(f"{round(old * 1000):015d}.json").write_text(text)
    switch.send("attacker", 30)
    html = switch.report()
    assert html.count("<svg ") == 3
    assert "30 packets dropped." in html
    assert switch.rows(html, "layers")["scanner-block"]["lately"] == "30"
    # This look was kept: it is the second reading.
    assert len(list((switch.host.root / "var/lib/sipfw/readings").iterdir())) == 2
    assert "30 packets dropped." not in switch.report("--since", "5m")


def test_sources_are_seen_while_they_send(switch: Switch) -> None:
    switch.host.kernel.add("banned", "198.51.100.77")
    try:
        sources = switch.rows(switch.report(), "sources")
        assert sources["198.51.100.77"]["layer"] == "banned"
    finally:
        switch.host.kernel.remove("banned", "198.51.100.77")


def test_a_foreign_rule_is_drift_and_no_markup(switch: Switch) -> None:
    if switch.host.backend == "nftables":
        line = ["nft", "add", "rule", "inet", "sipfw", "SIP_TRUSTED4", "counter", "accept"]
        switch.host.run(*line, "comment", f'"{HOSTILE}"')
    else:
        words = ("-A", "SIP_TRUSTED", "-m", "comment", "--comment", HOSTILE, "-j", "ACCEPT")
        switch.host.run("iptables-legacy", "-t", "raw", *words)
    try:
        html = switch.report()
        assert "<img" not in html
        assert "<script" not in html
        assert "DRIFT" in html
        assert "extra" in switch.rows(html, "drift")
    finally:
        switch.host.apply(POLICY)


def test_the_file_is_for_root_only_and_replaced_as_a_whole(switch: Switch, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    target.chmod(0o644)
    done = switch.host.sipfw("report", "--html", str(target), "--seconds", "0.2", "--names")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{target}: written, for root only\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert target.read_text().endswith("</html>\n")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_it_is_shown_by_a_browser(switch: Switch, tmp_path: Path) -> None:
    reason = browser_unavailable_reason()
    if reason is not None:
        pytest.skip(reason)
    target = tmp_path / "report.html"
    target.write_text(switch.report())
    with Browser() as browser:
        page = browser.show(target, 360)
        assert page.complaints == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        assert browser.evaluate("document.querySelectorAll('section').length") == 11


def test_looking_changes_no_rule(switch: Switch) -> None:
    def rules() -> list[str]:
        lines = switch.host.everything().splitlines()
        found = [line.strip() for line in lines if line.startswith(("[", "\t\t", "add"))]
        return [
            re.sub(r"^\[\d+:\d+\]|packets \d+ bytes \d+|(timeout|expires) \w+", "", line)
            for line in found
        ]

    before = rules()
    switch.report()
    assert rules() == before


@pytest.mark.parametrize("target", ["/dev/null", "missing/report.html"])
def test_where_no_file_can_be_is_said_before_looking(
    switch: Switch, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = switch.host.sipfw("report", "--html", target)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert target.split("/", 1)[0] in done.stderr


def test_nothing_live_is_one_line(switch: Switch, tmp_path: Path) -> None:
    words = ["report", "--root", str(tmp_path), "--html", "-"]
    done = switch.host.sipfw(*words)
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr == "no firewall of sipfw is in force; make one live: sipfw apply\n"
