"""Read-only access to the host: bounded reads below /proc, /sys and one root, and its rules.

A file may be anything that somebody with access to its folder made of it: binary, endless, a pipe,
a link to a device. Whatever cannot be read is a CannotTellError, never a wait.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sipfw.compare.live import Live
from sipfw.deploy.applied import Applied, read_applied
from sipfw.errors import BackendError
from sipfw.host.bounded_files import MODULE_LIST, OddFileError, read_at_most
from sipfw.host.files import Layout
from sipfw.host.runner import HOST_PATH, Runner, SubprocessRunner
from sipfw.kernel.backend import Side, backend_names, backend_of
from sipfw.kernel.detect import look
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.findings import AbsentError, CannotTellError, DamagedError
from sipfw.monitor.doctor.rules import HostRules, read_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from sipfw.kernel.detect import PacketFilters as PacketFilter

Answer = TypeVar("Answer")

_NOTHING = Live((), (), ())
_SETTING = 4096
_TEXT = 1 << 20
# A record of 100,000 peers has 20 MB.
_RECORD = 1 << 28
_ENTRIES = 1000
_NAMES = {Family.IP: "ip_tables_names", Family.IP6: "ip6_tables_names"}
_MEMBERS = re.compile(r"\belements = \{([^}]*)\}")
_DEPENDENCY = re.compile(r"^[^:\n]*/([\w-]+)\.ko", re.MULTILINE)


def _installed(name: str) -> bool:
    return shutil.which(name, path=HOST_PATH) is not None


def _live(applied: Applied) -> Live:
    return backend_of(applied.backend).live(applied.expectation)


@dataclass(frozen=True)
class HostView:
    """One host; everything that a test wants to invent is a field.

    `log_reader` is whom the policy file wants log lines for, `log` or `nflog`. `own_table` tells
    whether `rules` holds those of our own table of nftables too.
    """

    root: Path = Path("/")
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    modules: Path = Path("/lib/modules")
    runner: Runner = field(default_factory=SubprocessRunner)
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    now: float = field(default_factory=time.time)
    owner: int = 0
    log_reader: str | None = None
    own_table: bool = True
    installed: Callable[[str], bool] = _installed
    read_live: Callable[[Applied], Live] = _live

    @property
    def layout(self) -> Layout:
        """Where sipfw keeps its files."""
        return Layout(self.root)

    def require_root(self) -> None:
        """Raise CannotTellError for anybody but root."""
        if not self.is_root:
            raise CannotTellError("only root can see this; use sudo")

    def setting(self, name: str) -> int:
        """Return a kernel setting; AbsentError where the kernel has none of that name."""
        path = self.proc.joinpath("sys", *name.split("/"))
        text = read_bounded(path, _SETTING).strip()
        try:
            return int(text)
        except ValueError:
            raise CannotTellError(f"{path} holds no number") from None

    def text(self, path: Path) -> str:
        """Return a small text file, with every wrong byte replaced."""
        return read_bounded(path, _TEXT)

    @cached_property
    def loaded_modules(self) -> frozenset[str]:
        """Name the loaded modules; a kernel without loadable modules has no /proc/modules."""
        try:
            lines = self.text(self.proc / "modules").splitlines()
        except AbsentError:
            return frozenset()
        return frozenset(line.split()[0] for line in lines if line.strip())

    def has_module(self, name: str) -> bool:
        """Tell whether a module is loaded, or built in with parameters or a version."""
        return name in self.loaded_modules or (self.sys / "module" / name).is_dir()

    @cached_property
    def release(self) -> str:
        """The running kernel."""
        return self.text(self.proc / "sys/kernel/osrelease").strip()

    @cached_property
    def loadable_modules(self) -> frozenset[str]:
        """Name what the kernel can load or has built in; CannotTellError without its lists."""
        if not re.fullmatch(r"\w[\w.+~-]{0,199}", self.release):
            raise CannotTellError("the kernel's name for itself is not a folder name")
        folder = self.modules / self.release
        found = set()
        for name in ("modules.dep", "modules.builtin"):
            text = read_bounded(folder / name, MODULE_LIST)
            found |= {item.replace("-", "_") for item in _DEPENDENCY.findall(text)}
        return frozenset(found)

    @cached_property
    def _legacy_families(self) -> tuple[Family, ...]:
        """The families with legacy tables; to ask the tools about another one might load modules.

        The file can be read by root only, and is not there without the legacy core.
        """
        found = []
        for family, name in _NAMES.items():
            try:
                if self.text(self.proc / "net" / name).split():
                    found.append(family)
            except AbsentError:
                continue
        return tuple(found)

    # A program that does not answer must not be waited for by every check in turn, so that a
    # failure is remembered like an answer.
    @cached_property
    def _rules(self) -> HostRules | CannotTellError:
        try:
            return read_rules(
                self.runner, self._legacy_families, self.installed, own_table=self.own_table
            )
        except BackendError as error:
            return CannotTellError(f"the rules cannot be listed: {error}")

    @cached_property
    def _filter(self) -> PacketFilter | CannotTellError:
        try:
            return look(self.runner, self.proc, self.modules, self.installed)
        except BackendError as error:
            return CannotTellError(f"the rules cannot be listed: {error}")

    @property
    def rules(self) -> HostRules:
        """All rules of this network namespace. Needs root."""
        self.require_root()
        return _known(self._rules)

    def members_of(self, family: str, table: str, name: str) -> str | None:
        """Return the members of a named set or map as nft lists them; None where it cannot."""
        for kind in ("set", "map"):
            try:
                done = self.runner.run(["nft", "list", kind, family, table, name])
            except BackendError:
                return None
            if done.returncode == 0:
                found = _MEMBERS.search(done.stdout)
                return "" if found is None else found[1]
        return None

    @property
    def packet_filter(self) -> PacketFilter:
        """Which packet filter the host uses. Needs root."""
        self.require_root()
        return _known(self._filter)

    @cached_property
    def applied(self) -> Applied | None:
        """The record of the last apply, None where there is none."""
        path = self.layout.applied
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot_read(path, error) from error
        if not stat.S_ISREG(found.st_mode):
            raise DamagedError(f"{path} is not a file")
        if found.st_size > _RECORD:
            raise DamagedError(f"{path} is too large")
        try:
            applied = read_applied(self.layout)
        except BackendError as error:
            denied = isinstance(error.__cause__, PermissionError)
            raise (CannotTellError if denied else DamagedError)(str(error)) from error
        if applied is not None and applied.backend not in backend_names():
            raise DamagedError(f"{path}: backend {applied.backend!r} is not known")
        return applied

    @cached_property
    def live(self) -> Live:
        """What of the last apply is in the kernel. Needs root."""
        applied = self.applied
        if applied is None:
            return _NOTHING
        self.require_root()
        # Without legacy tables their tools are not started.
        side = backend_of(applied.backend).facts.side
        if side is Side.LEGACY and not self._legacy_families:
            return _NOTHING
        return self.read_live(applied)

    @property
    def runs_our_rules(self) -> bool:
        """Whether a rule of the last apply is live: a flush leaves our chains behind, empty."""
        rules = [rule for chain in self.live.chains for rule in chain.rules]
        rules += [jump.rule for jump in self.live.jumps]
        return any(rule.rule_id is not None for rule in rules)


def _known(answer: Answer | CannotTellError) -> Answer:
    if isinstance(answer, CannotTellError):
        raise answer
    return answer


def read_bounded(path: Path, limit: int) -> str:
    """Return a file's text. AbsentError where there is none, CannotTellError for anything odd."""
    try:
        return read_at_most(path, limit)
    except (FileNotFoundError, NotADirectoryError):
        raise AbsentError(f"{path} is not there") from None
    except OSError as error:
        raise cannot_read(path, error) from error
    except OddFileError as error:
        raise CannotTellError(str(error)) from error


def entries(folder: Path) -> list[str]:
    """Name what a folder holds, at most a thousand; nothing where there is no folder."""
    try:
        with os.scandir(folder) as found:
            return sorted(item.name for item in islice(found, _ENTRIES))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_read(folder, error) from error


def cannot_read(path: Path, error: OSError) -> CannotTellError:
    """Say which file could not be read and why."""
    reason = (error.strerror or str(error)).lower()
    hint = "; use sudo" if isinstance(error, PermissionError) else ""
    return CannotTellError(f"{path} cannot be read: {reason}{hint}")
