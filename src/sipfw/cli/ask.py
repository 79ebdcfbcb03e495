"""The question before what cannot be taken back, and only at a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sipfw.cli.output import complain

if TYPE_CHECKING:
    from collections.abc import Iterable


def at_terminal() -> bool:
    """Tell whether somebody can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed_to_lose(losses: Iterable[str], question: str, *, yes: bool) -> bool:
    """Say what an order ends and ask for it; without a terminal, and with `yes`, it is agreed."""
    if yes or not at_terminal():
        return True
    for loss in losses:
        complain(loss)
    if ask(question):
        return True
    complain("nothing was changed")
    return False


def ask(question: str) -> bool:
    """Ask on stderr, whether or not there is a terminal; anything but yes is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:  # end of input leaves the cursor behind the question
        complain("")
    return answer.strip().lower() in {"y", "yes"}
