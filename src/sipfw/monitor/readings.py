"""Earlier looks at the counters, kept for rates, `--since` and the report; older ones thinned out.

A file is named after the millisecond it was taken at, so that the listing of the folder tells which
ones to keep without opening any.
"""

from __future__ import annotations

import bisect
from contextlib import suppress
from typing import TYPE_CHECKING

from sipfw.host.files import read_private, write_atomically
from sipfw.monitor.reading import Reading, from_text, to_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sipfw.host.files import Layout

# Of readings as old as this, one per so many seconds is kept: some 1,100 files at most.
_THINNED = ((7200.0, 600.0), (172_800.0, 3600.0))
_FORGOTTEN = 31 * 86_400.0
# A clock that was set back leaves readings from the future; this much may be a slow clock's doing.
_TOLERANCE = 60.0


def keep(layout: Layout, reading: Reading, gap: float = 5.0) -> None:
    """Keep a reading unless there is one that is not older than `gap` seconds, and thin out.

    Only where sipfw has a folder already. Raises BackendError when it cannot be written.
    """
    if not layout.state.exists():
        return
    times = _times(layout)
    future = [time for time in times if time > reading.taken + _TOLERANCE]
    times = times[: len(times) - len(future)]
    if not times or reading.taken - times[-1] >= gap:
        write_atomically(_path(layout, reading.taken), to_text(reading))
        times.append(reading.taken)
    for time in (*future, *superfluous(times, reading.taken)):
        _path(layout, time).unlink(missing_ok=True)


def superfluous(times: Sequence[float], now: float) -> list[float]:
    """Name the readings to forget; `times` in order."""
    gone = []
    kept = float("-inf")
    for time in times:
        gap = max((gap for age, gap in _THINNED if now - time >= age), default=0.0)
        if now - time > _FORGOTTEN or time - kept < gap:
            gone.append(time)
        else:
            kept = time
    return gone


def latest(layout: Layout, before: float) -> Reading | None:
    """Return the newest readable reading not younger than `before`, None without one."""
    times = _times(layout)
    for time in reversed(times[: bisect.bisect_right(times, before)]):
        reading = _read(layout, time)
        if reading is not None:
            return reading
    return None


def since(layout: Layout, moment: float) -> Reading | None:
    """Return the newest reading at or before `moment`, else the oldest one there is."""
    found = latest(layout, moment)
    if found is not None:
        return found
    return next((item for time in _times(layout) if (item := _read(layout, time))), None)


def history(layout: Layout, start: float) -> list[Reading]:
    """Return all readable readings since `start`, oldest first."""
    found = (_read(layout, time) for time in _times(layout) if time >= start)
    return [item for item in found if item is not None]


def _times(layout: Layout) -> list[float]:
    names = (path.stem for path in layout.readings.glob("[0-9]*.json"))
    return sorted(int(name) / 1000 for name in names if name.isdecimal())


def _path(layout: Layout, taken: float) -> Path:
    return layout.readings / f"{round(taken * 1000):015d}.json"


def _read(layout: Layout, time: float) -> Reading | None:
    """Return a reading, None where the file is damaged: a lost one makes no harm."""
    with suppress(OSError, ValueError):
        return from_text(read_private(_path(layout, time)))
    return None
