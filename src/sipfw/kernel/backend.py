"""What a backend is, and which there are: whoever loads or reads rules asks one of these.

A new backend is one package under `sipfw.kernel` that calls `register`, and its line in `_SHIPPED`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sipfw.errors import BackendError
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.snapshot import HostSnapshot

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection, Iterable, Sequence

    from sipfw.compare.deep import Definitions
    from sipfw.compare.expected import Expectation, ExpectedSet
    from sipfw.compare.live import Live, LiveJump
    from sipfw.diagnostics import Diagnostic
    from sipfw.host.runner import Runner
    from sipfw.kernel.detect import Listed, PacketFilters
    from sipfw.kernel.state.limits import LimitState
    from sipfw.kernel.state.members import Members
    from sipfw.kernel.state.sources import SourceSets
    from sipfw.kernel.strangers import Strangers
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Family

PROC_NET = Path("/proc/net")

# Each registers its backends when it is imported.
_SHIPPED = ("sipfw.kernel.xtables.backend", "sipfw.kernel.nft.backend")


@dataclass(frozen=True, slots=True)
class Options:
    """How to apply. `force` goes live even if that locks out who is logged in by ssh.

    `leave` names sets and chains that look like ours and are not. `host` is the look at the packet
    filter that all steps share.
    """

    adopt: bool = False
    lock_seconds: float = 10.0
    force: bool = False
    leave: frozenset[str] = frozenset()
    host: HostSnapshot = field(default_factory=HostSnapshot, compare=False)


@dataclass(frozen=True, slots=True)
class AppliedChange:
    """What went live, and what is worth saying about it."""

    expectation: Expectation
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...] = ()


class UnworkableError(BackendError):
    """The backend can neither show nor change its tables; its refuge takes the same rules."""


class Side(StrEnum):
    """The part of the kernel that judges packets by rules; a packet must pass both."""

    LEGACY = "legacy iptables"
    NF_TABLES = "nf_tables"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true of a backend on every host.

    Backends are asked by their `turn`, the lowest first, whether they suit a host. `title` is for
    people, its first words up to a comma name the place of the rules. `words` are what
    `--backend` calls it, the one that is its alone last; `meant` settles a word that several share.
    Without a record `program` on a host suggests it, and a removal needs `lister`. Backends of one
    kind of `sets` take out each other's. `together` says that one listing holds the rules of both
    families, `own_table` that a flush of iptables does not reach them. `refuge` takes the same
    rules after an UnworkableError.
    """

    turn: int
    title: str
    words: tuple[str, ...]
    side: Side
    program: str
    lister: str
    sets: str
    together: bool = False
    own_table: bool = False
    refuge: str | None = None


@dataclass(frozen=True, slots=True)
class Modules:
    """Kernel modules that rules need; without the `dispensable` ones the other layers stand."""

    needed: tuple[str, ...]
    dispensable: frozenset[str] = frozenset()


