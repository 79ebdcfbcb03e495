"""Words of other tools: each leads to a line that a policy may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sipfw.errors import PolicyError
from sipfw.policy import synonyms
from sipfw.policy.fields import annotations_of, model_at
from sipfw.policy.load import Request, load
from sipfw.policy.synonyms import line_elsewhere, line_instead

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [
    (section, target, word)
    for section, targets in synonyms._WORDS.items()
    for target, words in targets.items()
    for word in words.split()
]
TOP = [(target, word) for section, target, word in WORDS if not section]
# What people type who come from elsewhere, and the value that they bring along.
BROUGHT = {
    "whitelist: [203.0.113.10]": "trusted_peers: [203.0.113.10]",
    "allowlist: {carrier-a: 203.0.113.10}": "trusted_peers: {carrier-a: 203.0.113.10}",
    "ignoreip: 203.0.113.0/24": "trusted_peers: 203.0.113.0/24",
    "ignoreip: 203.0.113.0/24 ::1": "trusted_peers: {carrier-a: 203.0.113.10}",
    "trunks: sip.carrier.example": "trusted_peers: sip.carrier.example",
    "peers: ['2001:db8::1']": 'trusted_peers: ["2001:db8::1"]',
    "rtp: 16384-32768": "media: {ports: 16384-32768}",
    "rtpstart: 10000": "media: {ports: 10000-20000}",
    "ssh_port: 2222": "admin: {ssh_port: 2222}",
    "ssh-port: 2222": "admin: {ssh_port: 2222}",
    "SSH_PORT: 0": "admin: {ssh_port: 22}",
    "ports: [5060, 5061]": "signalling: {udp: 5060, tcp: 5060}",
    "ports: {udp: 5070}": "signalling: {udp: 5070}",
    "udp: [5060, 5070-5080]": "signalling: {udp: [5060, 5070-5080]}",
    "fail2ban: true": "bans: {duration: 1h}",
    "bantime: 3600": "bans: {duration: 3600}",
    "maxretry: 5": "learning: {failures: 5}",
    "findtime: 10m": "learning: {window: 10m}",
    "rate_limit: 20/second": "limits: {per_source: {rate: 20/second, burst: 150}}",
    "pike: {rate: 30/second}": "limits: {per_source: {rate: 30/second}}",
    "user_agents: [EvilDialer]": "scanners: {user_agents: {add: [EvilDialer]}}",
    "lan: eth1; reboot": "host: {interfaces: eth1}",
    "pbx: freepbx": "switch: freepbx",
    "whitlist: [203.0.113.10]": "trusted_peers: [203.0.113.10]",
}


def _loads(line: str) -> None:
    data: dict[str, Any] = yaml.safe_load(line)
    [(field, value)] = data.items()
    load(Request(settings=(f"{field}={yaml.safe_dump(value, default_flow_style=True)}",)))


@pytest.mark.parametrize(("typed", "line"), BROUGHT.items())
def test_the_line_holds_the_value_where_it_fits(typed: str, line: str) -> None:
    [(word, value)] = yaml.safe_load(typed).items()
    assert line_instead([], word, value) == line


@pytest.mark.parametrize(("target", "word"), TOP)
def test_each_word_leads_to_a_line_that_can_be_written(target: str, word: str) -> None:
    line = line_instead([], word, {"no": ["such", "value"]})
    assert line is not None
    assert line.startswith(target.partition(".")[0])
    _loads(line)


@pytest.mark.parametrize("section", [name for name in synonyms._WORDS if name])
def test_a_word_within_a_section_leads_to_its_field(section: str) -> None:
    for target, words in synonyms._WORDS[section].items():
        for word in words.split():
            line = line_instead(section.split("."), word, None)
            assert line is not None
            assert target.rpartition(".")[2] in line
            assert "..." not in line


def test_no_word_means_two_things_or_is_a_field_itself() -> None:
    places = [(section, word) for section, _, word in WORDS]
    assert len(places) == len(set(places))
    for section, word in places:
        model = model_at(tuple(section.split("."))) if section else model_at(())
        assert model is not None
        assert word not in annotations_of(model)


def test_there_are_words_of_four_worlds() -> None:
    assert len({word for _, word in TOP}) > 100


@pytest.mark.parametrize("word", ["xyzzy", "colour", "", "$(reboot)", "a`b", "😀"])
def test_nothing_is_said_of_a_word_that_means_nothing(word: str) -> None:
    assert line_instead([], word, "x") is None


@pytest.mark.parametrize(
    "value", ["a`b$(reboot)", "\x1b[31mred", "x" * 500, ["203.0.113.10"] * 200, [[1]], float("nan")]
)
def test_no_odd_value_is_copied_into_the_line(value: object) -> None:
    assert line_instead([], "whitelist", value) == "trusted_peers: {carrier-a: 203.0.113.10}"
    assert line_instead([], "rtp", value) == "media: {ports: 10000-20000}"


def test_a_field_of_another_section_is_led_there() -> None:
    assert line_elsewhere("registered_ttl", "2h") == "learning: {registered_ttl: 2h}"
    assert line_elsewhere("registered_ttl", "soon") == "learning: {registered_ttl: ...}"
    # Of these there are several, or none.
    assert line_elsewhere("rate", "1/second") is None
    assert line_elsewhere("xyzzy", 1) is None


def test_a_slip_of_a_key_is_not_taken_for_a_word_of_another_tool(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("signaling: {udp: 5060}\ntrusted_peer: []\nhosts: {}\n")
    with pytest.raises(PolicyError) as raised:
        load(Request(file))
    assert [str(item).partition("field; ")[2] for item in raised.value.diagnostics] == [
        "did you mean `signalling`?",
        "did you mean `trusted_peers`?",
        "did you mean `host`?",
    ]
