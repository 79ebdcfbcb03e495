"""The question before what cannot be taken back, and only at a terminal."""

from __future__ import annotations

import sys

from sipfw.cli.output import complain


def at_terminal() -> bool:
    """Tell whether somebody can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """Ask on stderr, whether or not there is a terminal; anything but yes is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:  # end of input leaves the cursor behind the question
        complain("")
    return answer.strip().lower() in {"y", "yes"}
