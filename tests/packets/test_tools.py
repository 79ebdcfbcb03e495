"""Real attack tools against a loaded firewall, and a real call beside a flood."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import sip
from packets.cases import trusting
from packets.phone import REGISTRAR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

CALL = Path(__file__).with_name("call.xml")
FAILURES = 10
PROBATION = 2


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if shutil.which(tool) is None and not os.environ.get("CI")]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def attack_side_by_side(
    lab: Lab, commands: Mapping[str, Sequence[str]], home: Path, seconds: float
) -> dict[str, str]:
    """Run the tools at once for at most so long and return what each one printed."""
    # sipvicious keeps its sessions in the home folder.
    programs = {
        name: lab.attacker.popen(command, env={"HOME": str(home)}, cwd=str(home))
        for name, command in commands.items()
    }
    deadline = time.monotonic() + seconds
    printed = {}
    for name, program in programs.items():
        try:
            printed[name], _ = program.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            program.kill()
            printed[name] = ""
    return printed


def sinks_stay_empty(lab: Lab, commands: Mapping[str, Sequence[str]], home: Path) -> dict[str, str]:
    udp = lab.switch.udp_sink(5060, REGISTRAR)
    tcp = lab.switch.tcp_sink(5060, "echo-status")
    printed = attack_side_by_side(lab, commands, home, 5.0)
    assert udp.settle() == 0
    assert tcp.settle() == 0
    return printed


@needs("svmap", "svwar", "svcrack")
def test_sipvicious_gets_nothing_through(lab: Lab, firewall: Firewall, tmp_path: Path) -> None:
    firewall.load()
    target = lab.switch.address_for(lab.attacker)
    printed = sinks_stay_empty(
        lab,
        {
            "map": ["svmap", target],
            "call": ["svmap", "-m", "INVITE", target],
            "war": ["svwar", "-m", "REGISTER", "-e", "100-120", target],
            "crack": ["svcrack", "-u", "100", "-r", "100-160", target],
        },
        tmp_path,
    )
    assert target not in printed["map"] + printed["call"]
    assert firewall.counted("scanner.options-udp", "ip") >= 1
    assert firewall.counted("scanner.ua.friendly-scanner", "ip") >= 3


@needs("nmap")
def test_nmap_gets_nothing_through(
    lab: Lab, firewall: Firewall, family: Family, tmp_path: Path
) -> None:
    firewall.load()
    target = lab.switch.address_for(lab.attacker, family)
    nmap = ["nmap", "-n", "-Pn", "-p", "5060", *(["-6"] if family == "ip6" else [])]
    printed = sinks_stay_empty(
        lab,
        {
            "tcp": [*nmap, "-sT", "--script", "sip-methods", target],
            "udp": [*nmap, "-sU", "--script", "sip-methods,sip-enum-users", target],
            "version": [*nmap, "-sU", "-sV", "--host-timeout", "4s", target],
        },
        tmp_path,
    )
    assert "INVITE" not in "".join(printed.values())
    for rule in ("options-udp", "options-tcp", "ua.nmap-nse", "not-sip"):
        assert firewall.counted(f"scanner.{rule}", family) >= 1, rule


@needs("sipsak")
def test_sipsak_gets_nothing_through(lab: Lab, firewall: Firewall, tmp_path: Path) -> None:
    firewall.load()
    target = lab.switch.address_for(lab.attacker)
    udp = lab.switch.udp_sink(5060, "echo-status")
    account = f"sip:100@{target}"
    commands = {"options": ["sipsak", "-s", account], "register": ["sipsak", "-U", "-s", account]}
    attack_side_by_side(lab, commands, tmp_path, 1.5)
    assert udp.settle() == 0
    assert firewall.counted("scanner.options-udp", "ip") >= 1
    assert firewall.counted("scanner.ua.sipsak", "ip") >= 1


@needs("svcrack")
def test_a_disguised_svcrack_is_limited_to_a_few_guesses(
    lab: Lab, firewall: Firewall, tmp_path: Path
) -> None:
    marks = ["friendly-scanner", "sipvicious-svcrack-contact"]
    disguise: dict[str, Any] = {"scanners": {"user_agents": {"remove": marks}}}
    firewall.load({**disguise, "learning": {"failures": FAILURES}})
    sink = lab.switch.udp_sink(5060, REGISTRAR)
    target = lab.switch.address_for(lab.attacker)
    command = ["svcrack", "-P", "5099", "-u", "100", "-r", "100-400", target]
    attack_side_by_side(lab, {"crack": command}, tmp_path, 3.0)
    reached = sink.settle()
    assert {each.source_port for each in sink.arrivals()} == {5099}
    # The port's trickle grows by one login in five seconds.
    guesses = firewall.counted("guesses.probation", "ip")
    assert guesses <= PROBATION + 1
    before = [firewall.counted(name, "ip") for name in ("rate.accept", "login.accept")]
    asked = [firewall.counted(f"{name}.probation", "ip") for name in ("banned", "repeated")]
    assert reached == sum(before) + guesses + sum(asked)
    # A REGISTER without a password and one with, each time.
    assert max(before) <= FAILURES + 1
    assert firewall.contains("banned", lab.attacker.address4)


@needs("sipp")
def test_calls_of_a_carrier_complete_beside_a_flood(
    lab: Lab, firewall: Firewall, family: Family, tmp_path: Path
) -> None:
    firewall.load(trusting(tier="medium"))
    sink = lab.switch.udp_sink(5060, {"INVITE": [100, 180, 200], "BYE": 200})
    target, own = lab.switch.address_for(lab.carrier, family), lab.carrier.address(family)
    options = ["-m", "20", "-r", "10", "-i", own, "-mi", own, "-nostdin", "-timeout", "8s"]
    remote = f"{sip.host_text(target)}:5060"
    sipp = lab.carrier.popen(["sipp", "-sf", str(CALL), *options, remote], cwd=str(tmp_path))
    victim = lab.switch.address_for(lab.attacker, family)
    attacker = lab.attacker.address(family)
    for method in ("OPTIONS", "REGISTER"):
        flood = sip.request(method, source=attacker, destination=victim)
        lab.attacker.spoof_udp([attacker] * 5000, victim, range(7000, 7100), 5060, flood, pps=4000)
    _, errors = sipp.communicate(timeout=10)
    assert sipp.returncode == 0, errors
    kinds = sink.kinds()
    # A starved sink may answer after sipp has repeated a request.
    assert min(kinds["INVITE"], kinds["ACK"], kinds["BYE"]) == 20
    of_the_carrier = kinds["INVITE"] + kinds["ACK"] + kinds["BYE"]
    assert firewall.counted("trusted.accept", family) == of_the_carrier
    assert firewall.counted("scanner.options-udp", family) == 5000
    # Its REGISTERs brought the flood a ban, and what is left of them is a trickle: twenty and ten a
    # second, and forty and forty a second of ports that repeat themselves.
    assert firewall.contains("banned", attacker)
    assert kinds.get("REGISTER", 0) <= 150 + (20 + 10 * 2) + (40 + 40 * 2)
