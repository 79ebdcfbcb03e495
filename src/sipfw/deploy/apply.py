"""Makes a ruleset live as a new generation, rehearses that, and takes everything out again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.deploy.feed_sets import forget_all, without_lists
from sipfw.deploy.files import require_writable, sweep
from sipfw.deploy.generations import Content, prune, write_generation
from sipfw.deploy.journal import Journal
from sipfw.deploy.listing import listing_text
from sipfw.deploy.live import Firewall, current, stored
from sipfw.deploy.lock import state_lock
from sipfw.deploy.lockout import spare_logged_in
from sipfw.deploy.memory import require_memory
from sipfw.deploy.names import names_file
from sipfw.deploy.openings import require_no_opening
from sipfw.deploy.privilege import require_root
from sipfw.deploy.repair import settle
from sipfw.deploy.restores import restores_file
from sipfw.deploy.service import systemd, uninstall
from sipfw.deploy.state_folders import close_folders
from sipfw.deploy.strangers import refuse_strangers
from sipfw.deploy.targets import Options, Target, installed_backends, target
from sipfw.deploy.transaction import carry_out, signals_later
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.ruleset.memory import memory_of, memory_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.deploy.files import Layout
    from sipfw.deploy.generations import Generation
    from sipfw.deploy.live import Current, Result
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Family


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change did. `generation` is None when no firewall is in force.

    `waiting` is the journal of an apply that waits to be confirmed.
    """

    rules: int
    sets: int
    families: tuple[Family, ...]
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]
    generation: int | None = None
    waiting: Journal | None = None


def apply(
    content: Content, layout: Layout, options: Options, *, confirm: int | None = None
) -> Outcome:
    """Make it live. On failure the old firewall is in force and BackendError says why.

    With `confirm` it is taken back after so many seconds, unless it is confirmed before.
    """
    require_root()
    require_writable(layout)
    kept = without_lists(content.ruleset)
    full = replace(
        content,
        ruleset=kept,
        listing=listing_text(kept, content.backend, ipset=content.ipset),
    )
    with signals_later(), state_lock(layout):
        said = (*close_folders(layout), *settle(layout, options))
        sweep(layout.state)
        now = current(layout)
        _refuse_other_backend(now, content.backend)
        refuse_strangers(_target(content), now.expectation, options)
        warnings = [
            *_harmless(content.ruleset, options),
            *_doubtful_way_back(layout, now),
        ]
        made = write_generation(layout, full, now.generation)
        result, waiting = carry_out(
            layout,
            Journal("apply", now.generation, made.number, (content.backend,), forced=options.force),
            _firewall(content, made),
            options,
            looked_for=now.expectation,
            confirm=confirm,
        )
        prune(layout, (made.number, now.generation))
    return outcome_of(result, made.number, waiting, said, warnings)


def _target(content: Content) -> Target:
    return target(content.backend, ipset=content.ipset)


def _harmless(ruleset: Ruleset, options: Options) -> list[Diagnostic]:
    """Return warnings; BackendError where the ruleset would harm this host."""
    require_memory(ruleset)
    return [
        *spare_logged_in(ruleset, force=options.force),
        *require_no_opening(ruleset, force=options.force),
    ]


def _firewall(content: Content, made: Generation) -> Firewall:
    return Firewall(content.ruleset, content.backend, content.ipset, content.source, made.number)


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
) -> Outcome:
    """Put into numbers what is live now."""
    expectation = result.expectation
    return Outcome(
        sum(len(chain.rules) for chain in expectation.chains) + len(expectation.jumps),
        len(expectation.sets),
        tuple(expectation.families()),
        (*notes, *result.notes),
        (*warnings, *result.warnings),
        generation,
        waiting,
    )


def rehearse(
    ruleset: Ruleset, chosen: Target, options: Options, layout: Layout
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


def remove(layout: Layout, options: Options) -> Outcome:
    """Take out everything of ours: rules, sets, sysctls, the record, the generations, the units."""
    require_root()
    with signals_later(), state_lock(layout):
        said = settle(layout, options)
        now = current(layout)
        backends = installed_backends() if now.backend is None else [now.backend]
        result, _ = carry_out(
            layout,
            Journal("remove", now.generation, None, tuple(backends)),
            None,
            options,
            looked_for=now.expectation,
        )
        # Renamed first, so that a kill half way leaves no half generation.
        for folder in (layout.generations, layout.readings):
            with suppress(OSError):
                folder.rename(layout.state / f".{folder.name}.gone")
        sweep(layout.state)
        units = uninstall(layout, systemd(layout))
        for path in (names_file(layout), restores_file(layout)):
            with suppress(OSError):
                path.unlink()
        forget_all(layout)
    # Empty now, or it holds what is not ours.
    with suppress(OSError):
        layout.state.rmdir()
    return outcome_of(result, None, None, said, units)
