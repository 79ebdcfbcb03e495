"""Numbers, times and addresses in the form that an operator reads."""

from __future__ import annotations

import time

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count_text(value: int) -> str:
    """Write 12345 as `12,345`."""
    return f"{value:,}"


def bytes_text(value: float) -> str:
    """Write 1234567 as `1.2 MB`; units of a thousand, as network people count."""
    for unit in _BYTE_UNITS[:-1]:
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} {_BYTE_UNITS[-1]}"


def rate_text(value: float | None) -> str:
    """Write a number per second; `-` where it is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def share_text(value: float) -> str:
    """Write a part of one as per cent."""
    return "-" if value == 0 else f"{100 * value:.0f} %" if value >= 0.01 else "< 1 %"


def span_text(seconds: float) -> str:
    """Write a length of time in its two largest units: `41 min 12 s`, `3 d 2 h`."""
    left = max(round(seconds), 0)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        amount, left = divmod(left, size)
        if amount or (unit == "s" and not parts):
            parts.append(f"{amount} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def moment_text(epoch: float) -> str:
    """Write a moment in this host's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))
