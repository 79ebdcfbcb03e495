"""Numbers of the policy file: rates, times, counts; and how a message shows a value."""

from __future__ import annotations

import re

from sipfw.ruleset.match import Rate, TimeUnit

# hashlimit revision 1 (kernel 3.10, CentOS 7) takes no faster rate and no larger burst.
MAX_RATE_PER_SECOND = 10_000
MAX_BURST = 10_000

# Half a gigabyte of kernel memory for the sets of bans, and five for connection tracking.
MAX_SET = 1_000_000
MAX_CONNTRACK = 1 << 24

# A tier's burst is twice its rate, and hashlimit's burst ends at MAX_BURST.
MAX_CALLS = MAX_BURST // 2

# ipset refuses a larger timeout: UINT_MAX / MSEC_PER_SEC, linux/netfilter/ipset/ip_set_timeout.h.
MAX_DURATION = 4_294_967

_RATE = re.compile(r"^([0-9]{1,12}) */ *(s|sec|second|m|min|minute|h|hour)\Z")
_DURATION = re.compile(r"^([0-9]{1,12})(s|m|h|d)?\Z")
_DURATION_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE_UNITS = {"s": TimeUnit.SECOND, "m": TimeUnit.MINUTE, "h": TimeUnit.HOUR}

# How YAML writes what Python calls otherwise.
_YAML_WORDS = {"None": "null", "True": "true", "False": "false"}


def shown(value: object) -> str:
    """Quote an operator's value for a message, shortened and with control characters visible."""
    text = value if isinstance(value, str) else _YAML_WORDS.get(repr(value), repr(value))
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"


def parse_rate(value: object) -> Rate:
    """Accept `10/second`, `60/minute`, `100/hour`."""
    found = _RATE.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{shown(value)} is not a rate; write it like 10/second or 60/minute")
    rate = Rate(int(found[1]), _RATE_UNITS[found[2][0]])
    if rate.amount == 0:
        raise ValueError(f"{shown(value)} would block everything; write at least 1/hour")
    if rate.amount > MAX_RATE_PER_SECOND * rate.unit.seconds:
        raise ValueError(
            f"{shown(value)} is faster than the kernel's hashlimit counts; "
            f"write at most {MAX_RATE_PER_SECOND}/second"
        )
    return rate


def parse_duration(value: object) -> int:
    """Accept seconds as a number, or `30s`, `10m`, `1h`, `7d`; gives seconds."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = _DURATION.match(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{shown(value)} is not a duration; write it like 3600s, 60m, 1h or 7d")
    seconds = int(found[1]) * _DURATION_SECONDS[found[2] or "s"]
    if not 1 <= seconds <= MAX_DURATION:
        raise ValueError(f"{shown(value)} is out of range; write 1s to 49d")
    return seconds


def parse_count(value: object) -> int:
    """Accept a whole number of at least 1."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        if value > 0x7FFFFFFF:
            raise ValueError(f"{shown(value)} is too large; write at most {0x7FFFFFFF}")
        return value
    raise ValueError(f"{shown(value)} is not a limit; write a whole number of at least 1")


def parse_set_size(value: object) -> int:
    """Accept how many entries a set holds."""
    return _bounded(value, MAX_SET)


def parse_table_size(value: object) -> int:
    """Accept a size of the connection tracking table."""
    return _bounded(value, MAX_CONNTRACK)


def _bounded(value: object, most: int) -> int:
    if parse_count(value) > most:
        raise ValueError(
            f"{shown(value)} entries would take too much kernel memory; write at most {most}"
        )
    return parse_count(value)


def parse_burst(value: object) -> int:
    """Accept a bucket size in packets."""
    if parse_count(value) > MAX_BURST:
        raise ValueError(f"{shown(value)} is more than the kernel takes; write at most {MAX_BURST}")
    return parse_count(value)


def parse_calls(value: object) -> int:
    """Accept new calls per second of one peer."""
    if parse_count(value) > MAX_CALLS:
        raise ValueError(
            f"{shown(value)} is more than the kernel counts; write at most {MAX_CALLS}"
        )
    return parse_count(value)
