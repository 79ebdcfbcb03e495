"""An apply of what is in force already, and what rollback and history make of generations."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from test_dummy_backend import KERNEL, host

from sipfw.deploy.activate import read_applied
from sipfw.deploy.differences import Difference, differences, summary
from sipfw.deploy.generations import (
    KEPT,
    Content,
    Generation,
    list_generations,
    prune,
    read_generation,
    write_generation,
)
from sipfw.deploy.stored_content import content_to_be, same_firewall
from sipfw.host.files import Layout
from sipfw.ruleset.model import AddressSet, Base, Chain, Hook, Layer, Priority, Ruleset, SetKind
from sipfw.ruleset.rule import Drop, Origin, Rule

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Ran, Sipfw

__all__ = ["host"]

_POLICY = """\
profile: wholesale
trusted_peers: [{name: carrier-a, signalling: [203.0.113.10]}]
"""


class Operator:
    """Applies policies to the host of the dummy backend."""

    def __init__(self, root: Path, sipfw: Sipfw) -> None:
        self.root, self._sipfw = root, sipfw
        self.file = root / "policy.yaml"
        self.layout = Layout(root)

    def run(self, command: str, *words: str, code: int = 0) -> Ran:
        ran = self._sipfw(command, "--root", str(self.root), *words)
        assert ran.code == code, ran.stderr
        return ran

    def apply(self, text: str = _POLICY, *words: str) -> Ran:
        self.file.write_text(text, encoding="utf-8")
        self.file.chmod(0o600)
        return self.run("apply", "--policy", str(self.file), "--backend", "dummy", *words)

    def numbers(self) -> list[int]:
        return [item.number for item in list_generations(self.layout)]

    def live(self) -> int | None:
        found = read_applied(self.layout)
        assert found is not None
        return found.generation


@pytest.fixture
def operator(host: Path, sipfw: Sipfw) -> Operator:
    return Operator(host, sipfw)


_OTHER = _POLICY.replace("203.0.113.10", "203.0.113.10, 203.0.113.11")


def test_the_same_again_makes_no_generation(operator: Operator) -> None:
    assert "generation 1" in operator.apply().stderr
    ran = operator.apply()
    assert "nothing differs, generation 1 stays" in ran.stderr
    assert operator.numbers() == [1]
    # A comment moves every line and changes nothing.
    assert "nothing differs" in operator.apply("# ours\n" + _POLICY).stderr
    assert operator.numbers() == [1]


def test_a_value_that_only_the_policy_knows_makes_one(operator: Operator) -> None:
    operator.apply()
    operator.apply(_POLICY + "names: {grace: 3d}\n")
    assert operator.numbers() == [1, 2]


def test_another_file_of_the_same_words_makes_one(operator: Operator) -> None:
    operator.apply()
    operator.file = operator.root / "moved.yaml"
    operator.apply()
    assert operator.numbers() == [1, 2]


def test_what_differs_in_the_kernel_is_put_right(operator: Operator) -> None:
    operator.apply()
    KERNEL.clear()
    ran = operator.apply()
    assert KERNEL
    assert "what differed is put right, generation 1 stays" in ran.stderr
    assert operator.numbers() == [1]


def test_confirm_of_nothing_waits_for_nothing(operator: Operator) -> None:
    operator.apply()
    assert "nothing to confirm" in operator.apply(_POLICY, "--confirm", "60").stderr
    assert not operator.layout.pending.exists()
    (made,) = list_generations(operator.layout)
    assert isinstance(made, Generation)
    assert made.confirmed


def test_rollback_goes_to_the_last_that_differs(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.apply(_OTHER)
    operator.apply()
    _same_once_more(operator)
    monkeypatch.setattr("sipfw.deploy.overtaken.process_started", time.time)
    ran = operator.run("rollback")
    assert operator.live() == 1
    lines = ran.stderr.splitlines()
    assert lines[0] == "from generation 3 to generation 1:"
    assert lines[1] == "  + trusted_peers.carrier-a.signalling: 203.0.113.11/32"
    assert lines[-1].startswith(f"{operator.file} still holds what was rolled back; ")
    assert any(line.startswith("rolled back: ") for line in lines)


def _same_once_more(operator: Operator) -> None:
    """Make a generation that means the same, as versions did that made one with every apply."""
    before = operator.layout.generations / "2"
    after = operator.layout.generations / "3"
    after.mkdir(mode=0o700)
    for path in before.iterdir():
        text = path.read_text(encoding="utf-8")
        if path.name == "meta.json":
            text = json.dumps({**json.loads(text), "number": 3, "before": 2})
        (after / path.name).write_text(text, encoding="utf-8")
        (after / path.name).chmod(0o600)
    record = json.loads(operator.layout.applied.read_text(encoding="utf-8"))
    operator.layout.applied.write_text(json.dumps({**record, "generation": 3}), encoding="utf-8")


def test_history_says_what_each_changed_who_and_from_where(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.apply()
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.7 50022 192.0.2.1 22")
    operator.apply(_POLICY + "bans: {duration: 2h}\n", "--force")
    first, second = json.loads(operator.run("history", "--json").stdout)
    assert first["changed"] == "the first"
    assert (second["who"], second["from"]) == ("alice", "198.51.100.7")
    assert second["changed"] == "~ bans.duration: 3600 -> 7200"
    shown = operator.run("history").stdout.splitlines()
    assert "alice from 198.51.100.7" in shown[2]
    assert shown[2].endswith("~ bans.duration: 3600 -> 7200")


def test_history_shows_the_difference_of_two(operator: Operator) -> None:
    operator.apply()
    operator.apply(_OTHER)
    operator.apply(_POLICY + "bans: {duration: 2h}\n")
    shown = operator.run("history", "--diff", "3", "1").stdout.splitlines()
    assert shown[0] == "~ bans.duration: 3600 -> 7200"
    assert not [line for line in shown if "carrier-a" in line]
    data = json.loads(operator.run("history", "--diff", "2", "--json").stdout)
    assert (data["generation"], data["since"]) == (2, 1)
    assert data["changes"][0] == {
        "kind": "policy",
        "what": "trusted_peers.carrier-a.signalling",
        "before": None,
        "after": "203.0.113.11/32",
    }
    both = _POLICY.replace("]}]", "]}, {name: b, signalling: [198.51.100.7], tier: large}]")
    operator.apply(both)
    assert operator.run("history", "--diff", "4", "1").stdout.splitlines()[0] == (
        "+ trusted_peers.b: 198.51.100.7/32 tier=large"
    )
    assert "generation 9 cannot be shown" in operator.run("history", "--diff", "9", code=4).stderr
    operator.run("history", "3", code=2)
    operator.run("history", "--diff", "3", "--keep", "1", code=2)


def test_a_kept_one_is_never_pruned(operator: Operator) -> None:
    operator.apply()
    operator.run("history", "--keep", "1")
    assert json.loads(operator.run("history", "--json").stdout)[0]["kept"]
    assert ", kept" in operator.run("history").stdout
    assert "generation 7 cannot be kept" in operator.run("history", "--keep", "7", code=4).stderr
    made = read_generation(operator.layout, 1)
    assert isinstance(made, Generation)
    for number in range(2 * KEPT):
        write_generation(operator.layout, _content(f"rule-{number}"), 1)
    prune(operator.layout, ())
    assert operator.numbers()[0] == 1
    operator.run("history", "--release", "1")
    (operator.layout.generations / "1/confirmed.json").unlink()
    prune(operator.layout, ())
    assert operator.numbers()[0] > 1


def test_many_of_the_same_take_no_place_of_what_differs(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_generation(layout, _content("another"), None)
    for _ in range(KEPT + 5):
        write_generation(layout, _content("usual"), None)
    prune(layout, ())
    numbers = [item.number for item in list_generations(layout)]
    assert numbers == [1, *range(7, KEPT + 7)]


def _content(rule_id: str, line: str = "policy.yaml:3") -> Content:
    rule = Rule(rule_id, (), Drop(), "a rule", Origin("limits", line))
    chain = Chain("A", Layer.ENTRY, "", (rule,), Priority.RAW, Base(Hook.INPUT, Priority.RAW))
    return Content(Ruleset((chain,), (), ()), "nftables", ipset=True, source="x.yaml", policy="{}")


def test_lines_of_the_file_and_answers_of_names_are_no_difference() -> None:
    one = content_to_be(_content("a"))
    assert same_firewall(one, content_to_be(_content("a", "policy.yaml:4")))
    assert not same_firewall(one, content_to_be(_content("b")))
    assert not same_firewall(one, replace(one, backend="iptables"))
    assert not same_firewall(one, replace(one, policy={"x": 1}))


@pytest.mark.parametrize(("resolved", "same"), [(True, True), (False, False)])
def test_only_members_that_names_bring_may_differ(resolved: bool, same: bool) -> None:

    origin = Origin("trusted_peers", "p:1")
    networks = (ip_network("203.0.113.10/32"),)
    empty = AddressSet("t", SetKind.NETWORK, "", origin, resolved=resolved)
    contents = [
        content_to_be(replace(_content("a"), ruleset=Ruleset((), (item,), ())))
        for item in (empty, replace(empty, networks=networks))
    ]
    assert same_firewall(*contents) is same


def test_a_difference_cannot_speak_to_the_terminal() -> None:
    one = content_to_be(_content("a"))
    (found,) = differences(replace(one, policy={}), replace(one, policy={"x\x1b": "\x1b[31m"}))
    assert found == Difference("policy", "x\\x1b", None, "\\x1b[31m")
    assert summary([found] * 5).endswith("; and 2 more")
