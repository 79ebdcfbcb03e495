"""The examples on help pages: each command has some, and each can be typed as it stands.

They are read only, never run: what is missing or mistyped shows when the command line is parsed.
"""

from __future__ import annotations

import re
import shlex
from ipaddress import ip_address, ip_network

import click
import pytest

from sipfw.cli import cli
from sipfw.cli.examples import EXAMPLES, FIRST_STEPS

COMMANDS = cli.list_commands(click.Context(cli))
DOCUMENTATION = [
    ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
LINES = [(name, line) for name in COMMANDS for line in EXAMPLES[name]]


def _help(*arguments: str, width: int = 80) -> str:
    context = cli.make_context("sipfw", [*arguments, "--help"], resilient_parsing=True)
    if not arguments:
        return cli.get_help(click.Context(cli, info_name="sipfw", terminal_width=width))
    command = cli.get_command(context, arguments[0])
    assert command is not None
    own = click.Context(command, info_name=arguments[0], parent=context, terminal_width=width)
    return command.get_help(own)


def test_every_command_has_two_or_three() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    assert {name: len(lines) for name, lines in EXAMPLES.items() if len(lines) not in {2, 3}} == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_them_line_by_line(name: str) -> None:
    shown = _help(name).splitlines()
    place = shown.index("  Examples:")
    assert shown[place + 1 :] == [f"    {line}" for line in EXAMPLES[name]]
    assert max(map(len, shown[place:])) <= 80


def test_the_first_steps_are_on_the_first_page() -> None:
    assert [f"    {line}" for line in FIRST_STEPS] == _help().splitlines()[-len(FIRST_STEPS) :]


@pytest.mark.parametrize(("name", "line"), [*LINES, *((None, line) for line in FIRST_STEPS)])
def test_each_can_be_typed(name: str | None, line: str) -> None:
    """What stands behind a pipe, `||` or a redirection is the shell's, or a command of its own."""
    parts = re.split(r" (?:\|\|?|&&|>) ", line)
    for part in [part for part in parts if part.startswith("sipfw ")]:
        words = shlex.split(part)
        context = cli.make_context("sipfw", words[1:])
        found, command, rest = cli.resolve_command(context, words[1:])
        assert command is not None
        command.make_context(found, rest, parent=context)
    assert parts[0].startswith("sipfw ")
    assert name is None or shlex.split(parts[0])[1] == name


def test_an_option_that_is_not_there_would_show() -> None:
    with pytest.raises(click.NoSuchOption):
        test_each_can_be_typed("check", "sipfw check --no-such-option | less")


def test_they_name_addresses_for_documentation_only() -> None:
    text = " ".join(line for _, line in LINES)
    words = re.findall(r"[0-9a-f]+(?:[.:]+[0-9a-f]+){3}|2001:[0-9a-f:]+", text)
    found = [ip_address(word) for word in words]
    assert len(found) >= 8
    assert [item for item in found if not any(item in network for network in DOCUMENTATION)] == []
