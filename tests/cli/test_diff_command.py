"""`sipfw diff` without a kernel: refusals, and a plan as text, as JSON and as a question."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from sipfw.cli import preview
from sipfw.cli.plan_view import as_data, as_lines
from sipfw.compare.changes import (
    Action,
    ChainChange,
    JumpChange,
    Plan,
    RuleChange,
    SetChange,
    SysctlChange,
)
from sipfw.host.files import Layout
from sipfw.kernel.nft.backend import NftBackend
from sipfw.ruleset.model import Ruleset
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from conftest import Sipfw

_SAME = Plan((), (), (), (), ())


def _rule(
    rule_id: str = "rate.x",
    action: Action = Action.CHANGE,
    family: Family = Family.IP,
    layer: str = "rate-limit",
    detail: str = "",
) -> RuleChange:
    origin = "policy.yaml:7: limits.per_source"
    return RuleChange(action, family, "raw", "C", layer, rule_id, "too fast", origin, detail)


def _text(plan: Plan, *, full: bool = False, brief: bool = False) -> str:
    return "\n".join(as_lines(plan, full=full, brief=brief))


def test_the_command_has_a_help_page_and_is_listed(sipfw: Sipfw) -> None:
    ran = sipfw("diff", "--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert all(option in ran.stdout for option in ("--json", "--full", "--backend", "--policy"))
    assert "  diff " in sipfw("--help").stdout


def test_only_root_sees_the_firewall(
    sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    ran = sipfw("diff", "--root", str(tmp_path))
    assert (ran.code, ran.stdout) == (4, "")
    assert ran.stderr.endswith("only root may see or change the firewall; use sudo\n")


def test_a_bad_policy_is_refused_before_anything_is_read(sipfw: Sipfw, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("profile: default\nbans: {duration: never}\n", encoding="utf-8")
    ran = sipfw("diff", "--root", str(tmp_path), "--policy", str(file))
    assert (ran.code, ran.stdout) == (3, "")
    assert f"{file}:2" in ran.stderr


def test_nothing_differs() -> None:
    assert _text(_SAME) == "nothing differs: the live firewall is what the policy says"


def test_both_families_and_all_parts_of_a_rule_are_one_line() -> None:
    rules = (_rule("rate.x/1"), _rule("rate.x/2"), _rule("rate.x", family=Family.IP6))
    text = _text(Plan(rules, (), (), (), ()))
    assert text.splitlines() == [
        "[rate-limit]",
        "changed  rate.x (IPv4, IPv6)  too fast  policy.yaml:7: limits.per_source",
        "",
        "an apply changes: rules: 1 changed",
    ]


def test_layers_stand_in_the_order_of_the_packets() -> None:
    rules = [_rule(layer=layer) for layer in ("host", "", "entry", "rate-limit")]
    lines = _text(Plan(tuple(rules), (), (), (), ())).splitlines()
    assert [line for line in lines if line.startswith("[")] == [
        "[entry]",
        "[rate-limit]",
        "[host]",
        "[other]",
    ]


def test_terminal_sequences_of_a_foreign_comment_are_shown_as_text() -> None:
    text = _text(Plan((_rule(detail="-A C --comment \x1b[2J"),), (), (), (), ()))
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


def test_twenty_members_are_shown_and_json_has_all() -> None:
    members = tuple(f"192.0.2.{n}" for n in range(30))
    change = SetChange(Action.CHANGE, "s4", "peers", "p:1: x", ("timeout 1 -> 2",), members, ("a",))
    plan = Plan((), (), (), (change,), ())
    lines = _text(plan).splitlines()
    assert lines[:2] == ["[sets]", "changed  s4: 30 added, 1 removed  peers  p:1: x"]
    assert lines[2] == "    timeout 1 -> 2"
    assert [line.strip() for line in lines if "+ " in line] == [
        *(f"+ {member}" for member in members[:20]),
        "+ and 10 more",
    ]
    assert "    - a" in lines
    data = json.loads(json.dumps(as_data(plan, "policy.yaml", "nftables")))
    assert data["sets"][0]["added"] == list(members)
    assert (data["same"], data["backend"], data["source"]) == (False, "nftables", "policy.yaml")


def test_a_fresh_host_is_counted_by_layer_unless_the_whole_is_asked_for() -> None:
    rules = tuple(_rule(f"r{n}", Action.ADD, layer="banned") for n in range(4))
    peers = SetChange(Action.ADD, "s4", "peers", "p:1: x", added=("192.0.2.1",))
    jump = JumpChange(Action.ADD, Family.IP, "raw", "INPUT", "way in", "built-in: hook")
    chain = ChainChange(Action.ADD, Family.IP, "raw", "C", "banned", 4)
    plan = Plan(rules, (jump,), (chain,), (peers,), (), fresh=True)
    text = _text(plan)
    assert "nothing of sipfw is live" in text
    assert "banned  4 added" in text
    assert "added  sets: 1  members: 1" in text
    assert "r0" not in text
    whole = _text(plan, full=True)
    assert all(word in whole for word in ("r0 (IPv4)", "raw C (IPv4)", "raw INPUT", "192.0.2.1"))
    assert "rules: 4 added; hooks: 1 added; chains: 1 added; sets: 1 added" in whole


def test_an_apply_counts_where_there_is_too_much_to_read() -> None:
    many = Plan(tuple(_rule(f"r{n}") for n in range(31)), (), (), (), ())
    assert "rate-limit  31 changed" in _text(many, brief=True)
    assert "r30 (IPv4)" in _text(many)
    few = Plan(many.rules[:30], (), (), (), ())
    assert "r29 (IPv4)" in _text(few, brief=True)


def test_settings_are_shown_from_and_to() -> None:
    change = SysctlChange("net.x", 1, 2, "p:1: x")
    text = _text(Plan((), (), (), (), (change,), fixed=(SysctlChange("net.y", None, 3, "p:2: y"),)))
    assert "changed  net.x  1 -> 2  p:1: x" in text
    assert "net.y stays absent, not 3: this host does not let it be set (p:2: y)" in text


class Ask(Protocol):
    def __call__(
        self, answer: str, *, plan: Plan, terminal: bool = True, ask: bool = True
    ) -> bool: ...


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return a function that answers the question of `apply`."""

    def asked(answer: str, *, plan: Plan, terminal: bool = True, ask: bool = True) -> bool:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return terminal

        monkeypatch.setattr("sipfw.deploy.plan.plan_apply", lambda *_: plan)
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        monkeypatch.setattr("sys.stderr", Terminal())
        return preview.agreed(Ruleset((), (), ()), NftBackend(), Layout(Path("/")), ask=ask)

    return asked


_CHANGE = Plan((_rule(),), (), (), (), ())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yep\n", False)],
)
def test_only_a_yes_is_a_yes(ask: Ask, answer: str, expected: bool) -> None:
    assert ask(answer, plan=_CHANGE) is expected


def test_nobody_is_asked_without_a_terminal_without_a_change_or_with_yes(ask: Ask) -> None:
    assert ask("n\n", plan=_CHANGE, terminal=False)
    assert ask("n\n", plan=_CHANGE, ask=False)
    assert ask("n\n", plan=_SAME)
