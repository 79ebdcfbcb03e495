"""Makes one generation live, or none: rules and sets, then kernel settings, then the record.

The order matters to whoever finds the pieces after a kill: the record names a generation only when
the kernel holds all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compare.compare import without_counters
from sipfw.compare.expected import Expectation
from sipfw.deploy.applied import Applied, read_applied, write_applied
from sipfw.deploy.generations import Damaged, Generation, list_generations, read_generation
from sipfw.deploy.generations import read_ruleset as read_stored_ruleset
from sipfw.deploy.lists.sets import has_lists
from sipfw.deploy.manual_list import forget_by_hand
from sipfw.deploy.manual_sets import put_back
from sipfw.deploy.strangers import leaving, notes_on, strangers_in
from sipfw.deploy.sysctls import apply_sysctls, remove_sysctls
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.host.files import cannot_write, sync_folder
from sipfw.kernel.backend import Options, backend_of
from sipfw.kernel.strangers import Strangers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Backend
    from sipfw.kernel.snapshot import HostSnapshot
    from sipfw.ruleset.model import Ruleset

NOTHING = Expectation((), (), (), ())


@dataclass(frozen=True, slots=True)
class Firewall:
    """What can be made live."""

    ruleset: Ruleset
    backend: str
    ipset: bool
    source: str
    generation: int


@dataclass(frozen=True, slots=True)
class Result:
    """What is live now, and what is worth saying about it."""

    expectation: Expectation
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class Current:
    """What the record says is live; `backend` is None when it says nothing is."""

    generation: int | None = None
    backend: str | None = None
    expectation: Expectation = NOTHING


def current(layout: Layout) -> Current:
    """Return what is live. Where the record is damaged, that is the last confirmed generation."""
    try:
        applied = read_applied(layout)
    except BackendError:
        kept = [item for item in _readable(layout) if item.confirmed]
        return Current(kept[-1].number, kept[-1].backend) if kept else Current()
    if applied is None:
        return Current()
    return Current(applied.generation, applied.backend, applied.expectation)


def make_live(
    firewall: Firewall | None,
    backends: Iterable[str],
    layout: Layout,
    options: Options,
    *,
    made: Expectation = NOTHING,
) -> Result:
    """Make it live and take what else is ours out of `backends`. Raises BackendError.

    What is not ours is left alone. Sets are ours that the record or `made` accounts for.
    """
    ours = (current(layout).expectation, made)
    if firewall is None:
        return _make_nothing_live(backends, layout, options, ours)
    chosen = backend_of(firewall.backend, ipset=firewall.ipset, host=options.host)
    strangers = strangers_in(chosen, *ours)
    change = chosen.apply(firewall.ruleset, leaving(options, strangers))
    notes = [*change.notes, *_on_strangers(chosen, strangers, options, ours)]
    for name in backends:
        if name != chosen.name:
            notes += _removed(name, options, ours)
    warnings = (*change.warnings, *_settings(firewall.ruleset, layout))
    _record(
        layout,
        Applied(change.expectation, firewall.source, firewall.backend, firewall.generation),
    )
    warnings = (*warnings, *put_back(chosen, firewall.ruleset, layout))
    return Result(change.expectation, tuple(notes), warnings)


def _removed(name: str, options: Options, ours: tuple[Expectation, ...]) -> list[str]:
    """Take what is ours out of one backend; return notes."""
    chosen = backend_of(name, host=options.host)
    strangers = strangers_in(chosen, *ours)
    notes = chosen.remove(leaving(options, strangers))
    return [*notes, *_on_strangers(chosen, strangers, options, ours)]


def _on_strangers(
    chosen: Backend, before: Strangers, options: Options, ours: tuple[Expectation, ...]
) -> list[str]:
    if before == Strangers():
        return []
    return notes_on(before, strangers_in(chosen, *ours), options)


def _make_nothing_live(
    backends: Iterable[str], layout: Layout, options: Options, ours: tuple[Expectation, ...]
) -> Result:
    notes = tuple(note for name in backends for note in _removed(name, options, ours))
    warnings = tuple(remove_sysctls(layout))
    try:
        layout.applied.unlink(missing_ok=True)
        sync_folder(layout.state)
    except OSError as error:
        raise cannot_write(layout.applied, error) from error
    forget_by_hand(layout)
    return Result(NOTHING, notes, warnings)


def _settings(ruleset: Ruleset, layout: Layout) -> list[Diagnostic]:
    try:
        return apply_sysctls(ruleset.sysctls, layout)
    except BackendError as error:
        message = f"the firewall is live, but the kernel settings are not kept: {error}"
        return [Diagnostic(message, "conntrack", severity=Severity.WARNING)]


def _record(layout: Layout, applied: Applied) -> None:
    """Write the record unless it is there: going back must not need room on the disk."""
    try:
        if read_applied(layout) == applied:
            return
    except BackendError:
        pass  # damaged; the new one replaces it
    write_applied(layout, applied)


def stored(layout: Layout, number: int, *, lists: bool = True) -> Firewall | Damaged:
    """Return a generation ready to be made live; without `lists` block lists are left empty."""
    found = read_generation(layout, number)
    if isinstance(found, Damaged):
        return found
    ruleset = read_stored_ruleset(layout, found)
    if isinstance(ruleset, Damaged):
        return ruleset
    if backend_of(found.backend).name != found.backend:
        return Damaged(number, f"this version has no backend {found.backend}")
    if lists and has_lists(ruleset):
        # pydantic and ssl come with it: only a firewall with block lists has to pay for them.
        from sipfw.deploy.lists.fill import filled  # noqa: PLC0415 - see above

        ruleset = filled(ruleset, layout, number)
    return Firewall(ruleset, found.backend, found.ipset, found.source, number)


def way_back(layout: Layout, number: int | None) -> tuple[Firewall | None, list[str]]:
    """Return generation `number`, or the nearest older confirmed one that can be read.

    None where there is no such one; the texts say what was skipped.
    """
    if number is None:
        return None, []
    older = [item.number for item in _readable(layout) if item.confirmed and item.number < number]
    skipped: list[str] = []
    for candidate in (number, *reversed(older)):
        found = stored(layout, candidate)
        if isinstance(found, Firewall):
            return found, skipped
        skipped.append(f"generation {found.number} is skipped: {found.reason}")
    return None, skipped


def standing(layout: Layout) -> int | None:
    """Return the generation that a boot restores: what is live, unless it is unconfirmed."""
    number = current(layout).generation
    if number is None:
        return None
    found = read_generation(layout, number)
    if isinstance(found, Generation) and not found.confirmed:
        return found.before
    return number


def fingerprint(
    backends: Iterable[str], expectation: Expectation, host: HostSnapshot
) -> list[object]:
    """Return what is ours in the kernel without what packets change. Raises BackendError."""
    return [without_counters(backend_of(name, host=host).live(expectation)) for name in backends]


def _readable(layout: Layout) -> list[Generation]:
    return [item for item in list_generations(layout) if isinstance(item, Generation)]
