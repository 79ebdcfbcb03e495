"""Why a module is not to be had here, and the command that helps on this system.

Looks only, and never loads anything. Everything that is read may be missing or odd.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from platform import release
from typing import TYPE_CHECKING

from sipfw.host.bounded_files import MODULE_LIST, OddFileError, read_at_most
from sipfw.kernel.distribution import NOT_BUILT, Distribution, read_distribution
from sipfw.kernel.modules import config_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# CAP_SYS_MODULE in include/uapi/linux/capability.h.
_MAY_LOAD = 1 << 16
_SMALL = 1 << 16
_FILES = 200
_FORBIDDING = re.compile(r"^\s*(blacklist|install)\s+([\w-]+)(.*)$")
_CONFIGURATION = ("etc/modprobe.d", "run/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d")
# RHEL 10.2 (kernel 6.12.0-211) moved them there from kernel-modules-core.
_IN_EXTRA = re.compile(r"nft_compat|xt_\w+|ip_set\w*|ip6?t_REJECT")


@dataclass(frozen=True, slots=True)
class Help:
    """What is known of the lack, and what to run; either may be missing."""

    cause: str | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """Where the facts are read; a test invents them."""

    root: Path = Path("/")
    proc: Path = Path("/proc")
    modules: Path = Path("/lib/modules")
    release: str = field(default_factory=release)

    def help_for(self, modules: Sequence[str]) -> Help:
        """Say why these modules are missing and what helps. Empty where nothing is known."""
        listed = self._listed()
        here = [name for name in modules if name in listed]
        if here:
            return self._not_loaded(here)
        if not self._may_load():
            return Help(
                "this container may not load modules, its host has to",
                f"on the host: modprobe -a {' '.join(modules)}",
            )
        if not listed and self._has_others():
            return Help(f"the modules of the running kernel {self.release} are gone", "reboot")
        command = self.distribution.modules_command(modules)
        if command is None:
            names = ", ".join(map(config_of, modules))
            return Help(_known(modules) or f"it takes a kernel with {names}")
        return Help(_known(modules), command)

    @property
    def distribution(self) -> Distribution:
        """What /etc/os-release says."""
        return read_distribution(self.root)

    def _not_loaded(self, modules: Sequence[str]) -> Help:
        """Say why the kernel did not load what it has."""
        names = " ".join(modules)
        if self._text(self.proc / "sys/kernel/modules_disabled", _SMALL).strip() == "1":
            return Help(
                "kernel.modules_disabled=1 forbids to load any until the next boot",
                f"printf '%s\\n' {names} >/etc/modules-load.d/sipfw.conf && reboot",
            )
        if not self._may_load():
            return Help(
                "this container may not load modules, its host has to",
                f"on the host: modprobe -a {names}",
            )
        for name in modules:
            for verb, place in self._forbidden(name):
                if verb == "install":
                    return Help(f"{place} replaces {name}", f"take that line out; modprobe {name}")
                # `blacklist` only stops loading by an alias, which is how the kernel asks.
                return Help(f"{place} forbids {name}", f"modprobe -a {names}")
        program = self._text(self.proc / "sys/kernel/modprobe", _SMALL).strip() or "/sbin/modprobe"
        if not self.root.joinpath(program.lstrip("/")).exists():
            return Help(f"there is no {program}", self.distribution.kmod_command())
        return Help("it is not loaded", f"modprobe -a {names}")

    def _listed(self) -> frozenset[str]:
        """Name the modules that the running kernel has as files or built in."""
        found: set[str] = set()
        for name in ("modules.dep", "modules.builtin"):
            text = self._text(self.modules / self.release / name, MODULE_LIST)
            stems = re.findall(r"^[^:\n]*/([\w-]+)\.ko", text, re.MULTILINE)
            found |= {stem.replace("-", "_") for stem in stems}
        return frozenset(found)

    def _has_others(self) -> bool:
        """Tell whether another kernel's modules are there, as after an update."""
        try:
            return any(item.is_dir() for item in self.modules.iterdir())
        except OSError:
            return False

    def _may_load(self) -> bool:
        status = self._text(self.proc / "self/status", _SMALL)
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
        return found is None or bool(int(found[1], 16) & _MAY_LOAD)

    def _forbidden(self, module: str) -> Iterator[tuple[str, str]]:
        """Yield the word and the place of each line that keeps modprobe from loading it."""
        for folder in _CONFIGURATION:
            try:
                files = sorted(self.root.joinpath(folder).glob("*.conf"))[:_FILES]
            except OSError:
                continue
            for file in files:
                for number, line in enumerate(self._text(file, _SMALL).splitlines(), start=1):
                    found = _FORBIDDING.match(line)
                    if found is not None and found[2].replace("-", "_") == module:
                        yield found[1], f"/{file.relative_to(self.root)}:{number}"

    def _text(self, path: Path, limit: int) -> str:
        try:
            return read_at_most(path, limit)
        except (OSError, OddFileError):
            return ""


def _known(modules: Sequence[str]) -> str | None:
    """Return where these are known to be missing."""
    if set(modules) <= NOT_BUILT:
        return (
            "RHEL, Alma and Rocky 9 and later are built without it, 8 keeps it in "
            "kernel-modules-extra"
        )
    if all(_IN_EXTRA.fullmatch(name) for name in modules):
        return "RHEL, Alma and Rocky 10 keep it in kernel-modules-extra"
    return None
