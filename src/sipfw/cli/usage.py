"""What is wrong with a command line, in one line, and what was probably meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from sipfw.words import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

# What other tools, and services, call what a command of ours does.
_ELSEWHERE = {
    "verify": "status show list counters stats",
    "apply": "start load install enable activate reload restart update",
    "remove": "stop disable uninstall flush clear delete off",
    "check": "validate lint configtest",
    "ban": "block drop deny banip",
    "unban": "unblock unbanip free pardon",
    "trust": "allow whitelist permit",
    "history": "log logs generations",
    "doctor": "diagnose health",
    "why": "explain trace ask",
    "bans": "banned blocked",
    "feeds": "lists blocklists",
    "restore": "boot",
    "init": "new setup create",
    "rollback": "undo revert back",
}
_OF_CHOICE = re.compile(r"'(.*)' is not one of ", re.DOTALL)


def unknown_command(name: str, known: Iterable[str]) -> str:
    """Name a command that is none, and the one that is near or is called so elsewhere."""
    near = nearest(name, known)
    meant = next((own for own, words in _ELSEWHERE.items() if name.lower() in words.split()), near)
    return f"No such command '{name}'" + (f"; did you mean {meant}?" if meant else "")


def one_line(error: click.ClickException) -> str:
    """Say what is wrong, and where the help is where it is not said already."""
    text = " ".join(_text(error).split()).removesuffix(".")
    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    context = error.ctx if isinstance(error, click.UsageError) else None
    # What comes behind a semicolon, and a question, say what to do already.
    hint = (
        ""
        if context is None or ";" in text or text.endswith("?")
        else f"; see {context.command_path} --help"
    )
    return f"Error: {text}{hint}"


def _text(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        options = [name for item in error.ctx.command.params for name in item.opts]
        near = nearest(error.option_name, [name for name in options if name.startswith("--")])
        said = f"No such option '{error.option_name}'"
        return f"{said}; did you mean {near}?" if near else said
    text = error.format_message()
    if isinstance(error, click.BadParameter) and (near := _near_choice(error)):
        return f"{text.removesuffix('.')}; did you mean {near}?"
    return text


def _near_choice(error: click.BadParameter) -> str | None:
    found = _OF_CHOICE.match(error.message)
    kind = None if error.param is None else error.param.type
    if found is None or not isinstance(kind, click.Choice):
        return None
    return nearest(found[1], map(str, kind.choices))
