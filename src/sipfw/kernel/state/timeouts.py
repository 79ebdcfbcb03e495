"""The longest time that an element of a dynamic set may have, by the kind of sets."""

from __future__ import annotations

from sipfw.errors import BackendError
from sipfw.words import format_duration

# IPSET_MAX_TIMEOUT is (UINT_MAX >> 1) / MSEC_PER_SEC, linux/netfilter/ipset/ip_set_timeout.h.
_LONGEST = {"ipset": 2_147_483}


def longest_timeout(sets: str) -> int | None:
    """Return it in seconds for `Facts.sets`; None where every time of a policy fits."""
    return _LONGEST.get(sets)


def fitting(seconds: int, sets: str) -> int:
    """Return the time, or the longest one that fits."""
    longest = longest_timeout(sets)
    return seconds if longest is None else min(seconds, longest)


def require_fitting(seconds: int, sets: str) -> None:
    """Raise BackendError for a time that the kernel would refuse."""
    longest = longest_timeout(sets)
    if longest is not None and seconds > longest:
        days = longest // 86_400
        raise BackendError(
            f"{format_duration(seconds)} is longer than {sets} can hold an address: its longest "
            f"timeout is {longest} s ({longest / 86_400:.1f} days); nothing was changed",
            hint=f"write at most {days}d, or apply with --backend nftables",
        )
