"""Whoever tampers with a live ruleset is found out by name, and whoever does no harm is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tampering_harmless as harmless
from shared_host import BACKENDS
from tampered_host import assert_named, tampered_host
from tampering_cases import SHARED, Named
from tampering_iptables import IPTABLES
from tampering_nftables import NFTABLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tampered_host import TamperedHost
    from tampering_cases import Tampering
    from tampering_harmless import Change

pytestmark = pytest.mark.netns

everywhere = pytest.mark.parametrize("guarded", BACKENDS, indirect=True)
with_iptables = pytest.mark.parametrize("guarded", BACKENDS[:2], indirect=True)
with_nftables = pytest.mark.parametrize("guarded", BACKENDS[2:], indirect=True)


@pytest.fixture(scope="module")
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TamperedHost]:
    with tampered_host(request.param, tmp_path_factory.mktemp("tampered")) as host:
        yield host
        host.undo()


@pytest.fixture
def host(guarded: TamperedHost) -> Iterator[TamperedHost]:
    yield guarded
    # Every test compares all that differs: what this left behind, the next one would name.
    guarded.hand.undo()


def by_name(function: Tampering | Change) -> str:
    return function.__name__


@everywhere
@pytest.mark.parametrize("tampering", SHARED, ids=by_name)
def test_a_tampering_is_named(host: TamperedHost, tampering: Tampering) -> None:
    expected = tampering(host.hand)
    assert_named(host.drift(), expected)


@with_iptables
@pytest.mark.parametrize("tampering", IPTABLES, ids=by_name)
def test_a_tampering_with_iptables_is_named(host: TamperedHost, tampering: Tampering) -> None:
    expected = tampering(host.hand)
    assert_named(host.drift(), expected)


@with_nftables
@pytest.mark.parametrize("tampering", NFTABLES, ids=by_name)
def test_a_tampering_with_nftables_is_named(host: TamperedHost, tampering: Tampering) -> None:
    expected = tampering(host.hand)
    assert_named(host.drift(), expected)


@everywhere
@pytest.mark.parametrize("change", harmless.EVERYWHERE, ids=by_name)
def test_what_is_harmless_is_not_named(host: TamperedHost, change: Change) -> None:
    change(host.hand)
    assert host.drift() == ()


@with_iptables
@pytest.mark.parametrize("change", harmless.IPTABLES, ids=by_name)
def test_what_is_harmless_with_iptables_is_not_named(host: TamperedHost, change: Change) -> None:
    change(host.hand)
    assert host.drift() == ()


@with_nftables
@pytest.mark.parametrize("change", harmless.NFTABLES, ids=by_name)
def test_what_is_harmless_with_nftables_is_not_named(host: TamperedHost, change: Change) -> None:
    change(host.hand)
    assert host.drift() == ()


@everywhere
def test_the_command_says_so_with_its_exit_code(host: TamperedHost) -> None:
    assert host.shared.sipfw("verify").returncode == 0
    host.hand.delete(host.hand.spot("rate.hashlimit"))
    done = host.shared.sipfw("verify")
    assert done.returncode == 1
    where = f"{host.hand.place('SIP_RATE_LIMIT')} rate.hashlimit"
    (line,) = [
        line for line in done.stdout.splitlines() if line.strip().startswith(f"rule {where}")
    ]
    assert f"rule {where}: missing" in line
    assert "limits.hashlimit" in line


@everywhere
def test_a_kernel_setting_is_named(host: TamperedHost) -> None:
    setting = "net.netfilter.nf_conntrack_udp_timeout_stream"
    before = host.shared.run("sysctl", "-n", setting).strip()
    host.shared.run("sysctl", "-w", f"{setting}=99")
    done = host.shared.sipfw("verify")
    host.shared.run("sysctl", "-w", f"{setting}={before}")
    assert done.returncode != 0
    assert f"{setting} is 99, the policy says {before}" in done.stdout


def test_two_firewalls_at_once_are_named(tmp_path: Path) -> None:
    """Rules of sipfw in both packet filters: every packet has to pass both."""
    with tampered_host("iptables-legacy", tmp_path) as host:
        text = host.shared.run("iptables-legacy-save")
        host.shared.run("nft", "-f", "-", text="table inet sipfw { chain c { accept; }; }\n")
        done = host.shared.sipfw("verify")
        assert done.returncode != 0
        assert "rules of sipfw are live in iptables and nftables" in done.stdout
        assert host.shared.run("iptables-legacy-save").count("-A") == text.count("-A")


OPEN = {"conntrack": {"max": None}}


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize("way", ["-j ACCEPT", "-p tcp -m tcp --dport 5000:5100 -j ACCEPT"])
def test_a_way_past_the_counting_of_connections(way: str, backend: str, tmp_path: Path) -> None:
    """Without a host part of ours that is all that table filter does."""
    with tampered_host(backend, tmp_path, OPEN) as host:
        host.hand.insert(host.hand.spot("hook.filter.input"), way)
        (found,) = host.drift()
        assert found.kind == "moved"
        assert found.detail == f"a rule before it lets packets pass: -A INPUT {way}"


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_a_host_that_is_no_longer_shut(backend: str, tmp_path: Path) -> None:
    """Without a host part of ours the policy of INPUT is what keeps the rest of the host shut."""
    flavour = backend.removeprefix("iptables-")
    shut = f"iptables-{flavour} -P INPUT DROP"
    with tampered_host(backend, tmp_path, OPEN, shut) as host:
        assert host.drift() == ()
        # There is nothing of ours that this could get past: SIP is judged in table raw.
        host.hand.insert(host.hand.spot("hook.filter.input"), "-p tcp --dport 22 -j ACCEPT")
        host.hand.insert(host.hand.spot("hook.filter.input"), "-p udp -j ACCEPT")
        assert host.drift() == ()
        host.shared.tool("iptables", "-P", "INPUT", "ACCEPT")
        detail = "policy ACCEPT, which was DROP at the apply"
        assert_named(host.drift(), [Named("changed", "chain", "IPv4 filter INPUT", detail=detail)])
        host.shared.tool("iptables", "-P", "INPUT", "DROP")
        assert host.drift() == ()
