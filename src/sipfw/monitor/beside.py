"""What the rest of the host makes of a policy: asked once, said by `verify` and by `diff`.

`doctor` has a check for each part, which asks the same functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.choose import split_of
from sipfw.errors import BackendError
from sipfw.kernel.detect import look
from sipfw.kernel.snapshot import HostSnapshot
from sipfw.monitor.doctor.checks_reach import no_way_back, peers_of, unheard
from sipfw.monitor.doctor.host import HostView
from sipfw.monitor.doctor.stricter.findings import CutOff, cut_off
from sipfw.monitor.doctor.ways_past import problems

if TYPE_CHECKING:
    from collections.abc import Collection

    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.source import Door


@dataclass(frozen=True, slots=True)
class Beside:
    """Sentences: what rules of others take, which of them lead past sipfw, and how they are split.

    `notes` degrade nothing. `unheard` says why no call of a trusted peer reaches a program.
    """

    cut_off: tuple[str, ...] = ()
    ways_past: tuple[str, ...] = ()
    split: str | None = None
    notes: tuple[str, ...] = ()
    unheard: str | None = None

    @property
    def degrading(self) -> tuple[str, ...]:
        """All of them that make `verify` degraded."""
        return (*self.cut_off, *self.ways_past, *([self.split] if self.split else []))


def look_beside(
    ruleset: Ruleset | None, doors: Collection[Door], host: HostSnapshot | None = None
) -> Beside:
    """Look. A part that cannot be seen is a sentence too; nothing is raised."""
    view = HostView(runner=host or HostSnapshot(), own_table=False)
    lost = CutOff() if ruleset is None else cut_off(view, ruleset)
    cut, text = lost.certain, None
    if ruleset is not None:
        apart, text = no_way_back(view, ruleset)
        cut = (*cut, *apart)
        text = text or unheard(view, ruleset)
    called = ruleset is not None and bool(peers_of(ruleset))
    notes = lost.doubts if text is None else (*lost.doubts, text)
    return Beside(cut, problems(doors, view), _split(view), notes, text if called else None)


def _split(view: HostView) -> str | None:
    try:
        return split_of(look(view.runner))
    except BackendError as error:
        return f"cannot tell whether rules are split over two packet filters: {error}"
