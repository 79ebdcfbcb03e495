"""Makes a ruleset live as a new generation, rehearses that, and takes everything out again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.deploy import archive as archives
from sipfw.deploy.activate import Firewall, current, stored
from sipfw.deploy.generations import Content, Damaged, prune, write_generation
from sipfw.deploy.journal import Journal
from sipfw.deploy.lists.sets import forget_all, without_lists
from sipfw.deploy.lockout.guard import require_logged_in_kept
from sipfw.deploy.lockout.openings import require_no_opening
from sipfw.deploy.manual_list import Book, read_page
from sipfw.deploy.memory import require_memory
from sipfw.deploy.plan import plan_apply
from sipfw.deploy.repair import settle
from sipfw.deploy.service import systemd, uninstall
from sipfw.deploy.stored_content import content_to_be, read_content, same_firewall
from sipfw.deploy.strangers import refuse_strangers
from sipfw.deploy.transaction import carry_out, signals_later
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.host.files import require_writable, sweep
from sipfw.host.locks import state_lock
from sipfw.host.privilege import require_root
from sipfw.host.state_folders import close_folders
from sipfw.kernel.backend import Backend, Options, backend_of, installed_backends
from sipfw.ruleset.memory import memory_of, memory_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.deploy.activate import Current, Result
    from sipfw.deploy.archive import Archive
    from sipfw.host.files import Layout
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Family


@dataclass(frozen=True, slots=True)
class ApplyOutcome:
    """What a change did. `generation` is None when no firewall is in force.

    `waiting` is the journal of an apply that waits to be confirmed. `stayed` says what was
    found where the generation in force means the same as what was to be applied.
    """

    rules: int
    sets: int
    families: tuple[Family, ...]
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]
    generation: int | None = None
    waiting: Journal | None = None
    stayed: str | None = None


def apply(
    content: Content, layout: Layout, options: Options, *, confirm: int | None = None
) -> ApplyOutcome:
    """Make it live. On failure the old firewall is in force and BackendError says why.

    With `confirm` it is taken back after so many seconds, unless it is confirmed before. What is in
    force already makes no new generation, and nothing to confirm: it is loaded once more.
    """
    require_root()
    require_writable(layout)
    kept = without_lists(content.ruleset)
    full = replace(
        content,
        ruleset=kept,
        listing=_backend(content, options).listing(kept),
    )
    with signals_later(), state_lock(layout):
        said = (*close_folders(layout), *settle(layout, options))
        sweep(layout.state)
        _look_anew_if_changed(layout, options)
        now = current(layout)
        _refuse_other_backend(now, content.backend)
        refuse_strangers(_backend(content, options), now.expectation, options)
        warnings = [
            *_harmless(content.ruleset, options),
            *_doubtful_way_back(layout, now),
        ]
        if (number := _in_force_already(layout, now, full)) is not None:
            result, stayed = _load_anew(layout, content, number, options, now)
            return replace(outcome_of(result, number, None, said, warnings), stayed=stayed)
        made = write_generation(layout, full, now.generation)
        result, waiting = carry_out(
            layout,
            Journal("apply", now.generation, made.number, (content.backend,), forced=options.force),
            _firewall(content, made.number),
            options,
            looked_for=now.expectation,
            confirm=confirm,
        )
        prune(layout, (made.number, now.generation))
    return outcome_of(result, made.number, waiting, said, warnings)


def _load_anew(
    layout: Layout, content: Content, number: int, options: Options, now: Current
) -> tuple[Result, str]:
    """Load what is in force already, with the addresses of today; say whether anything differed."""
    same = plan_apply(content.ruleset, _backend(content, options), layout).same
    # A restore that dies is repeated: what was before it is what it restores.
    result, _ = carry_out(
        layout,
        Journal("restore", number, number, (content.backend,)),
        _firewall(content, number),
        options,
        looked_for=now.expectation,
    )
    return result, "nothing differs" if same else "what differed is put right"


def _in_force_already(layout: Layout, now: Current, content: Content) -> int | None:
    """Return the generation in force where it means the same."""
    if now.generation is None:
        return None
    found = read_content(layout, now.generation)
    same = not isinstance(found, Damaged) and same_firewall(found, content_to_be(content))
    return now.generation if same else None


def _look_anew_if_changed(layout: Layout, options: Options) -> None:
    """Forget the look from before the lock where another sipfw has changed the firewall since."""
    with suppress(FileNotFoundError):
        options.host.forget_if_before(layout.applied.stat().st_mtime_ns)


def _backend(content: Content, options: Options) -> Backend:
    return backend_of(content.backend, ipset=content.ipset, host=options.host)


def _harmless(ruleset: Ruleset, options: Options) -> list[Diagnostic]:
    """Return warnings; BackendError where the ruleset would harm this host."""
    require_memory(ruleset)
    return [
        *require_logged_in_kept(ruleset, force=options.force),
        *require_no_opening(ruleset, force=options.force),
    ]


def _firewall(content: Content, number: int) -> Firewall:
    return Firewall(content.ruleset, content.backend, content.ipset, content.source, number)


def _refuse_other_backend(now: Current, backend: str) -> None:
    if now.backend is not None and now.backend != backend:
        raise BackendError(
            f"sipfw is live in {now.backend} already",
            hint=f"apply with --backend {now.backend}, or sipfw remove first",
        )


def _doubtful_way_back(layout: Layout, now: Current) -> list[Diagnostic]:
    """Warn, before anything changes, when what is live now could not be brought back."""
    if now.backend is None:
        return []
    if now.generation is None:
        message = "what is live was applied by an older sipfw; going back would mean no firewall"
        return [Diagnostic(message, severity=Severity.WARNING)]
    found = stored(layout, now.generation, lists=False)
    if isinstance(found, Firewall):
        return []
    message = (
        f"generation {found.number}, live until now, is damaged ({found.reason}); going back "
        "would lead to an older one, see sipfw history"
    )
    return [Diagnostic(message, severity=Severity.WARNING)]


def outcome_of(
    result: Result,
    generation: int | None,
    waiting: Journal | None = None,
    notes: Sequence[str] = (),
    warnings: Sequence[Diagnostic] = (),
) -> ApplyOutcome:
    """Put into numbers what is live now."""
    expectation = result.expectation
    return ApplyOutcome(
        sum(len(chain.rules) for chain in expectation.chains) + len(expectation.jumps),
        len(expectation.sets),
        tuple(expectation.families()),
        (*notes, *result.notes),
        (*warnings, *result.warnings),
        generation,
        waiting,
    )


def rehearse(
    ruleset: Ruleset, chosen: Backend, options: Options, layout: Layout
) -> tuple[str, tuple[Diagnostic, ...]]:
    """Check that this host can run the ruleset; return what would be loaded, and warnings.

    Changes nothing.
    """
    require_root()
    refuse_strangers(chosen, current(layout).expectation, options)
    warnings = (
        *_harmless(ruleset, options),
        *chosen.check(ruleset, options),
    )
    expectation = chosen.expectation(ruleset)
    rules = sum(len(chain.rules) for chain in expectation.chains)
    text = (
        f"would load {rules} rules in {len(expectation.chains)} chains and "
        f"{len(expectation.sets)} sets into {chosen.name}, which take "
        f"{memory_text(memory_of(ruleset))}"
    )
    return text, warnings


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did, and where the generations and bans by hand are, if there were any."""

    outcome: ApplyOutcome
    archive: Archive | None


