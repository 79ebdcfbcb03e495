"""Processes that stand for machines of their own: they wait for nobody else on this one.

A flood that is kept from its processor leaves tokens in every bucket for whoever comes then, and
a phone that runs when the clock ticks finds those that the tick has brought. Both would measure
the laboratory.
"""

from __future__ import annotations

import contextlib
import os


def be_prompt() -> None:
    """Let this thread run whenever it wants to (SCHED_FIFO, see sched(7)), where that is allowed.

    For what is idle most of the time and ends soon.
    """
    with contextlib.suppress(PermissionError):
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(1))


def be_patient() -> None:
    """Take turns again as all processes do."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
