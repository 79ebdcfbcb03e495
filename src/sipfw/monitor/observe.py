"""One look at the live host: the report, its health, and what grew since an earlier look."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.deploy.applied import read_applied
from sipfw.kernel.backend import backend_of
from sipfw.kernel.snapshot import HostSnapshot
from sipfw.monitor import readings
from sipfw.monitor.beside import look_beside
from sipfw.monitor.doctor.record import ruleset_of
from sipfw.monitor.health import Health, judge
from sipfw.monitor.inspect import look as look_at
from sipfw.monitor.peer_traffic import lost_lately, lost_unnamed, traffic
from sipfw.monitor.policy_changed import policy_changed
from sipfw.monitor.reading import Growth, Reading, growth, make_reading
from sipfw.monitor.summary import LayerSummary, summarise

if TYPE_CHECKING:
    from collections.abc import Callable

    from sipfw.compare.drift import Drift
    from sipfw.compare.expected import Expectation
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Backend
    from sipfw.monitor.peer_traffic import PeerTraffic
    from sipfw.monitor.report import Report
    from sipfw.ruleset.model import Ruleset

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at: an applied firewall, or what a policy would be.

    `ruleset` gives its rules as the policy means them; None where nobody has kept them. `host` is
    the look at the packet filters that the backend and everybody else share.
    """

    expectation: Expectation
    backend: Backend
    source: str
    generation: int | None = None
    layout: Layout | None = None
    ruleset: Callable[[], Ruleset | None] = field(default=lambda: None, compare=False)
    host: HostSnapshot = field(default_factory=HostSnapshot, compare=False)


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look found. `earlier` is the reading that `growth` counts from.

    `peers` are those of which packets were dropped within a day, or all where that was asked for.
    `policy_changed` says that the policy file is no longer what is in force.
    """

    subject: Subject
    report: Report
    health: Health
    reading: Reading
    layers: tuple[LayerSummary, ...]
    earlier: Reading | None
    growth: Growth | None
    peers: tuple[PeerTraffic, ...] = ()
    policy_changed: str | None = None


def applied_subject(layout: Layout) -> Subject | None:
    """Return what the record says is live, None when there is no record."""
    applied = read_applied(layout)
    if applied is None:
        return None
    host = HostSnapshot()
    return Subject(
        applied.expectation,
        backend_of(applied.backend, host=host),
        applied.source,
        applied.generation,
        layout,
        cache(partial(ruleset_of, layout, applied.generation)),
        host,
    )


def observe(
    subject: Subject,
    earlier: Reading | None,
    more: tuple[Drift, ...] = (),
    *,
    all_peers: bool = False,
) -> Observation:
    """Look. Writes nothing, neither to the kernel nor to a file.

    `more` are differences that were found in another way.
    """
    # A screen that is refreshed looks again and again.
    subject.host.forget()
    report, live = look_at(subject.expectation, subject.backend)
    if more:
        report = replace(report, drift=_joined(report.drift, more))
    reading = make_reading(report, taken=time.time(), boot=boot_id(), generation=subject.generation)
    grown = None if earlier is None else growth(earlier, reading)
    peers = traffic(subject, live, report.rules, all_peers=all_peers)
    # What was dropped before an apply, that apply may have mended.
    same = earlier is not None and earlier.generation == subject.generation
    unnamed = lost_unnamed(subject.expectation, report, grown if same else None)
    losses = (*lost_lately(peers, reading.taken), *unnamed)
    changed = None
    if subject.layout is not None and subject.generation is not None:
        changed = policy_changed(subject.layout, subject.generation)
    beside = look_beside(subject.ruleset(), subject.expectation.doors, subject.host)
    return Observation(
        subject,
        report,
        judge(
            report,
            beside.split,
            beside.ways_past,
            losses=losses,
            cut_off=beside.cut_off,
            notes=(*beside.notes, *([changed] if changed else [])),
            unheard=beside.unheard,
        ),
        reading,
        summarise(report.rules, grown),
        earlier,
        grown,
        peers,
        changed,
    )


def keep(layout: Layout, observation: Observation, gap: float = 5.0) -> None:
    """Keep the reading of an applied firewall for later; see `readings.keep`."""
    if observation.subject.generation is not None:
        readings.keep(layout, observation.reading, gap)


def boot_id() -> str:
    """Return the name of this run of the kernel (random(4)); empty where it is hidden."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _joined(first: tuple[Drift, ...], more: tuple[Drift, ...]) -> tuple[Drift, ...]:
    named = {(item.kind, item.what, item.where) for item in first}
    return (*first, *(item for item in more if (item.kind, item.what, item.where) not in named))
