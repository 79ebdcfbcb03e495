"""No command takes shipped values where a policy file is meant: what each one says instead."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from sipfw.cli.options import Choice
from sipfw.cli.which_policy import chosen_file
from sipfw.compare.expected import Expectation
from sipfw.deploy.applied import Applied, write_applied
from sipfw.deploy.generations import Content, write_generation
from sipfw.deploy.made_from import policy_file, policy_file_in_force
from sipfw.errors import Exit, PolicyError
from sipfw.host.files import Layout
from sipfw.ruleset.model import Ruleset

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

_REFUSED = "name it with --policy, or take shipped values with --policy none"


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("profile default", None),
        ("switch asterisk, profile wholesale, command line", None),
        ("profile default, /etc/sipfw/policy.yaml", "/etc/sipfw/policy.yaml"),
        ("switch asterisk, profile default, a, b.yaml, command line", "a, b.yaml"),
        ("profile default, \x1b[31m.yaml", "\x1b[31m.yaml"),
        ("command line", None),
        ("", None),
    ],
)
def test_the_file_in_a_source(source: str, file: str | None) -> None:
    assert policy_file(source) == file


def _in_force(root: Path, source: str) -> None:
    write_applied(Layout(root), Applied(Expectation((), (), (), ()), source, "nftables", 7))


@pytest.fixture
def made_from_file(tmp_path: Path) -> Path:
    """Return the root of a host whose firewall came from a file that is not in its usual place."""
    _in_force(tmp_path, "profile wholesale, /srv/sip.yaml")
    return tmp_path


def test_apply_without_any_policy_is_refused(tmp_path: Path, sipfw: Sipfw) -> None:
    for words in ((), ("--dry-run",), ("--set", "bans.duration=9m"), ("--switch", "asterisk")):
        ran = sipfw("apply", "--root", str(tmp_path), *words)
        assert (ran.code, ran.stdout) == (Exit.POLICY, "")
        assert ran.stderr == (
            f"no policy at {tmp_path}/etc/sipfw/policy.yaml; sipfw init writes one, --profile "
            "wholesale takes the shipped values\n"
        )


@pytest.mark.parametrize("words", [("apply", "--yes"), ("apply", "--profile", "wholesale")])
def test_apply_does_not_forget_the_file_in_force(
    made_from_file: Path, words: tuple[str, ...], sipfw: Sipfw
) -> None:
    ran = sipfw(*words, "--root", str(made_from_file))
    assert (ran.code, ran.stdout) == (Exit.POLICY, "")
    assert "what is in force was made from /srv/sip.yaml" in ran.stderr
    assert _REFUSED in ran.stderr


@pytest.mark.parametrize("command", ["diff", "check"])
def test_no_other_command_forgets_it(made_from_file: Path, command: str, sipfw: Sipfw) -> None:
    ran = sipfw(command, "--root", str(made_from_file))
    assert (ran.code, ran.stdout) == (Exit.POLICY, "")
    assert _REFUSED in ran.stderr
    asked = sipfw("check", "--root", str(made_from_file), "--profile", "wholesale")
    assert asked.code == Exit.CLEAN
    assert asked.stderr.startswith("warning: no policy at ")


def test_why_offline_does_not_forget_it(made_from_file: Path, sipfw: Sipfw) -> None:
    ran = sipfw("why", "--offline", "198.51.100.9", "--root", str(made_from_file))
    assert (ran.code, ran.stdout) == (Exit.POLICY, "")


def test_render_prints_the_default_and_warns_louder_there(
    made_from_file: Path, tmp_path: Path, sipfw: Sipfw
) -> None:
    fresh = sipfw("render", "--root", str(tmp_path / "fresh"))
    assert fresh.code == Exit.CLEAN
    assert fresh.stderr.startswith("no policy file: using shipped values; ")
    ran = sipfw("render", "--root", str(made_from_file))
    assert (ran.code, ran.stdout) == (Exit.CLEAN, fresh.stdout)
    assert ran.stderr.startswith("warning: no policy at ")
    assert "these are shipped values, not those of this host" in ran.stderr


def test_none_is_an_explicit_choice(made_from_file: Path, sipfw: Sipfw) -> None:
    (made_from_file / "etc/sipfw").mkdir(parents=True)
    (made_from_file / "etc/sipfw/policy.yaml").write_text("nonsense: {", encoding="utf-8")
    ran = sipfw("check", "--root", str(made_from_file), "--policy", "none")
    assert ran.code == Exit.CLEAN
    assert "no policy" not in ran.stderr


@pytest.mark.parametrize(("answer", "taken"), [("yes\n", True), ("\n", False), ("", False)])
def test_at_a_terminal_a_yes_takes_them(
    made_from_file: Path, answer: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sipfw.cli.which_policy.at_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    choice = Choice(None, "wholesale", None, (), made_from_file)
    if taken:
        assert chosen_file(choice, changes=True, prints=False) is None
    else:
        with pytest.raises(PolicyError):
            chosen_file(choice, changes=True, prints=False)


def test_a_damaged_record_leaves_the_generation_to_ask(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    source = "profile default, /srv/sip.yaml"
    content = Content(Ruleset((), (), ()), "nftables", ipset=True, source=source, policy="{}")
    write_generation(layout, content, None)
    (layout.generations / "1/confirmed.json").write_text("{}")
    layout.applied.write_text("{")
    assert policy_file_in_force(layout) == "/srv/sip.yaml"
