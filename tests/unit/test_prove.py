"""What `sipfw prove` and `sipfw test` read and say, without a kernel."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.errors import Exit, PolicyError
from sipfw.policy.load import Request, load
from sipfw.policy.scenario import Scenarios, read_scenarios, scenario_schema
from sipfw.policy.schema import json_schema
from sipfw.prove import digest
from sipfw.prove.attacker import filled
from sipfw.prove.junit import junit_text
from sipfw.prove.programme import programme_for
from sipfw.prove.verdict import Proof, Result, Verdict, of_attack, of_good
from sipfw.resources import package_folder

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

_SHIPPED = package_folder() / "data" / "scenarios.yaml"
_PEERS = (
    "trusted_peers=[{name: a, signalling: [203.0.113.0/24]}, {name: b, signalling: [192.0.2.9]}]"
)


def _shipped() -> Scenarios:
    return read_scenarios(_SHIPPED.read_bytes(), "scenarios.yaml")


def _faults(text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        read_scenarios(text.encode(), "mine.yaml")
    return str(caught.value)


def test_every_shipped_attack_is_a_message_of_its_own_kind() -> None:
    for attack in _shipped().attacks:
        sent = filled(attack.message, "2001:db8::7", 5060, "192.0.2.1", 3)
        assert b"{" not in sent, attack.name
        if b" SIP/2.0\r\n" in sent:
            assert sent.endswith(b"\r\n\r\n"), attack.name
            assert b"\n" not in sent.replace(b"\r\n", b""), attack.name
            assert b"[2001:db8::7]:5060" in sent, attack.name


def test_a_fault_of_a_scenario_is_named_with_its_line() -> None:
    text = "good:\n  - name: a\n    title: x\n    actor: phone\n    do: [register, dance]\n"
    assert "mine.yaml:5" in _faults(text)
    assert "'dance' is not known" in _faults(text)
    twice = "".join(f"  - {{name: a, title: {t}, actor: phone, do: [call]}}\n" for t in "xy")
    assert "two scenarios are called a" in _faults(f"good:\n{twice}")


def test_the_switches_that_let_something_in_are_fields_of_a_policy() -> None:
    loaded = load(Request())
    flat = programme_for(loaded.policy, compile_policy(loaded), {}, _shipped()).settings
    named = {field for attack in _shipped().attacks for field in attack.unless}
    assert named
    assert named <= set(flat)


def test_strangers_are_nobody_whom_the_policy_names() -> None:
    loaded = load(Request(settings=(_PEERS,)))
    cast = programme_for(loaded.policy, compile_policy(loaded), {}, _shipped()).cast
    assert {(peer.name, peer.address) for peer in cast.peers} == {
        ("a", "203.0.113.1"),
        ("b", "192.0.2.9"),
    }
    strangers = [*cast.strangers[4], *cast.strangers[6]]
    assert len(set(strangers)) == len(strangers)
    for peer in cast.peers:
        assert not any(ip_address(peer.address) in net for net in strangers)
    assert len({cast.host(0, 6, number).rpartition("::")[0] for number in range(20)}) == 20


def test_digest_is_that_of_rfc_2069() -> None:
    """Its example, corrected by erratum 749."""
    given = {
        "username": "Mufasa",
        "realm": "testrealm@host.com",
        "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        "uri": "/dir/index.html",
    }
    assert digest.response(given, "CircleOfLife", "GET") == "1949323746fe6a43ef61f9606e7febea"


def test_verdicts() -> None:
    assert of_attack(3, 3) is Verdict.STOPPED
    assert of_attack(4, 3) is Verdict.PASSED
    assert of_good(2, 2) is Verdict.COMPLETED
    assert of_good(2, 1) is Verdict.HURT
    assert of_good(0, 0) is Verdict.HURT
    skipped = Result("a", "b", attack=True, version=4, verdict=Verdict.SKIPPED)
    assert not Proof("nftables", 1.0, (skipped,)).proven
    assert not Proof("nftables", 1.0, ()).proven


def test_junit_quotes_and_counts() -> None:
    results = (
        Result("a", "", attack=True, version=6, verdict=Verdict.PASSED, tried=9, got=9, why='<">'),
        Result("b", "", attack=False, version=4, verdict=Verdict.COMPLETED, tried=1, got=1),
        Result("c", "", attack=True, version=4, verdict=Verdict.SKIPPED, why="no peer"),
    )
    suite = ET.fromstring(junit_text([Proof("nftables", 2.0, results)]))[0]  # noqa: S314 - ours
    assert suite.attrib["tests"] == "3"
    assert (suite.attrib["failures"], suite.attrib["skipped"]) == ("1", "1")
    assert '<">' in suite[0][0].attrib["message"]


def test_the_schema_of_scenarios_stands_beside_that_of_policies(sipfw: Sipfw) -> None:
    assert json.loads(sipfw("schema", "--of", "scenarios").stdout) == scenario_schema()
    assert json.loads(sipfw("schema").stdout) == json_schema()


def _test(sipfw: Sipfw, folder: Path, cases: str, *options: str) -> tuple[int, str]:
    file = folder / "cases.yaml"
    file.write_text(f"cases:\n{cases}")
    done = sipfw("test", "-f", "none", "--set", _PEERS, str(file), *options)
    return done.code, done.stdout + done.stderr


def test_cases_that_hold_and_one_that_does_not(sipfw: Sipfw, tmp_path: Path) -> None:
    good = (
        "  - {send: INVITE, source: 192.0.2.9, expect: accepted, by: trusted.accept}\n"
        "  - {send: OPTIONS, source: 198.51.100.7, expect: dropped, by: scanner.options-udp}\n"
        "  - {send: OPTIONS, source: 198.51.100.7, known: learned, expect: accepted}\n"
        "  - {send: INVITE, source: '2001:db8::7', known: banned, expect: dropped}\n"
        "  - {send: INVITE, source: 198.51.100.7, user_agent: sipcli/v1.8, expect: dropped}\n"
        "  - {send: INVITE, source: 198.51.100.7, above_limits: true, expect: dropped}\n"
        "  - {send: INVITE, source: 198.51.100.7, transport: tcp, expect: accepted}\n"
    )
    code, said = _test(sipfw, tmp_path, good)
    assert code == Exit.CLEAN, said
    assert "7 cases passed" in said
    bad = "  - {send: OPTIONS, source: 198.51.100.7, expect: accepted}\n"
    code, said = _test(sipfw, tmp_path, good + bad, "--junit")
    assert code == Exit.DIFFERENT
    assert 'failures="1"' in said
    assert "dropped by scanner.options-udp, expected accepted" in said


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("{send: INVITE, source: 192.0.2.9, expect: kept}", "cases.yaml:2"),
        ("{send: INVITE, source: 192.0.2.9}", "is missing"),
        ("{send: INVITE, source: 192.0.2.9, expect: dropped, by: trusted.acept}", "trusted.accept"),
        ("{send: 'A B', source: 192.0.2.9, expect: dropped}", "cases.yaml:2"),
        ("{send: INVITE, source: nobody, expect: dropped}", "cases.yaml:2"),
    ],
)
def test_a_fault_of_a_case_is_named_with_its_line(
    sipfw: Sipfw, tmp_path: Path, case: str, said: str
) -> None:
    code, output = _test(sipfw, tmp_path, f"  - {case}\n")
    assert code == Exit.POLICY
    assert said in output
    assert "cases.yaml:2" in output
