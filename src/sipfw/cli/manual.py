"""What `ban`, `unban`, `bans` and `trust` share: reading options, and saying what was done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

import click

from sipfw.cli.output import complain, remark, say
from sipfw.errors import Exit
from sipfw.words import format_duration, format_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from sipfw.manual.change import Obeyed
    from sipfw.manual.sources import Named

T = TypeVar("T")

# More lines than this about single addresses are counted, not listed.
_LISTED = 20


def option_value(name: str, text: str, read: Callable[[str], T]) -> T:
    """Read an option's value. Raises click.BadParameter."""
    try:
        return read(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from error


def read_guests(texts: Iterable[str]) -> list[IPv4Address | IPv6Address]:
    """Return the addresses, of networks too; one that is none ends the command, see `stop_at`."""
    from sipfw.manual.sources import parse_guests

    found = [address for each in _read_all(texts, parse_guests) for address in each]
    return list(dict.fromkeys(found))


def read_named(texts: Iterable[str]) -> list[Named]:
    """Return the addresses and networks; see `read_guests`."""
    from sipfw.manual.sources import parse_named

    return _read_all(texts, parse_named)


def _read_all(texts: Iterable[str], read: Callable[[str], T]) -> list[T]:
    found: list[T] = []
    faults: list[str] = []
    for text in texts:
        try:
            found.append(read(text))
        except ValueError as error:
            faults.append(str(error))
    stop_at(faults)
    return found


def stop_at(faults: Sequence[str]) -> None:
    """End the command, with a line for each fault, if there is one."""
    if faults:
        complain_all(faults)
        complain("nothing was changed")
        click.get_current_context().exit(Exit.USAGE)


def complain_all(lines: Sequence[str]) -> None:
    """Print a line each, and of very many the first ones."""
    for line in lines[:_LISTED]:
        complain(line)
    if len(lines) > _LISTED:
        complain(f"and {len(lines) - _LISTED:,} more")


def report(done: Obeyed) -> None:
    """Print what an order has brought with it."""
    for note in done.notes:
        complain(note)
    if done.made is not None:
        for note in done.made.notes:
            complain(f"note: {note}")
        remark(done.made.warnings)
        complain(f"the rule for it is in force now: generation {done.made.generation}")


def timed_text(source: object, seconds: float, until: float) -> str:
    """Say how long an order about an address or a prefix holds."""
    return f"{source} for {format_duration(seconds)}, until {format_timestamp(until)}"


def timed_cells(source: object, left: int | None, until: float) -> tuple[str, str, str]:
    """Return the first cells of a list: the address, what is left of its time, and the end."""
    if left is None:
        return str(source), "-", "-"
    return str(source), format_duration(left), format_timestamp(until)


def read_input(path: Path, most: int) -> str:
    """Read a file, or standard input for `-`. Raises click.BadParameter."""
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with path.open("rb") as file:
                data = file.read(most + 1)
        if len(data) > most:
            raise click.BadParameter(f"{path} is larger than {most:,} bytes", param_hint="--import")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{path} is no UTF-8 text", param_hint="--import") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise click.BadParameter(f"{path}: {reason}", param_hint="--import") from error


def write_output(path: Path, text: str) -> None:
    """Write a file of root's, or standard output for `-`. Raises click.BadParameter."""
    from sipfw.host.files import write_atomically

    if str(path) == "-":
        say(text, end="")
        return
    # A file takes the place of what was there: a device must not lose its own.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        message = f"{path} is not a plain file; write - for standard output"
        raise click.BadParameter(message, param_hint="--export")
    if not path.parent.is_dir():
        raise click.BadParameter(f"{path.parent} is not a folder", param_hint="--export")
    write_atomically(path, text)
