"""`--json` on every command: one document on stdout, whether it worked or not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import pytest

from sipfw.cli import cli
from sipfw.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Sipfw


def _commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())
        else:
            yield name, command


@pytest.mark.parametrize(("name", "command"), list(_commands()), ids=str)
def test_every_command_has_it(name: str, command: click.Command) -> None:
    options = {opt for param in command.params for opt in param.opts}
    assert "--json" in options, name


@pytest.mark.parametrize(
    "words",
    [
        "profiles",
        "profiles default",
        "check",
        "check --explain",
        "render --format sysctl",
        "init --output -",
        "why 198.51.100.7 --offline",
        "peer list",
        "schema",
    ],
)
def test_what_works_is_one_document(words: str, sipfw: Sipfw, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("trusted_peers: {carrier-a: 203.0.113.10}\n")
    policy.chmod(0o600)
    own = words.split(maxsplit=1)[0] in {"check", "render", "peer", "why"}
    more = ["--policy", str(policy)] if own else []
    ran = sipfw(*words.split(), *more, "--json")
    assert ran.code == Exit.CLEAN, ran.stderr
    assert json.loads(ran.stdout)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("nonsense", Exit.USAGE),
        ("apply --no-such-option", Exit.USAGE),
        ("ban not-an-address", Exit.USAGE),
        ("ban", Exit.USAGE),
        ("check --policy /nonexistent.yaml", Exit.POLICY),
        ("check --profile none-such", Exit.POLICY),
        ("peer test nobody 203.0.113.10 --policy POLICY", Exit.USAGE),
    ],
)
def test_what_fails_is_one_document(words: str, code: Exit, sipfw: Sipfw, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("profile: default\n")
    policy.chmod(0o600)
    ran = sipfw(*words.replace("POLICY", str(policy)).split(), "--json")
    assert ran.code == code
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["exit"] == code
    assert found["changed"] in {False, None}
    assert found["error"]
    assert ran.stderr