class Backend(Protocol):
    """One backend with its options. Whatever reads or writes raises BackendError."""

    @property
    def name(self) -> str:
        """What the record calls it."""
        ...

    @property
    def facts(self) -> Facts:
        """What is true of it on every host."""
        ...

    def suits(self, host: PacketFilters) -> str | None:
        """Say why it is the one for a host without rules of ours; None where it is not."""
        ...

    def meant(self, host: PacketFilters) -> str | None:
        """Say why a shared word of `--backend` means it on this host; None where it does not."""
        ...

    def lack(self) -> str | None:
        """Say what this host's kernel or programs lack so that no rule could be loaded."""
        ...

    def is_live(self, listed: Listed) -> bool:
        """Tell whether rules of ours are in this backend."""
        ...

    def modules(self, log_readers: Collection[str]) -> Modules:
        """Name the modules it needs; `log_readers` are those of log lines, `log` and `nflog`."""
        ...

    def listing(self, ruleset: Ruleset) -> str:
        """Return the rules as text, for people who look into a generation's folder."""
        ...

    def expectation(self, ruleset: Ruleset) -> Expectation:
        """Say what would be live."""
        ...

    def check(self, ruleset: Ruleset, options: Options) -> tuple[Diagnostic, ...]:
        """Raise BackendError for what would make `apply` fail; return what it would warn of."""
        ...

    def apply(self, ruleset: Ruleset, options: Options) -> AppliedChange:
        """Make it live, or leave everything as it was and raise BackendError."""
        ...

    def live(self, expectation: Expectation) -> Live:
        """Read what is live; change nothing."""
        ...

    def read_fully(self, expectation: Expectation) -> tuple[Live, Definitions]:
        """Return what is live, with rules in the kernel's fullest words, and how sets are made."""
        ...

    def is_whole(self, expectation: Expectation) -> bool:
        """Tell by a quick look whether all is live; False only says that a full one is needed.

        A rule that was edited under its comment is not seen. Raises nothing.
        """
        ...

    def marks(self, family: Family) -> Counter[str]:
        """Count the marks `<id>#<digest>` of live rules, of both families where `together`."""
        ...

    def limits(self, proc_net: Path = PROC_NET) -> LimitState:
        """Give access to the limits that are kept by source."""
        ...

    def sources(self, names: frozenset[str], proc_net: Path = PROC_NET) -> SourceSets:
        """Give access to what the sets say about one source; `names` are the ruleset's sets."""
        ...

    def strangers(self, known: Collection[tuple[str, str]]) -> Strangers:
        """Return what stands among our things and is not ours; `known` are sets that are."""
        ...

    def fill(self, sets: Sequence[ExpectedSet]) -> None:
        """Give live static sets other elements and touch no rule. Raises BackendError."""
        ...

    def members(self) -> Members:
        """Give access to the dynamic sets. Raises BackendError where the backend has none."""
        ...

    def take_out(self, jumps: Iterable[LiveJump]) -> None:
        """Delete our jumps that stand elsewhere; the next apply makes them anew where they go."""
        ...

    def drop_left_sets(self) -> list[str]:
        """Destroy sets of ours that no firewall here uses any more; return notes."""
        ...

    def remove(self, options: Options) -> tuple[str, ...]:
        """Take out everything of ours; return notes."""
        ...


# Makes a backend; the arguments say whether it may use ipset, and what runs its programs.
Maker: TypeAlias = "Callable[[bool, Runner], Backend]"

_makers: dict[str, Maker] = {}


def register(name: str, make: Maker) -> None:
    """Make a backend known under the name that the record uses."""
    _makers[name] = make


def backend_names() -> list[str]:
    """Return the names of all backends that this version has."""
    return [item.name for item in backends()]


def backends(*, ipset: bool = True, host: Runner | None = None) -> list[Backend]:
    """Return all backends by their turn; which was imported first is an accident."""
    _import_shipped()
    made = (make(ipset, host or SubprocessRunner()) for make in _makers.values())
    return sorted(made, key=lambda item: item.facts.turn)


def backend_words() -> list[str]:
    """Return what `--backend` takes besides `auto`."""
    return list(dict.fromkeys(word for item in backends() for word in item.facts.words))


def backend_of(name: str, *, ipset: bool = True, host: Runner | None = None) -> Backend:
    """Return the backend of that name; `host` is the look that it shares with others.

    Raises BackendError where there is none.
    """
    _import_shipped()
    try:
        return _makers[name](ipset, host or SubprocessRunner())
    except KeyError:
        raise BackendError(
            f"this version has no backend {name!r}",
            hint="this sipfw may be older than the one that applied",
        ) from None


def _import_shipped() -> None:
    for module in _SHIPPED:
        import_module(module)


def installed_backends() -> list[str]:
    """Name the backends that a removal without a record looks at.

    Those in which rules of ours are live; without any, one that can take out sets left behind, and
    every other whose program this host has.
    """
    from sipfw.kernel.detect import look  # noqa: PLC0415 - it asks each backend what is live

    host = look()
    if host.ours:
        return sorted(host.ours)
    found: dict[str, str] = {}
    for item in backends():
        if item.facts.lister in host.programs:
            found.setdefault(item.facts.sets, item.name)
    return list(found.values())
