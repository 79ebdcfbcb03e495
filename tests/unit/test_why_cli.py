"""`sipfw why --offline`: what it prints, and one line for each wrong input."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

STRANGER = "198.51.100.7"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "trusted_peers:\n"
        "  - {name: a, signalling: [203.0.113.10]}\n"
        "  - {name: b, signalling: [203.0.113.20], source_ports: [5070]}\n"
    )
    return path


def test_a_stranger_asked_about_without_a_firewall(sipfw: Sipfw, policy: Path) -> None:
    ran = sipfw("why", STRANGER, "--offline", "-f", str(policy))
    assert ran.code == Exit.CLEAN
    lines = ran.stdout.splitlines()
    assert lines[0].startswith(f"From {STRANGER}: OPTIONS over udp to port 5060 is dropped, ")
    assert f"sipfw trust {STRANGER} --for 2h" in lines[0]
    assert lines[2] == (
        f"{STRANGER} and the policy profile default, {policy}, as if it had just been applied"
    )
    assert "OPTIONS over udp to port 5060: dropped" in lines
    assert "REGISTER, REGISTER with a password, INVITE over udp to port 5060: passed" in lines
    assert lines[-1] == "whether other rules of this host drop it is not judged here"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("203.0.113.10",), "trusted.accept: trusted peer, delivered untouched  [trusted]"),
        (("203.0.113.20", "--port", "5070"), "trusted.ports: trusted peer"),
        (("203.0.113.20",), "it comes from port 5070: then passed"),
        ((STRANGER, "--user-agent", "friendly-scanner"), "contains 'friendly-scanner'"),
        ((STRANGER, "--method", "options"), "it sends REGISTER instead"),
        ((STRANGER, "--transport", "tcp"), "a connection over tcp to port 5060: passed"),
        ((STRANGER, "--to-port", "22"), "a connection over tcp to port 22: passed"),
        ((STRANGER, "--to-port", "9000"), "a datagram over udp to port 9000: passed"),
        ((STRANGER, "--to-port", "5060"), "a connection over tcp to port 5060: passed"),
        ((STRANGER, "--to-port", "12000"), "a connection over tcp to port 12000: passed"),
        (("a",), "a, a trusted peer, in the policy profile default"),
        (("127.0.0.1",), "comes from this host itself"),
        (("2001:db8::7",), "for all of 2001:db8::/64"),
    ],
)
def test_what_is_asked_is_answered(
    sipfw: Sipfw, policy: Path, words: tuple[str, ...], found: str
) -> None:
    ran = sipfw("why", *words, "--offline", "-f", str(policy))
    assert ran.code == Exit.CLEAN, ran.stderr
    assert found in ran.stdout


def test_a_closed_port_is_dropped_for_udp_and_for_tcp(sipfw: Sipfw, policy: Path) -> None:
    policy.write_text(policy.read_text() + "admin: {networks: [192.0.2.0/28]}\n")
    ran = sipfw("why", "203.0.113.10", "--offline", "-f", str(policy), "--to-port", "9000")
    assert "a connection over tcp to port 9000: dropped" in ran.stdout
    assert "a datagram over udp to port 9000: dropped" in ran.stdout
    assert ran.stdout.count("lost.drop: sent in vain by a trusted peer") == 2
    one = ("--transport", "udp", "--json")
    ran = sipfw("why", "203.0.113.10", "--offline", "-f", str(policy), "--to-port", "9000", *one)
    (answer,) = json.loads(ran.stdout)["answers"]
    assert (answer["transport"], answer["verdict"]) == ("udp", "dropped")


def test_a_name_is_asked_about_as_a_whole(sipfw: Sipfw, policy: Path) -> None:
    ran = sipfw("why", "b", "--offline", "-f", str(policy), "--json")
    found = json.loads(ran.stdout)["peer"]
    assert (found["name"], found["signalling"]) == ("b", ["203.0.113.20/32"])
    ran = sipfw("why", "b", "--offline", "-f", str(policy), "--to-port", "9000")
    assert ran.code == Exit.USAGE
    assert "goes with an address" in ran.stderr


def test_a_logged_drop_has_the_name_of_its_rule(sipfw: Sipfw, policy: Path) -> None:
    policy.write_text("logging: {layers: [scanner-block]}\n")
    ran = sipfw("why", STRANGER, "--offline", "-f", str(policy), "--method", "OPTIONS")
    assert "scanner.options-udp: OPTIONS from an unknown source" in ran.stdout


def test_the_answer_for_machines(sipfw: Sipfw, policy: Path) -> None:
    ran = sipfw("why", STRANGER, "--offline", "-f", str(policy), "--json")
    data = json.loads(ran.stdout)
    assert data["format"] == 1
    assert (data["offline"], data["backend"], data["generation"]) == (True, None, None)
    options = data["answers"][0]
    assert options["messages"] == ["OPTIONS"]
    assert options["verdict"] == "dropped"
    (end,) = options["outcomes"]
    assert end["rules"][0]["id"] == "scanner.options-udp"
    assert end["rules"][0]["layer"] == "scanner-block"
    assert {change["kind"] for change in options["changes"]} == {"success", "trust"}


def test_the_bytes_of_a_file_are_asked_about(sipfw: Sipfw, policy: Path, tmp_path: Path) -> None:
    message = tmp_path / "packet.bin"
    message.write_bytes(bytes(range(256)))
    ran = sipfw("why", STRANGER, "--offline", "-f", str(policy), "--file", str(message))
    assert "the file's 256 bytes over udp to port 5060: dropped" in ran.stdout
    assert "scanner.not-sip" in ran.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("elsewhere",),
            "'elsewhere' is not an address; write one such as 203.0.113.7 or 2001:db8::7",
        ),
        (("203.0.113.0/24",), "'203.0.113.0/24' is not an address"),
        (("\x1b[31m",), "is not an address"),
        (("fe80::1%eth0",), "leave out %eth0"),
        (("::ffff:192.0.2.1",), "travels as IPv4; write 192.0.2.1"),
        (("ff02::1",), "is the source of no packet"),
        ((STRANGER, "--port", "70000"), "70000 is not in the range"),
        ((STRANGER, "--method", "GET /"), "'GET /' is no SIP method; write one such as REGISTER"),
        ((STRANGER, "--user-agent", "a\r\nb"), "--user-agent takes at most 256 printable"),
        ((STRANGER, "--user-agent", "x" * 257), "--user-agent takes at most 256 printable"),
        ((STRANGER, "--file", "/nowhere/packet.bin"), "cannot be read: no such file or directory"),
        ((STRANGER, "--file", "/dev/zero"), "/dev/zero: is not a file"),
        ((STRANGER, "--file", "x", "--method", "INVITE"), "--file is the whole message"),
    ],
)
def test_a_wrong_input_is_one_line(sipfw: Sipfw, words: tuple[str, ...], told: str) -> None:
    ran = sipfw("why", "--offline", "--", words[0]) if len(words) == 1 else None
    ran = ran or sipfw("why", "--offline", *words)
    assert ran.code == Exit.USAGE
    assert ran.stdout == ""
    error = [line for line in ran.stderr.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1
    assert told in error[0]
    assert "\x1b" not in ran.stderr


def test_a_policy_needs_offline(sipfw: Sipfw, policy: Path) -> None:
    ran = sipfw("why", STRANGER, "-f", str(policy))
    assert ran.code == Exit.USAGE
    assert "--policy, --profile, --switch and --set need --offline" in ran.stderr


def test_a_large_file_and_a_pipe_are_refused(sipfw: Sipfw, tmp_path: Path) -> None:
    large, pipe = tmp_path / "large", tmp_path / "pipe"
    large.write_bytes(bytes(65537))
    os.mkfifo(pipe)
    for path, told in ((large, "more than 64 kB is no SIP message"), (pipe, "is not a file")):
        ran = sipfw("why", STRANGER, "--offline", "--file", str(path))
        assert ran.code == Exit.USAGE
        assert told in ran.stderr


def test_a_transport_that_the_policy_lacks(sipfw: Sipfw, policy: Path) -> None:
    policy.write_text("signalling: {udp: [5060], tcp: [], tls: [], ws: [], wss: []}\n")
    ran = sipfw("why", STRANGER, "--offline", "-f", str(policy), "--transport", "tls")
    assert ran.code == Exit.BACKEND
    assert ran.stderr.endswith("this firewall knows no SIP over tls; name a port with --to-port\n")
