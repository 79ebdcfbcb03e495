"""`sipfw metrics` on a host with packets: into a file, over HTTP, and through a whole apply."""

from __future__ import annotations

import re
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus
from shared_host import SharedHost

from lab import Lab, sip, unavailable_reason

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

pytestmark = pytest.mark.netns

DOCUMENT = Path(__file__).parents[2] / "docs" / "monitoring.md"
BACKENDS = ("iptables-legacy", "nftables")
POLICY: Mapping[str, Any] = {
    "trusted_peers": [
        {"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"], "tier": "small"}
    ],
    # Only the first network namespace can set the size of the table.
    "conntrack": {"max": None},
}
# What is the same whatever the rules are in.
one_backend = pytest.mark.parametrize("host", ["nftables"], indirect=True)
URL = "http://127.0.0.1:8961/metrics"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
BANNED = "198.51.100.77"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := unavailable_reason():
        pytest.skip(reason)
    with Lab() as built:
        yield built


@pytest.fixture(params=BACKENDS)
def host(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[SharedHost]:
    made = SharedHost(lab.switch, request.param, tmp_path)
    yield made
    lab.switch.reset()
    made.must("remove")


def samples(text: str, read: Callable[[str], Any] = read_prometheus) -> Samples:
    return {
        (item.name, frozenset(item.labels.items())): item.value
        for metric in read(text)
        for item in metric.samples
    }


def total(found: Samples, name: str, **labels: str) -> float:
    """Sum the series of that name which have these labels; there must be one."""
    values = [n for (other, has), n in found.items() if other == name and has >= labels.items()]
    assert values, f"{name} {labels}"
    return sum(values)


def curl(host: SharedHost, *more: str, url: str = URL) -> str:
    return host.run("curl", "-sS", "--max-time", "10", "--noproxy", "*", *more, url)


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


@contextmanager
def exporter(host: SharedHost, *words: str, url: str = URL) -> Iterator[subprocess.Popen[str]]:
    log = host.folder / "exporter.log"
    command = [sys.executable, "-m", "sipfw", "metrics", "--root", str(host.root)]
    program = host.node.popen([*command, "--listen", *words], env=host.env, output=log)
    wait_for(lambda: f"listening on {url}\n" in log.read_text() or program.poll() is not None)
    assert program.poll() is None, log.read_text()
    yield program
    program.send_signal(signal.SIGTERM)
    assert program.wait(10) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def documented() -> set[str]:
    return set(re.findall(r"^\| `(sipfw_\w+)`", DOCUMENT.read_text(), re.MULTILINE))


def test_the_exporter_shows_what_packets_met(host: SharedHost, lab: Lab) -> None:
    host.apply(POLICY)
    drops = {"rule": "scanner.options-udp", "action": "drop", "layer": "scanner-block"}
    with exporter(host):
        before = samples(curl(host, "-H", f"Accept: {OPENMETRICS}"), read_openmetrics)
        assert {name for name, _ in before} == documented()
        assert total(before, "sipfw_up") == 1
        assert total(before, "sipfw_health_state") == 0
        assert total(before, "sipfw_rule_packets_total", **drops) == 0
        attacker = lab.attacker
        for family in ("ip", "ip6"):
            switch = lab.switch.address_for(attacker, family)
            message = sip.request("OPTIONS", source=attacker.address(family), destination=switch)
            attacker.send_udp(switch, 5060, [message] * (3 if family == "ip" else 4))
        time.sleep(2.2)
        after = samples(curl(host))
        assert total(after, "sipfw_rule_packets_total", family="ipv4", **drops) == 3
        assert total(after, "sipfw_rule_packets_total", family="ipv6", **drops) == 4
        assert total(after, "sipfw_layer_dropped_packets_total", layer="scanner-block") == 7
        assert total(after, "sipfw_rule_bytes_total", **drops) > 7 * 200
    # Two looks within a minute are one reading.
    assert len(list((host.root / "var/lib/sipfw/readings").iterdir())) == 1


def test_drift_and_bans_show_in_the_file(host: SharedHost) -> None:
    host.apply(POLICY)
    path = host.folder / "sipfw.prom"
    if host.backend == "nftables":
        element = f"{{ {BANNED} timeout 60s }}"
        host.run("nft", "add", "element", "inet", "sipfw", "banned4", element)
    else:
        host.run("ipset", "add", "sipfw-banned4", BANNED, "timeout", "60")

    def written() -> Samples:
        host.must("metrics", "--textfile", str(path))
        assert path.stat().st_mode & 0o777 == 0o644
        return samples(path.read_text())

    found = written()
    assert {name for name, _ in found} == documented()
    assert total(found, "sipfw_drift") == 0
    assert total(found, "sipfw_set_entries", set="banned4", kind="dynamic") == 1
    assert total(found, "sipfw_set_size", set="banned4", kind="dynamic") > 1000
    assert total(found, "sipfw_generation") == 1
    assert 0 <= time.time() - total(found, "sipfw_last_apply_timestamp_seconds") < 60
    if host.backend == "nftables":
        host.run("nft", "flush", "chain", "inet", "sipfw", "SIP_BANNED4")
    else:
        host.run("iptables-legacy", "-t", "raw", "-F", "SIP_BANNED")
    found = written()
    assert total(found, "sipfw_drift") > 0
    assert total(found, "sipfw_health_state") == 1


@one_backend
def test_an_apply_that_waits_shows_until_it_is_confirmed(host: SharedHost) -> None:
    def now() -> Samples:
        done = host.sipfw("metrics")
        assert (done.returncode, done.stderr) == (0, "")
        return samples(done.stdout, read_openmetrics)

    host.apply(POLICY, "--confirm", "120")
    found = now()
    assert total(found, "sipfw_change_unfinished") == 1
    assert 60 < total(found, "sipfw_confirm_pending_seconds") <= 120
    host.must("confirm")
    found = now()
    assert total(found, "sipfw_change_unfinished") == 0
    assert total(found, "sipfw_confirm_pending_seconds") == 0


@one_backend
def test_the_exporter_outlives_a_host_without_a_firewall(host: SharedHost) -> None:
    with exporter(host):
        assert total(samples(curl(host)), "sipfw_up") == 0
        assert total(samples(curl(host)), "sipfw_health_state") == 2
        host.apply(POLICY)
        wait_for(lambda: total(samples(curl(host)), "sipfw_up") == 1)
        host.must("remove")
        wait_for(lambda: total(samples(curl(host)), "sipfw_up") == 0)
        log = (host.folder / "exporter.log").read_text()
        # Said when it begins, not at every scrape.
        assert log.count("no firewall of sipfw is in force; make one live: sipfw apply\n") == 2


@one_backend
def test_slow_clients_do_not_keep_prometheus_waiting(host: SharedHost) -> None:
    host.apply(POLICY)
    with exporter(host):
        slow = [host.node.tcp_connect("127.0.0.1", 8961, timeout=5) for _ in range(40)]
        for client in slow:
            client.send(b"GET /metrics HTTP/1.1\r\nX: ")
        started = time.monotonic()
        assert total(samples(curl(host)), "sipfw_up") == 1
        assert time.monotonic() - started < 5
        # It ends although they are still there.


@one_backend
def test_loopback_unless_told_otherwise(host: SharedHost, lab: Lab) -> None:
    attacker = lab.attacker
    address = lab.switch.address_for(attacker)
    with exporter(host), pytest.raises(ConnectionRefusedError):
        attacker.tcp_connect(address, 8961)
    taken = f"http://{address}:9000/metrics"
    with exporter(host, f"{address}:9000", url=taken):
        assert "WARNING: everybody who reaches" in (host.folder / "exporter.log").read_text()
        assert attacker.run(["curl", "-sS", "--max-time", "10", taken]).stdout
        done = host.sipfw("metrics", "--listen", f"{address}:9000")
        assert done.returncode == 4
        assert "address already in use" in done.stderr
        assert "Traceback" not in done.stderr


@one_backend
def test_control_c_ends_it_cleanly(host: SharedHost) -> None:
    with exporter(host) as program:
        program.send_signal(signal.SIGINT)
        assert program.wait(10) == 0
