"""Puts the applied firewall back when another program has taken it away, or part of it.

`nft flush ruleset`, `iptables -F`, `iptables-restore` of a file without us, `systemctl restart
iptables` and the like. Whoever wants sipfw gone says `sipfw remove` or `sipfw rollback`: those
change the record, and the record alone is what is kept.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw.compare.drift import NOT_OURS, TWICE, Drift, DriftKind, drift
from sipfw.deploy.applied import read_applied
from sipfw.deploy.repair import unfinished
from sipfw.deploy.rollback import restore_locked
from sipfw.deploy.transaction import signals_later
from sipfw.errors import BackendError
from sipfw.host.locks import try_state_lock
from sipfw.host.privilege import require_root
from sipfw.kernel.backend import UnworkableError, backend_of
from sipfw.upkeep.jump_order import behind, moved
from sipfw.upkeep.restores import Restore, Restores, read_restores, write_restores
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.compare.live import LiveJump
    from sipfw.deploy.applied import Applied
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.upkeep.jump_order import Behind

# A program that flushes every second is answered so often, and then left alone for a while.
MOST = 5
WINDOW = 600.0
_SHOWN = 3


class KeepState(StrEnum):
    """What a look came to."""

    NOTHING = "nothing in force"
    BUSY = "a change is under way"
    WHOLE = "whole"
    RESTORED = "restored"
    LEFT = "left"
    HELD = "held"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class KeepResult:
    """What a look found missing, and what was done; `new` when nobody has been told before."""

    state: KeepState
    summary: str = ""
    detail: str = ""
    new: bool = False


def keep(layout: Layout, options: Options) -> KeepResult:
    """Look once, and restore what is lost. Raises BackendError where the kernel cannot be read.

    Does nothing while a change is under way or waits to be confirmed.
    """
    require_root()
    if not layout.state.exists():
        return KeepResult(KeepState.NOTHING)
    with signals_later(), try_state_lock(layout, 0.0) as free:
        if not free or unfinished(layout) is not None:
            return KeepResult(KeepState.BUSY)
        applied = read_applied(layout)
        if applied is None:
            return KeepResult(KeepState.NOTHING)
        known = read_restores(layout)
        seen = _look(applied, known)
        if not seen.lost:
            whole = replace(known, left=(), held=False, behind=seen.behind)
            if whole != known:
                write_restores(layout, whole)
            return KeepResult(KeepState.WHOLE)
        return _answered(layout, options, applied, seen, known)


def summary(lost: Sequence[Drift]) -> str:
    """Name a few losses each, and many by their kinds: `496 rules and 6 jumps missing`."""
    if len(lost) <= _SHOWN:
        return "; ".join(map(str, lost))
    kinds = Counter((str(item.kind), item.what) for item in lost)
    said = [f"{pluralize(count, what)} {kind}" for (kind, what), count in kinds.most_common()]
    return f"{', '.join(said)}, {lost[0].what} {lost[0].where} first"


def is_loss(item: Drift) -> bool:
    """Tell whether a difference weakens the firewall and an apply would put it right.

    What others have put before our jump stays there (decision 6), as does what they have added.
    """
    if item.kind is DriftKind.MISSING:
        return True
    if item.kind is DriftKind.EXTRA:
        doubled = item.what == "rule" and item.detail.startswith(TWICE)
        return doubled or (item.what == "jump" and not item.detail.startswith(NOT_OURS))
    if item.what == "jump":
        return item.kind is DriftKind.CHANGED
    return item.what in {"rule", "set", "table"}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look found lost, the jumps that stand elsewhere, and what stands behind all jumps."""

    lost: tuple[Drift, ...]
    moved: tuple[LiveJump, ...]
    behind: Behind


def _look(applied: Applied, known: Restores) -> _Seen:
    chosen = backend_of(applied.backend)
    if chosen.is_whole(applied.expectation):
        return _Seen((), (), {})
    try:
        live = chosen.live(applied.expectation)
    except UnworkableError as error:
        # Somebody has loaded these tables with nft. Whether rules of ours are in them still, the
        # restore finds out: where none are, it goes to a table of its own.
        where = f"in {applied.backend}"
        return _Seen((Drift(DriftKind.MISSING, "firewall", where, error.message),), (), {})
    differences = drift(applied.expectation, live)
    elsewhere = list(moved(live, differences, known.behind))
    lost = [item for item in differences if is_loss(item)]
    lost += [item for _, item in elsewhere]
    return _Seen(tuple(lost), tuple(jump for jump, _ in elsewhere), behind(live))


def _answered(
    layout: Layout, options: Options, applied: Applied, seen: _Seen, known: Restores
) -> KeepResult:
    now, lost = time.time(), seen.lost
    if known.left and set(map(str, lost)) <= set(known.left):
        return KeepResult(KeepState.LEFT, summary(lost), "the last restore did not put it right")
    if known.since(now - WINDOW, now) >= MOST:
        detail = (
            f"{MOST} restores in {WINDOW / 60:.0f} min were undone; the next one comes when the "
            "first of them is older than that"
        )
        new = not known.held
        if new:
            event = Restore(now, applied.generation, summary(lost), f"held: {detail}")
            write_restores(layout, replace(known, held=True, events=(*known.events, event)))
        return KeepResult(KeepState.HELD, summary(lost), detail, new)
    return _restored(layout, options, applied, seen, known)


def _restored(
    layout: Layout, options: Options, applied: Applied, seen: _Seen, known: Restores
) -> KeepResult:
    left: tuple[Drift, ...] = ()
    order = known.behind
    try:
        backend_of(applied.backend).take_out(seen.moved)
        restore_locked(layout, options)
        after = read_applied(layout)
        if after is not None:
            now = _look(after, known)
            left, order = now.lost, now.behind
        detail = f"{summary(left)} still differs" if left else ""
        state = KeepState.RESTORED
        outcome = f"restored, but {detail}" if left else "restored"
    except BackendError as error:
        state, detail = KeepState.FAILED, str(error)
        outcome = f"failed: {detail}"
    event = Restore(time.time(), applied.generation, summary(seen.lost), outcome)
    write_restores(
        layout,
        Restores(
            known.total + event.worked,
            left=tuple(map(str, left)),
            events=(*known.events, event),
            behind=order,
        ),
    )
    return KeepResult(state, event.lost, detail, new=True)
