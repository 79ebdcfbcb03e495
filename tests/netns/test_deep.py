"""`verify --deep`: what no record tells is found in the listings of two kernels."""

from __future__ import annotations

import json
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import tampering_harmless as harmless
from shared_host import BACKENDS
from tampered_host import POLICY, assert_named, tampered_host
from tampering_cases import SHARED, Named, an_edited_port
from tampering_iptables import an_accept_of_one_source_before_the_jump
from tampering_nftables import a_changed_signature

from sipfw.errors import BackendError
from sipfw.kernel.backend import Options
from sipfw.resolver.records import DnsQuestion, FoundAddress, Located
from sipfw.upkeep.refresh import refresh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tampered_host import TamperedHost
    from tampering_hands import Hand

pytestmark = pytest.mark.netns

everywhere = pytest.mark.parametrize("guarded", BACKENDS, indirect=True)
on_two = pytest.mark.parametrize("guarded", BACKENDS[::2], indirect=True)


@pytest.fixture(scope="module")
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TamperedHost]:
    with tampered_host(request.param, tmp_path_factory.mktemp("deep")) as host:
        yield host


@pytest.fixture
def host(guarded: TamperedHost) -> Iterator[TamperedHost]:
    before = guarded.layout.applied.read_text()
    yield guarded
    guarded.layout.applied.write_text(before)
    guarded.undo()


def forget_listings(host: TamperedHost) -> None:
    """Leave a record as one of an older version, or of somebody who wanted to hide a change."""
    data = json.loads(host.layout.applied.read_text())
    expectation: dict[str, Any] = data["expectation"]
    rules = [rule for chain in expectation["chains"] for rule in chain["rules"]]
    rules += [jump["rule"] for jump in expectation["jumps"]]
    for each in rules:
        del each["line"], each["search"]
    host.layout.applied.write_text(json.dumps(data))


def everything(host: TamperedHost) -> list[str]:
    """Return what the kernel holds, without the times at which it was listed."""
    return [line for line in host.shared.everything().splitlines() if not line.startswith("#")]


@everywhere
def test_a_fresh_apply_is_clean(host: TamperedHost) -> None:
    before = everything(host)
    assert host.deep_drift() == ()
    assert everything(host) == before


@on_two
def test_an_edit_that_no_record_tells(host: TamperedHost) -> None:
    forget_listings(host)
    expected = an_edited_port(host.hand)
    assert host.drift() == ()
    assert_named(host.deep_drift(), expected)


@pytest.mark.parametrize("guarded", ["nftables"], indirect=True)
def test_a_search_that_no_record_tells(host: TamperedHost) -> None:
    forget_listings(host)
    expected = a_changed_signature(host.hand)
    assert host.drift() == ()
    assert_named(host.deep_drift(), expected)


@on_two
def test_several_changes_at_once(host: TamperedHost) -> None:
    wanted = {"an_edited_address_of_a_peer", "a_deleted_rule", "a_removed_jump_of_ipv6"}
    wanted |= {"an_element_more", "a_smaller_set", "a_rule_put_last"}
    forget_listings(host)
    tamperings = [item for item in SHARED if item.__name__ in wanted]
    assert len(tamperings) == len(wanted)
    expected = [named for tampering in tamperings for named in tampering(host.hand)]
    if host.shared.backend != "nftables":
        expected += an_accept_of_one_source_before_the_jump(host.hand)
    assert_named(host.deep_drift(), expected)


def definition(hand: Hand) -> tuple[str, str, str]:
    """Return a set, and words of its definition that plain `verify` does not compare."""
    if hand.is_nft:
        return "trusted-tiers6", "type ipv6_addr", "type ipv6_addr\n\t\tflags interval"
    return "learned4", "timeout 3600", "timeout 3600 comment"


@on_two
def test_a_set_that_is_defined_otherwise(host: TamperedHost) -> None:
    name, old, new = definition(host.hand)
    host.hand.remake_set(name, old, new)
    assert host.drift() == ()
    detail = f"{new.split()[-2] + ' ' if host.hand.is_nft else ''}{new.split()[-1]}, not nothing"
    origin = "trusted_peers" if host.hand.is_nft else "learning"
    expected = Named("changed", "set", host.hand.set(name), origin, detail)
    assert_named(host.deep_drift(), [expected])


@everywhere
def test_everything_harmless_at_once(host: TamperedHost) -> None:
    more = harmless.NFTABLES if host.hand.is_nft else harmless.IPTABLES
    for change in (*harmless.EVERYWHERE, *more):
        change(host.hand)
    assert host.drift() == ()
    assert host.deep_drift() == ()


@pytest.mark.parametrize("backend", BACKENDS[::2])
def test_addresses_of_host_names_follow_the_record(backend: str, tmp_path: Path) -> None:
    peer = {"name": "named", "signalling": ["203.0.113.20", "sip.carrier.example"]}
    found = Located((FoundAddress(ip_address("198.51.100.7"), "A"),))

    async def lookup(question: DnsQuestion) -> Located:
        assert question == DnsQuestion("sip.carrier.example")
        return found

    with tampered_host(backend, tmp_path) as host:
        # Exit code 6: no name server answers here.
        policy = host.shared.policy({**POLICY, "trusted_peers": [peer]})
        words = ("apply", "--backend", backend, "--policy", policy, "--yes")
        assert host.shared.sipfw(*words).returncode == 6
        host.inside.submit(refresh, host.layout, Options(), lookup=lookup).result()
        assert host.deep_drift() == ()
        host.hand.elements("delete", "trusted4", "198.51.100.7")
        where = f"{host.hand.set('trusted4')} 198.51.100.7"
        expected = Named("missing", "set element", where, "trusted_peers")
        assert_named(host.deep_drift(), [expected])


@on_two
def test_what_cannot_be_compared_is_said_in_one_line(host: TamperedHost) -> None:
    command = [sys.executable, "-m", "sipfw", "verify", "--deep", "--root", str(host.shared.root)]
    alone = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", *command]
    done = host.shared.node.run(alone, check=False, env=host.shared.env)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert "--deep needs a network namespace of its own, which takes CAP_SYS_ADMIN" in line


@pytest.mark.parametrize("guarded", ["nftables"], indirect=True)
def test_a_generation_that_was_changed_is_no_yardstick(host: TamperedHost) -> None:
    path = host.layout.generations / "1" / "ruleset.json"
    before = path.read_text()
    path.write_text(before.replace("203.0.113.10", "203.0.113.11"))
    try:
        with pytest.raises(BackendError, match=r"generation 1 is damaged: .*changed since"):
            host.deep_drift()
        host.layout.applied.unlink()
        with pytest.raises(BackendError, match="no apply is on record to compare with"):
            host.deep_drift()
    finally:
        path.write_text(before)


def test_the_scratch_namespace_takes_no_lock_of_the_host(tmp_path: Path) -> None:
    with tampered_host("iptables-legacy", tmp_path) as host:
        lock = tmp_path / "xtables.lock"
        command = [
            sys.executable,
            "-m",
            "sipfw",
            "verify",
            "--deep",
            "--root",
            str(host.shared.root),
        ]
        done = host.shared.node.run(
            ["flock", str(lock), *command], check=False, env=host.shared.env
        )
        assert (done.returncode, done.stderr) == (0, "")
