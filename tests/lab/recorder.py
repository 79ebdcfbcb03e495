"""What reached one listener, shared by its receiving thread and the agent's command loop."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from lab import sip

if TYPE_CHECKING:
    from collections.abc import Callable


class Record(NamedTuple):
    source: str
    source_port: int
    destination: str
    connection: int
    payload: bytes


class Recorder:
    """Count everything and keep the first `keep` payloads, so that a flood cannot eat memory."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._changed = threading.Condition()
        self._records: list[Record] = []
        self._kinds: Counter[str] = Counter()
        self._total = 0
        self._last = 0.0

    def add(self, record: Record) -> None:
        with self._changed:
            self._total += 1
            self._kinds[sip.kind(record.payload)] += 1
            self._last = time.monotonic()
            if len(self._records) < self._keep:
                self._records.append(record)
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._records.clear()
            self._kinds.clear()
            self._total = 0

    def total(self) -> int:
        return self._total

    def kinds(self) -> dict[str, int]:
        with self._changed:
            return dict(self._kinds)

    def records(self) -> list[Record]:
        with self._changed:
            return list(self._records)

    def wait(self, wanted: int, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._total >= wanted, timeout)

    def settle(self, quiet: float, timeout: float, pending: Callable[[], bool]) -> bool:
        """Return True once nothing arrived for `quiet` seconds and nothing is `pending`."""
        started = time.monotonic()
        while (now := time.monotonic()) < started + timeout:
            remaining = max(self._last, started) + quiet - now
            # A starved receiving thread looks quiet; its socket's queue tells the truth.
            if remaining <= 0 and not pending():
                return True
            time.sleep(max(remaining, 0.002))
        return False