def remove(layout: Layout, options: Options, *, purge: bool = False) -> Removed:
    """Take out everything of ours: rules, sets, sysctls, the record, the units.

    Generations and bans by hand go into the archive; with `purge` there is none, nor an older one.
    """
    require_root()
    with signals_later(), state_lock(layout):
        said = settle(layout, options)
        bans = read_page(layout, Book.BANS).entries
        now = current(layout)
        backends = installed_backends() if now.backend is None else [now.backend]
        result, _ = carry_out(
            layout,
            Journal("remove", now.generation, None, tuple(backends)),
            None,
            options,
            looked_for=now.expectation,
        )
        archive = None if purge else archives.store(layout, bans)
        # Renamed first, so that a kill half way leaves no half generation.
        for folder in (layout.generations, layout.readings):
            with suppress(OSError):
                folder.rename(layout.state / f".{folder.name}.gone")
        sweep(layout.state)
        units = uninstall(layout, systemd(layout))
        events = layout.state.glob(f"{layout.events.name}*")
        for path in (layout.names, layout.restores, layout.offenders, *events):
            with suppress(OSError):
                path.unlink()
        forget_all(layout)
        if purge:
            archives.purge(layout)
    # Empty now, or it holds what is not ours.
    with suppress(OSError):
        layout.state.rmdir()
    return Removed(outcome_of(result, None, None, said, units), archive)
