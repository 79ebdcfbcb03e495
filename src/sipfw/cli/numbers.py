"""Numbers in the form that an operator reads."""

from __future__ import annotations

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
