"""`--json` of the commands whose answer is what they did: what they say is collected, once, here.

docs/json.md describes the document, which is printed on success and on failure alike.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

from sipfw.diagnostics import Severity
from sipfw.errors import Exit, PolicyError, SipfwError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sipfw.diagnostics import Diagnostic

FORMAT = 1
_NO_FAILURE = {Exit.CLEAN, Exit.DIFFERENT, Exit.INCOMPLETE}
_OPTION = click.Option(
    ["--json", "print_json"], is_flag=True, help="Print what was done and said as JSON."
)


def with_json(command: click.Command, name: str) -> None:
    """Give a command `--json`, and its subcommands, where they have none of their own."""
    if isinstance(command, click.Group):
        for inner, found in command.commands.items():
            with_json(found, f"{name} {inner}")
        return
    work = command.callback
    if work is None or any("--json" in option.opts for option in command.params):
        return
    command.params.append(_OPTION)

    @wraps(work)
    def collecting(*, print_json: bool, **options: Any) -> Any:
        if not print_json:
            return work(**options)
        return answered(name, partial(work, **options))

    command.callback = collecting


def answered(name: str, work: Callable[[], int | None]) -> int:
    """Do the work of a command and print what it did and said; returns its exit code."""
    with collected(name) as answer:
        try:
            code = work() or Exit.CLEAN
        except click.exceptions.Exit as done:
            code = done.exit_code
    click.echo(json.dumps(answer.data(code), indent=2))
    return code


@dataclass(slots=True)
class Answer:
    """What one command has done and said so far. `changed` is None for one that only looks."""

    command: str
    began: float = field(default_factory=time.monotonic)
    changed: bool | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)

    def data(self, code: int) -> dict[str, Any]:
        """Return the document."""
        said: dict[str, Any] = {
            "format": FORMAT,
            "command": self.command,
            "exit": code,
            "changed": self.changed,
            **self.facts,
            "warnings": self.warnings,
            "messages": self.messages,
            "seconds": round(time.monotonic() - self.began, 3),
        }
        if code not in _NO_FAILURE:
            said["error"] = "\n".join(self.messages)
        return {**said, "output": "".join(self.output)} if self.output else said


_answers: list[Answer] = []


@contextmanager
def collected(command: str) -> Iterator[Answer]:
    """Collect what is said until the end."""
    answer = Answer(command)
    _answers.append(answer)
    try:
        yield answer
    finally:
        _answers.remove(answer)


def current() -> Answer | None:
    """Return what is being collected."""
    return _answers[-1] if _answers else None


def did(*, changed: bool | None, **facts: Any) -> None:
    """Note for `--json` whether anything was changed, and what is to be known of it.

    What only looks changes nothing that could be told: None.
    """
    if _answers:
        _answers[-1].changed = changed
        _answers[-1].facts.update(facts)


def heard(item: Diagnostic) -> None:
    """Note a remark."""
    if _answers:
        kind = "warnings" if item.severity is Severity.WARNING else "messages"
        getattr(_answers[-1], kind).append(str(item))


def failure(command: str, error: Exception, code: int) -> dict[str, Any]:
    """Return the document of a command that failed."""
    faults = [str(item) for item in error.diagnostics] if isinstance(error, PolicyError) else []
    hint = getattr(error, "hint", None) if isinstance(error, SipfwError) else None
    return {
        "format": FORMAT,
        "command": command,
        "exit": code,
        # What failed behind an exit code of 5 had gone live before: the message says what is now.
        "changed": None if code == Exit.ROLLED_BACK else False,
        "error": str(error),
        "hint": hint,
        "faults": faults,
    }
