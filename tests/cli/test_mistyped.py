"""Mistyped words: the near one is named, and none where nothing is near."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from sipfw.cli import cli
from sipfw.cli.usage import _ELSEWHERE, one_line
from sipfw.errors import Exit
from sipfw.policy.load import shipped_profiles, shipped_switches
from sipfw.words import nearest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

COMMANDS = cli.list_commands(click.Context(cli))


def _said(*arguments: str) -> str:
    """Return what is said of a command line. It is only read: no command may run here."""
    try:
        context = cli.make_context("sipfw", list(arguments))
        name, command, rest = cli.resolve_command(context, list(arguments))
        assert command is not None
        command.make_context(name, rest, parent=context)
    except click.ClickException as error:
        return one_line(error)
    pytest.fail(f"{arguments} is no mistake")


def _swapped(name: str) -> str:
    """Swap two letters that differ."""
    place = next(n for n in range(1, len(name) - 1) if name[n] != name[n + 1])
    return name[:place] + name[place + 1] + name[place] + name[place + 2 :]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_two_letters_swapped_is_recognized(name: str) -> None:
    typed = _swapped(name)
    assert typed not in COMMANDS
    assert _said(typed) == f"Error: No such command '{typed}'; did you mean {name}?"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("status", "verify"), ("start", "apply"), ("stop", "remove"), ("unblock", "unban")],
)
def test_a_command_of_another_tool_is_recognized(typed: str, meant: str) -> None:
    assert _said(typed) == f"Error: No such command '{typed}'; did you mean {meant}?"


def test_what_other_tools_say_leads_to_commands_that_exist() -> None:
    words = [word for text in _ELSEWHERE.values() for word in text.split()]
    assert set(_ELSEWHERE) <= set(COMMANDS)
    assert not set(words) & set(COMMANDS)
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("check --polcy x", "No such option '--polcy'; did you mean --policy?"),
        ("why 192.0.2.1 --ofline", "No such option '--ofline'; did you mean --offline?"),
        ("--verison", "No such option '--verison'; did you mean --version?"),
        ("apply --zzz", "No such option '--zzz'; see sipfw apply --help"),
        ("apply --backend iptabels", "; did you mean iptables?"),
        ("apply --backend nft", "; did you mean nftables?"),
        ("top --layer baned", "; did you mean banned?"),
        ("render --format xyzzy", "'sysctl'; see sipfw render --help"),
        ("xyzzy", "No such command 'xyzzy'; see sipfw --help"),
    ],
)
def test_options_and_their_values(arguments: str, said: str) -> None:
    text = _said(*arguments.split())
    assert text.endswith(said)
    assert text.isprintable()


def test_main_says_it_on_stderr_with_the_code_of_usage(sipfw: Sipfw) -> None:
    ran = sipfw("xyzzy")
    assert (ran.code, ran.stdout) == (Exit.USAGE, "")
    assert ran.stderr == "Error: No such command 'xyzzy'; see sipfw --help\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--profile wholsale", "did you mean wholesale?"),
        ("--profile RETAIL", "did you mean retail?"),
        ("--switch FreePBX", "did you mean freepbx?"),
        ("--switch freswitch", "did you mean freeswitch?"),
        ("--profile asterisk", "it is a switch, write --switch asterisk"),
        ("--set switch=retail", "it is a profile, write --profile retail"),
        ("--switch avaya", f"known: {', '.join(shipped_switches())}"),
        ("--profile xyzzy", f"known: {', '.join(shipped_profiles())}"),
    ],
)
def test_profiles_and_switches(arguments: str, said: str, sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("check", "--root", str(tmp_path), *arguments.split())
    assert ran.code == Exit.POLICY
    assert ran.stderr.endswith(f"; {said}\n")


def test_a_file_is_told_the_line_to_write(sipfw: Sipfw, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("switch: retail\n")
    assert sipfw("check", "-f", str(policy)).stderr.endswith("profile, write profile: retail\n")


def test_profiles_knows_near_switches_too(sipfw: Sipfw) -> None:
    assert sipfw("profiles", "asterix").stderr.endswith("known switch; did you mean asterisk?\n")


@pytest.mark.parametrize("typed", ["\x1b[31mverify", "ver\nify", "$(reboot)", "é" * 5000, "\x07"])
def test_what_is_typed_is_never_shown_raw(typed: str) -> None:
    assert _said(typed).isprintable()
    assert _said("check", f"--{typed}").isprintable()
    assert _said("top", "--layer", typed).isprintable()


def test_nothing_near_is_nothing() -> None:
    words = ["verify", "apply", "nftables", "iptables", "iptables-nft"]
    assert nearest("vrify", words) == "verify"
    assert nearest("NFT", words) == "nftables"
    for far in ("", "x", "nf", "kernel", "ip"):
        assert nearest(far, words) is None
