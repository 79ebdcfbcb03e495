"""Starts sipfw at boot: systemd units that restore the firewall and follow host names.

On a host that systemd does not run there is an init script instead, which the operator installs.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.deploy.activate import current
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.host.bounded_files import OddFileError, read_at_most
from sipfw.host.files import cannot_write, write_atomically
from sipfw.host.runner import SubprocessRunner
from sipfw.render.service import (
    BOOT_UNIT,
    SETS_UNIT,
    TIMERS,
    UNITS,
    init_text,
    unit_texts,
)
from sipfw.resources import package_folder
from sipfw.saved.places import starts_at_boot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sipfw.host.files import Layout
    from sipfw.host.runner import Runner

_UNITS = "etc/systemd/system"
_INIT = "etc/init.d/sipfw"
_INITS = (_INIT, "etc/init.d/sipfw-sets")
# Where packages put their units; what is a link there is an alias of another one.
_PACKAGED = ("usr/lib/systemd/system/ipset.service", "lib/systemd/system/ipset.service")
_LARGEST_UNIT = 1 << 16
_MARK = "# Written by `sipfw install-service`"
_BOOT = (BOOT_UNIT, SETS_UNIT)
ENABLED = (*_BOOT, *TIMERS)
# There while systemd is process 1, see sd_booted(3).
_BOOTED = Path("/run/systemd/system")
# What needs no quoting in a unit: systemd refuses quotes and backslashes in a program's path.
_PLAIN = re.compile(r"[A-Za-z0-9/._+@:,=-]+")

WITHOUT_SYSTEMD = (
    "either sipfw install-service --format sysv > /etc/init.d/sipfw, then chmod 755 it and "
    "update-rc.d sipfw defaults (or chkconfig --add sipfw), and the same with --format sysv-sets "
    "and /etc/init.d/sipfw-sets; or sipfw render > "
    "/etc/sipfw/firewall.sh, and in /etc/rc.local the line: sh /etc/sipfw/firewall.sh"
)


@dataclass(frozen=True, slots=True)
class Systemd:
    """The systemd that reads the units below a root folder: this host's, or that of an image."""

    root: Path
    runner: Runner
    booted: bool

    @property
    def live(self) -> bool:
        """Tell whether the root folder is that of this host."""
        return self.root == Path("/")

    @property
    def answers(self) -> bool:
        """Tell whether there is anybody to tell about units."""
        return self.booted or not self.live

    def enable(self) -> None:
        """Have the units start at boot, and the timers at once. Raises BackendError."""
        self._must("enable", *_BOOT)
        # The firewall itself is live already, or not wanted yet: its unit is not started.
        self._must("enable", *(["--now"] if self.live else []), *TIMERS)

    def disable(self) -> None:
        """Have them start no more. Raises BackendError."""
        self._must("disable", *(["--now"] if self.live else []), *ENABLED)

    def reload(self) -> None:
        """Have systemd read its units again. Raises BackendError."""
        if self.live:
            self._must("daemon-reload")

    def _must(self, verb: str, *words: str) -> None:
        where = [] if self.live else [f"--root={self.root}"]
        argv = ["systemctl", *where, verb, *words]
        done = self.runner.run(argv)
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            raise BackendError(f"{' '.join(argv)}: {said}")


def systemd(layout: Layout, runner: Runner | None = None, booted: bool | None = None) -> Systemd:
    """Return the systemd of a root folder."""
    return Systemd(
        layout.root.resolve(),
        runner or SubprocessRunner(),
        _BOOTED.is_dir() if booted is None else booted,
    )


def this_command(argv0: str) -> tuple[str, ...]:
    """Return the command line that runs this sipfw from anywhere."""
    program = Path(argv0).absolute()
    if program.name == "sipfw" and program.is_file() and os.access(program, os.X_OK):
        return (str(program),)
    return (sys.executable, "-I", "-m", "sipfw")


def install(layout: Layout, command: Sequence[str], manager: Systemd, *, enable: bool) -> list[str]:
    """Write the units, have systemd read and enable them; return the paths that were written.

    Running it again mends what is missing. Raises BackendError.
    """
    if not manager.answers:
        raise BackendError("systemd does not run this host", hint=WITHOUT_SYSTEMD)
    root = str(manager.root)
    _require_plain(*command, root)
    texts = unit_texts(command, root, ipset_unit=_has_ipset_unit(layout.root))
    folder = layout.root / _UNITS
    foreign = [name for name in texts if _exists(folder / name) and not _is_ours(folder / name)]
    if foreign:
        raise BackendError(
            f"{folder / foreign[0]}: is there and not written by sipfw",
            hint="nothing was changed; move it away, or keep it and do without this command",
        )
    written = [str(folder / name) for name, text in texts.items() if _written(folder / name, text)]
    try:
        manager.reload()
        if enable:
            manager.enable()
    except BackendError as error:
        raise BackendError(
            f"the units are in {folder}, but not enabled: {error.message}",
            hint=error.hint or "mend that and run sipfw install-service again",
        ) from error
    return written


