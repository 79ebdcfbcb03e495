"""Is it well? Drift, and what will hurt soon, in the words and numbers of a monitoring check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.monitor.report import Report

# From here on somebody should act; at 100 % connection tracking drops calls and a full set bans
# and learns nobody.
NEARLY_FULL = 0.8
UNGUARDED = "no rule of sipfw is in the kernel, SIP is unguarded"


class HealthState(IntEnum):
    """The exit code of `verify`, in the order of Nagios: fine, warning, critical."""

    HEALTHY = 0
    DRIFT = 1
    DEGRADED = 2


@dataclass(frozen=True, slots=True)
class Health:
    """The worst state, and every reason for it in one sentence each.

    `notes` are no reason: what strangers lose, and what nobody can tell. `active` tells whether any
    rule of ours is in the kernel. `unheard` says why no call of a trusted peer reaches a program:
    the firewall is well then, and the host is not.
    """

    state: HealthState
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    active: bool = True
    unheard: str | None = None

    @property
    def line(self) -> str:
        """Say it in one line."""
        if not self.active:
            return f"NOT ACTIVE: {UNGUARDED}"
        if not self.problems and self.unheard is not None:
            return f"OUT OF SERVICE: the live firewall is the applied one, but {self.unheard}"
        if not self.problems:
            return "HEALTHY: the live firewall is the applied one"
        return f"{self.state.name}: {'; '.join(self.problems)}"


def judge(
    report: Report,
    split: str | None = None,
    ways_past: tuple[str, ...] = (),
    *,
    losses: tuple[str, ...] = (),
    cut_off: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    unheard: str | None = None,
) -> Health:
    """Judge a report.

    `split` says how the host's rules are split over two packet filters, `ways_past` what leads
    other ports to the guarded ones, `losses` what of trusted peers was dropped lately, `cut_off`
    what rules of others take from them, `unheard` why nobody hears them.
    """
    degraded = [*cut_off, *losses, *ways_past, *_degraded(report), *([split] if split else [])]
    drift = _drift(report)
    state = (
        HealthState.DEGRADED if degraded else HealthState.DRIFT if drift else HealthState.HEALTHY
    )
    counts = [count for rule in report.rules for count in rule.counts.values()]
    active = not counts or any(count is not None for count in counts)
    return Health(state, (*drift, *degraded), notes, active, unheard)


def _drift(report: Report) -> tuple[str, ...]:
    if not report.drift:
        return ()
    first, *others = report.drift
    more = f" and {len(others)} more" if others else ""
    return (f"{first}{more}",)


def _degraded(report: Report) -> Iterator[str]:
    share = report.conntrack.share
    if share is not None and share > NEARLY_FULL:
        yield (
            f"connection tracking is {100 * share:.0f} % full, "
            f"{report.conntrack.count:,} of {report.conntrack.limit:,}"
        )
    for item in report.sets:
        if item.dynamic and not item.notes and item.entries is not None and item.size:
            full = item.entries / item.size
            if full > NEARLY_FULL:
                yield (
                    f"set {item.name} is {100 * full:.0f} % full, {item.entries:,} of {item.size:,}"
                )
    for setting in report.sysctls:
        # Nobody can mend a fixed one here, so an alarm would never end.
        if not setting.agrees and not setting.fixed:
            now = "absent" if setting.actual is None else setting.actual
            yield f"{setting.name} is {now}, the policy says {setting.wanted}"
