"""What of the rules a host cannot do, told in one line that helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.module_help import Help, System
from sipfw.kernel.modules import module_of
from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.kernel.xtables.libiptc.protocol import Feature

# What the programs say when it is their own part that is missing, and not the kernel's.
_NO_LIBRARY = ("couldn't load", "can't find match", "can't find target", "unknown option")


@dataclass(frozen=True, slots=True)
class Lack:
    """One part of the rules that does not work here: a match, a target, a table, a set type.

    `library` tells that the program lacks its half, so that the kernel could not be asked.
    """

    part: str
    family: Family
    library: bool = False


class LackingError(BackendError):
    """The host lacks parts of the rules; nothing was changed."""

    def __init__(self, lacks: Iterable[Lack], system: System | None = None) -> None:
        self.lacks = tuple(lacks)
        message, hint = _told(self.lacks, system or System())
        super().__init__(message, hint=hint)

    @property
    def parts(self) -> frozenset[str]:
        """Name what is missing."""
        return frozenset(lack.part for lack in self.lacks)


def lacks_of(features: Iterable[Feature]) -> list[Lack]:
    """Return what an answered probe says is missing."""
    return what_matters(
        Lack(item.name, item.family, library=not item.found)
        for item in features
        if not item.found or item.accepted is False
    )


def what_matters(lacks: Iterable[Lack]) -> list[Lack]:
    """Leave out what only fails with something else: each probe is a rule with a comment."""
    every = list(lacks)
    found = []
    for family in Family:
        own = [lack for lack in every if lack.family is family]
        core = [lack for lack in own if lack.part == "table" and not lack.library]
        found += core or [lack for lack in own if lack.part == "comment"] or own
    return found


def lack_of(part: str, family: Family, said: str) -> Lack:
    """Return the lack that a program complains of."""
    return Lack(part, family, library=any(text in said.lower() for text in _NO_LIBRARY))


def modules_error(missing: Iterable[str], other: str, system: System | None = None) -> BackendError:
    """Return the error about parts of nf_tables; `other` is what could be done instead.

    Those that are no module's name are part of the core, and a newer kernel has them.
    """
    names = list(dict.fromkeys(missing))
    modules = [name for name in names if " " not in name]
    found = (system or System()).help_for(modules) if modules else Help()
    message = f"this host cannot run the rules: the kernel lacks {', '.join(names)}"
    return BackendError(_joined(message, found.cause), hint=_run(found.command, other))


def _told(lacks: tuple[Lack, ...], system: System) -> tuple[str, str | None]:
    """Return the message and what to do."""
    libraries = list(dict.fromkeys(lack.part for lack in lacks if lack.library))
    start = "this host cannot run the rules: "
    if libraries:
        message = f"{start}iptables has no extension {', '.join(libraries)}"
        return message, _run(system.distribution.library_command(libraries), _instead(lacks))
    names = list(dict.fromkeys(_modules(lacks)))
    found = system.help_for(names)
    message = f"{start}the kernel lacks {', '.join(names)}"
    return _joined(message, found.cause), _run(found.command, _instead(lacks))


def _modules(lacks: tuple[Lack, ...]) -> Iterator[str]:
    """Name the modules; one that both families share stands once."""
    for lack in lacks:
        yield module_of(lack.part, lack.family)


def _instead(lacks: tuple[Lack, ...]) -> str:
    """Return what works without these parts."""
    parts = {lack.part for lack in lacks}
    if all(part in {"ipset", "set", "SET"} or part.startswith("hash:") for part in parts):
        return "sipfw apply --no-ipset, or --backend nftables"
    return "sipfw apply --backend nftables"


def _joined(message: str, cause: str | None) -> str:
    return message if cause is None else f"{message}: {cause}"


def _run(command: str | None, other: str) -> str:
    return f"run: {other}" if command is None else f"run: {command} (or: {other})"
