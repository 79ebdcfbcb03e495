"""A terminal of a given size with one program in it; what it shows is read as text.

Knows no program. The screen is that of an xterm with 256 colours.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pyte

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType


def _plain_environment() -> dict[str, str]:
    """Leave out a size that somebody else has set: pytest-xdist sets COLUMNS for its workers."""
    return {name: text for name, text in os.environ.items() if name not in {"COLUMNS", "LINES"}}


class Terminal:
    """Runs `argv` with a terminal of its own as its standard streams.

    `written` is all that it wrote; the alternate screen is not told from the first one.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        columns: int = 100,
        lines: int = 40,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        self._leader, follower = pty.openpty()
        self._set_size(columns, lines)
        self.settings = termios.tcgetattr(follower)
        self._process = subprocess.Popen(
            # setsid makes it the controlling terminal, so that ^C and a new size are signals; tests
            # in the background of a script have ^C ignored, a login has not.
            ["setsid", "--ctty", "--wait", "env", "--default-signal=INT", *argv],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={
                **_plain_environment(),
                "TERM": "xterm-256color",
                "LC_ALL": "C.UTF-8",
                **(env or {}),
            },
        )
        # Kept open: what the program wrote last must not be lost when it ends.
        self._follower = follower

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._leader)
        os.close(self._follower)

    @property
    def text(self) -> str:
        """What stands on the screen, without blanks at the ends of lines."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def screen(self) -> pyte.Screen:
        """The screen with the colour of every character."""
        return self._screen

    def wait_for(self, text: str, seconds: float = 20.0) -> str:
        """Read until the text stands on the screen, and return the whole screen."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            if time.monotonic() > deadline:
                raise AssertionError(f"{text!r} never came; the screen was:\n{self.text}")
            self._read(0.1)
        return self.text

    def keep_reading(self, seconds: float) -> None:
        """Follow the program for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._read(0.05)

    def type(self, keys: str) -> None:
        """Press keys; `\\x03` is ^C."""
        os.write(self._leader, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, as dragging its window does."""
        self._screen.resize(lines, columns)
        self._set_size(columns, lines)

    def end(self, seconds: float = 20.0) -> int:
        """Wait for the program's end and return its exit code."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end; the screen was:\n{self.text}")
            self._read(0.05)
        self._read(0.05)
        return self._process.returncode

    def current_settings(self) -> list[object]:
        """Return the terminal's settings; compare with `settings`."""
        return termios.tcgetattr(self._follower)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self, seconds: float) -> None:
        ready, _, _ = select.select([self._leader], [], [], seconds)
        if ready:
            with suppress(OSError):
                data = os.read(self._leader, 65536)
                self.written += data
                self._stream.feed(data)
