"""What another program takes away of the firewall is put back, said, counted, and not for ever."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from guarded_switch import SCAN
from shared_host import BACKENDS, SharedHost

from lab import Lab, unavailable_reason
from sipfw.host.files import Layout
from sipfw.upkeep.restores import Restore, Restores, write_restores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

pytestmark = pytest.mark.netns

POLICY: Mapping[str, object] = {
    "admin": {"networks": ["192.0.2.0/28"]},
    "trusted_peers": [{"name": "a", "signalling": ["203.0.113.10", "2001:db8:5::/64"]}],
    "conntrack": {"max": None},
}
WITHOUT_US = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -p udp -m udp --dport 9999 -j DROP
-A INPUT -p tcp -j ACCEPT
COMMIT
"""


@pytest.fixture(params=BACKENDS)
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, SharedHost]]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("carrier", "attacker")) as lab:
        host = SharedHost(lab.switch, request.param, tmp_path_factory.mktemp("switch"))
        host.tool("iptables-restore", text=WITHOUT_US)
        host.apply(POLICY, "--yes")
        yield lab, host


def _thefts(host: SharedHost) -> dict[str, Callable[[], object]]:
    """Return what takes the firewall away, or part of it, by what an operator would type."""
    if host.backend == "nftables":
        return {
            "nft flush ruleset": lambda: host.run("nft", "flush", "ruleset"),
            "nft flush chain": lambda: host.run(
                "nft", "flush", "chain", "inet", "sipfw", "raw_prerouting"
            ),
            "nft flush set": lambda: host.run("nft", "flush", "set", "inet", "sipfw", "trusted4"),
        }
    found: dict[str, Callable[[], object]] = {
        # What systemctl restart iptables and netfilter-persistent reload come to.
        "iptables-restore": lambda: host.tool("iptables-restore", text=WITHOUT_US),
        "iptables -D": lambda: _delete_jump(host),
        "ipset flush": lambda: host.run("ipset", "flush", "sipfw-admin4"),
        "the jump behind": lambda: _move_jump(host),
        "iptables -F": lambda: host.tool("iptables", "-F"),
    }
    if host.flavour == "nft":
        # Five in all: more would be held back.
        del found["iptables -F"]
        found["nft flush ruleset"] = lambda: host.run("nft", "flush", "ruleset")
    return found


def _delete_jump(host: SharedHost) -> None:
    lines = host.tool("iptables-save", "-t", "raw").splitlines()
    [jump] = [line for line in lines if line.startswith("-A PREROUTING") and "sipfw:" in line]
    deletion = jump.replace("-A", "-D", 1)
    host.tool("iptables-restore", "--noflush", text=f"*raw\n{deletion}\nCOMMIT\n")


def _move_jump(host: SharedHost) -> None:
    """Write the chain anew in another order, as a program does that keeps its own list of rules."""
    lines = host.tool("iptables-save", "-t", "filter").splitlines()
    rules = [line for line in lines if line.startswith("-A INPUT")]
    text = "\n".join(["*filter", "-F INPUT", *reversed(rules), "COMMIT", ""])
    host.tool("iptables-restore", "--noflush", text=text)


def _everything(host: SharedHost) -> list[str]:
    return [line for line in host.everything().splitlines() if not line.startswith("#")]


def _arriving(lab: Lab) -> int:
    sink = lab.switch.udp_sink(5060)
    lab.attacker.send_udp(lab.switch.address_for(lab.attacker), 5060, [SCAN] * 3)
    count = sink.settle()
    sink.close()
    return count


def test_what_is_taken_away_comes_back_and_is_said(guarded: tuple[Lab, SharedHost]) -> None:
    lab, host = guarded
    assert "nothing to do: whole" in host.sipfw("keep").stderr
    thefts = _thefts(host)
    for number, (name, steal) in enumerate(thefts.items(), 1):
        steal()
        assert host.sipfw("verify").returncode == 1, name
        if name == "nft flush ruleset":
            assert _arriving(lab) == 3, name
        host.must("keep")
        host.must("verify")
        assert _arriving(lab) == 0, name
        entries = json.loads(host.sipfw("history", "--json").stdout)
        assert [item["outcome"] for item in entries[0]["losses"]] == ["restored"] * number
    assert "generation 1 restored; lost was: " in host.sipfw("history").stdout
    assert f"sipfw_restores_total {len(thefts)}.0\n" in host.sipfw("metrics").stdout


def test_it_does_not_fight_the_operator(guarded: tuple[Lab, SharedHost]) -> None:
    _, host = guarded
    flush = next(iter(_thefts(host).values()))
    host.apply({**POLICY, "bans": {"duration": "2h"}}, "--confirm", "600", "--yes")
    flush()
    assert "a change is under way" in host.sipfw("keep").stderr
    assert host.sipfw("verify").returncode == 1
    host.must("confirm")
    host.must("keep")
    host.must("verify")
    assert "nothing to do: whole" in host.sipfw("keep").stderr
    # A rule that he puts in front, and an element that he adds, stay where he put them.
    if host.backend != "nftables":
        host.tool("iptables", "-I", "INPUT", "1", "-s", "198.51.100.7", "-j", "ACCEPT")
        host.must("keep")
        assert "-A INPUT -s 198.51.100.7/32 -j ACCEPT" in host.tool("iptables-save")
    host.must("rollback")
    assert "nothing to do: whole" in host.sipfw("keep").stderr
    host.must("remove", "--yes")
    before = _everything(host)
    assert "nothing to do: nothing in force" in host.sipfw("keep").stderr
    assert _everything(host) == before
    assert not (host.root / "var/lib/sipfw").exists()


def test_a_program_that_flushes_all_the_time_is_left_alone(
    guarded: tuple[Lab, SharedHost],
) -> None:
    _, host = guarded
    flush = next(iter(_thefts(host).values()))
    # Each restore takes a second: four of the five are on record already.
    now = time.time()
    events = tuple(Restore(now - 9 - i, 1, "a test", "restored") for i in range(4))
    write_restores(Layout(host.root), Restores(4, events=events))
    codes = []
    for _ in range(3):
        flush()
        codes.append(host.sipfw("keep").returncode)
    assert codes == [0, 1, 1]
    assert "not restored: 5 restores in 10 min were undone" in host.sipfw("keep").stderr
    told = host.sipfw("history").stdout
    assert told.count("generation 1 held: ") == 1
    assert "sipfw_restores_held 1.0\n" in host.sipfw("metrics").stdout
    # Whoever looks after it himself ends that.
    host.must("restore")
    host.must("keep")
    assert "sipfw_restores_held 0.0\n" in host.sipfw("metrics").stdout