def uninstall(layout: Layout, manager: Systemd) -> list[Diagnostic]:
    """Disable and delete the units that `install` wrote; say so, and what stays."""
    folder = layout.root / _UNITS
    found = [name for name in UNITS if _is_ours(folder / name)]
    said = [_note(text) for text in _init_left(layout)]
    if not found:
        return said
    if manager.answers:
        said += _tried(manager.disable)
    for name in found:
        said += _deleted(folder / name)
        # systemctl has done that, unless there was none to do it.
        for wants in folder.glob("*.wants"):
            said += _deleted(wants / name) if (wants / name).is_symlink() else []
    if manager.answers:
        said += _tried(manager.reload)
    return [_note(f"disabled and deleted: {', '.join(found)}"), *said]


def init_script(layout: Layout, command: Sequence[str], *, sets: bool = False) -> str:
    """Return an init script for a host without systemd; with `sets` the one that comes first."""
    root = str(layout.root.resolve())
    _require_plain(*command, root)
    return init_text(command, root, sets=sets)


def boot_parts(layout: Layout) -> frozenset[str]:
    """Say what is ready for the next boot, of three things.

    `sets` that saved rules name are made, `load`: what nft refused is loaded, `possible`: a
    firewall is in force, so that there is something to install.
    """
    found = set()
    if starts_at_boot(layout.root, "sipfw-sets"):
        found.add("sets")
    if starts_at_boot(layout.root, "sipfw") and _loads_others(layout.root):
        found.add("load")
    if layout.state.exists() and current(layout).backend is not None:
        found.add("possible")
    return frozenset(found)


def _loads_others(root: Path) -> bool:
    """Tell whether a unit or init script of ours is of a version that does."""
    for path in (root / _UNITS / BOOT_UNIT, root / _INIT):
        with suppress(OSError, OddFileError):
            if "saved --load" in read_at_most(path, _LARGEST_UNIT):
                return True
    return False


def _has_ipset_unit(root: Path) -> bool:
    return any((root / path).is_file() and not (root / path).is_symlink() for path in _PACKAGED)


def doubts(command: Sequence[str]) -> list[Diagnostic]:
    """Warn where somebody else than root could change what root will run at every boot."""
    places = (Path(command[0]).resolve(), package_folder())
    for place in places:
        for path in (place, *place.parents):
            if _may_be_changed(path):
                message = (
                    f"others than root may change {path}, and with it what root runs at boot; "
                    "install sipfw where only root writes"
                )
                return [Diagnostic(message, severity=Severity.WARNING)]
    return []


def _may_be_changed(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return True
    # In a sticky folder nobody replaces what is root's.
    open_to_all = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    return found.st_uid != 0 or bool(open_to_all)


def _require_plain(*words: str) -> None:
    for word in words:
        if not _PLAIN.fullmatch(word):
            raise BackendError(
                f"{word!r}: cannot stand in a unit or an init script",
                hint="use a path of letters, digits and / . _ + @ : , = -",
            )


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _is_ours(path: Path) -> bool:
    try:
        if path.is_symlink():
            return False
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(_MARK)
    except OSError:
        return False


def _written(path: Path, text: str) -> bool:
    """Write a unit unless it is there, as it should be."""
    with suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == 0o644:
            return False
    try:
        # systemd's folders are everybody's to read.
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_atomically(path, text, mode=0o644)
    return True


def _deleted(path: Path) -> list[Diagnostic]:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return [Diagnostic(f"{path}: cannot be deleted: {reason}", severity=Severity.WARNING)]
    return []


def _tried(step: Callable[[], None]) -> list[Diagnostic]:
    try:
        step()
    except BackendError as error:
        return [Diagnostic(str(error), severity=Severity.WARNING)]
    return []


def _init_left(layout: Layout) -> Iterator[str]:
    """Name the init scripts: they were put there by hand, and so were their links."""
    for path in _INITS:
        if (layout.root / path).exists():
            name = Path(path).name
            yield (
                f"{layout.root / path} stays and finds nothing to restore; take it out with "
                f"update-rc.d {name} disable (or chkconfig --del {name}), and delete it"
            )


def _note(text: str) -> Diagnostic:
    return Diagnostic(text, severity=Severity.NOTE)
