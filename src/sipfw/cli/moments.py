"""Moments and lengths of time on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import click


def iso(moment: float) -> str:
    """Write a moment for programs: UTC, to the millisecond (RFC 3339)."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def moment_of(text: str, now: float, option: str = "--since") -> float:
    """Read `last`, `10m` or `2026-11-24T08:00`; gives seconds since 1970.

    A moment without a zone is in this host's. Raises click.BadParameter.
    """
    from sipfw.policy.quantities import parse_duration

    if text == "last":
        return now
    try:
        moment = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        try:
            return now - parse_duration(text)
        except ValueError as error:
            raise click.BadParameter(
                f"{text!r} is not a time; write `last`, 10m, 1d or 2026-11-24T08:00",
                param_hint=option,
            ) from error
    if moment > now:
        raise click.BadParameter(f"{text} has not come yet", param_hint=option)
    return moment
