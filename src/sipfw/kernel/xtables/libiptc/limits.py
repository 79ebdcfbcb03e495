"""Limits that libxtables does not check, checked before any of its code runs.

python-iptables cuts or wraps values silently (a LOG prefix at 29 bytes, port 70000 becomes 4464),
and a value that libxtables refuses costs the worker process. So every length, range and character
set is checked here, in pure Python, for the options that have such a limit. What only the kernel
can know (does the module exist, is the hit count too high for it) is left to the commit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from sipfw.lower.xtables import Family, XRule, XTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.lower.xtables import XMatch, XParam, XPlan, XTarget

VERDICTS = frozenset({"ACCEPT", "DROP", "RETURN"})
OUR_TABLES = ("raw", "mangle", "filter")
HOOKS = {
    "raw": frozenset({"PREROUTING", "OUTPUT"}),
    "mangle": frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}),
    "filter": frozenset({"INPUT", "FORWARD", "OUTPUT"}),
}

_CHAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,27}")  # 29 to 31 are accepted, then cut
_COMMENT = re.compile(r"sipfw:[A-Za-z0-9_.:=/@ #-]{1,249}")
_INTERFACE = re.compile(r"(! ?)?([A-Za-z0-9_.:@-]{1,15}|[A-Za-z0-9_.:@-]{0,14}\+)")
_PROTOCOL = re.compile(r"(! ?)?(all|tcp|udp|icmp|icmpv6|sctp|\d{1,3})")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_RATE = re.compile(r"[1-9]\d*(/(s|sec|second|m|min|minute|h|hour|d|day))?|[1-9]\d*[km]?b/s")
_HEX_PART = re.compile(r"\|((?:[0-9A-Fa-f]{2}| )*)\|")
_MAX_SLOTS = 15  # multiport: XT_MULTI_PORTS, a range takes two
_MAX_PATTERN = 128  # XT_STRING_MAX_PATTERN_SIZE

_Check = Callable[[str, Family], str | None]


def plan_faults(plan: XPlan) -> list[str]:
    """Return everything in the plan that must not reach libxtables."""
    return [fault for table in plan.tables for fault in table_faults(table)]


def table_faults(table: XTable) -> list[str]:
    """Return the faults of one table, each naming family, table, chain and rule."""
    where = f"{table.family} {table.name}"
    if table.name not in OUR_TABLES:
        return [f"{where}: only raw, mangle and filter are written"]
    faults = []
    names = {chain.name for chain in table.chains}
    for chain in table.chains:
        if not _CHAIN_NAME.fullmatch(chain.name):
            faults.append(f"{where}: chain name {chain.name!r}: at most 28 of A-Z a-z 0-9 _ -")
        if chain.name in VERDICTS or chain.name in HOOKS["mangle"]:
            faults.append(f"{where}: chain name {chain.name!r} is taken by iptables itself")
        if not chain.rules:
            faults.append(f"{where} {chain.name}: a chain without rules cannot carry our mark")
        for rule in chain.rules:
            faults += _in_rule(f"{where} {chain.name}", rule, table.family, names)
    for jump in table.jumps:
        if jump.hook not in HOOKS[table.name]:
            faults.append(f"{where}: no built-in chain {jump.hook}")
        faults += _in_rule(f"{where} {jump.hook}", jump.rule, table.family, names)
    return faults


def referenced_sets(table: XTable) -> set[str]:
    """Return the names of all ipsets that rules of the table use."""
    rules = [rule for chain in table.chains for rule in chain.rules]
    rules += [jump.rule for jump in table.jumps]
    found = set()
    for rule in rules:
        parts: list[XMatch | XTarget] = [*rule.matches]
        if rule.target is not None:
            parts.append(rule.target)
        for part in parts:
            found |= {
                param.values[0]
                for param in part.params
                if param.values and param.name in {"match-set", "add-set", "del-set", "map-set"}
            }
    return found


def network(value: str, family: Family) -> tuple[bool, str]:
    """Return (negated, address with prefix length) with host bits cleared, as iptables does it."""
    negate = value.startswith("!")
    parsed = ipaddress.ip_network(value.removeprefix("!").strip(), strict=False)
    if parsed.version != (4 if family is Family.IP else 6):
        raise ValueError(f"{value} is not an address of family {family}")
    return negate, str(parsed)


def pattern_bytes(option: str, value: str) -> bytes:
    """Return the bytes that a `string` or `hex-string` value stands for."""
    if option == "string":
        return value.encode()
    result = b""
    position = 0
    for part in _HEX_PART.finditer(value):
        result += value[position : part.start()].encode() + bytes.fromhex(part[1])
        position = part.end()
    rest = value[position:]
    if "\\" in _HEX_PART.sub("", value):
        raise ValueError(
            "write a backslash in a hex-string as |5c|: iptables reads it as an escape"
        )
    if "|" in rest:
        raise ValueError(f"hex-string {value!r}: bytes between bars must be pairs of hex digits")
    return result + rest.encode()


def _in_rule(where: str, rule: XRule, family: Family, chains: set[str]) -> Iterator[str]:
    at = f"{where}: rule {rule.comment!r}"
    if not _COMMENT.fullmatch(rule.comment):
        yield f"{at}: the comment must be sipfw:<id>#<digest>, at most 255 characters"
    if rule.protocol is not None and not _PROTOCOL.fullmatch(rule.protocol):
        yield f"{at}: protocol {rule.protocol!r} is not known"
    for name in ("source", "destination"):
        value: str | None = getattr(rule, name)
        try:
            if value is not None:
                network(value, family)
        except ValueError as error:
            yield f"{at}: {name}: {error}"
    for name in ("in_interface", "out_interface"):
        value = getattr(rule, name)
        if value is not None and not _INTERFACE.fullmatch(value):
            yield f"{at}: {name} {value!r}: at most 15 characters of an interface name"
    for match in rule.matches:
        yield from _in_part(at, match, family)
    if rule.target is not None:
        yield from _in_part(at, rule.target, family)
        yield from _in_target(at, rule.target, chains)


def _in_target(at: str, target: XTarget, chains: set[str]) -> Iterator[str]:
    if target.name == "NOTRACK":
        yield f"{at}: target NOTRACK loses its meaning in python-iptables; write CT with notrack"
    if target.goto and target.name not in chains:
        yield f"{at}: goto needs a chain of this table, not {target.name!r}"
    if target.params and (target.name in chains or target.name in VERDICTS):
        yield f"{at}: target {target.name} takes no options"


def _in_part(at: str, part: XMatch | XTarget, family: Family) -> Iterator[str]:
    if not _PLAIN_NAME.fullmatch(part.name):
        yield f"{at}: extension name {part.name!r}"
    for param in part.params:
        for value in param.values:
            if value == "!" or "\n" in value or "\0" in value:
                yield f"{at}: {part.name} --{param.name} {value!r}: not a possible value"
        fault = _in_param(part.name, param, family)
        if fault is not None:
            yield f"{at}: {part.name} --{param.name} {' '.join(param.values)}: {fault}"


def _in_param(extension: str, param: XParam, family: Family) -> str | None:
    check = _CHECKS.get((extension, param.name))
    if check is None:
        return None
    return check(param.values[0], family) if param.values else "needs a value"


def _number(low: int, high: int) -> _Check:
    def check(value: str, _: Family) -> str | None:
        # int() also takes signs, blanks and underscores, which libxtables reads otherwise.
        if value.isascii() and value.isdigit() and low <= int(value) <= high:
            return None
        return f"must be {low} to {high}"

    return check


def _text(limit: int, forbidden: str = "") -> _Check:
    def check(value: str, _: Family) -> str | None:
        if not value or len(value.encode()) > limit:
            return f"must have 1 to {limit} bytes; longer text is cut silently"
        if any(character in forbidden for character in value):
            return f"must not contain any of {forbidden!r}"
        return None

    return check


def _port_range(value: str, _: Family) -> str | None:
    ends = value.split(":")
    ports = [int(end) for end in ends if end.isascii() and end.isdigit()]
    if len(ports) == len(ends) <= 2 and ports == sorted(ports) and ports[-1] <= 65535:
        return None
    return "must be a port or low:high, 0 to 65535"


def _port_list(value: str, family: Family) -> str | None:
    slots = 0
    for item in value.split(","):
        slots += 2 if ":" in item else 1
        if fault := _port_range(item, family):
            return fault
    return None if slots <= _MAX_SLOTS else f"at most {_MAX_SLOTS} slots, a range takes two"


def _rate(value: str, _: Family) -> str | None:
    return None if _RATE.fullmatch(value) else "must be a rate such as 10/sec"


def _pattern(option: str) -> _Check:
    def check(value: str, _: Family) -> str | None:
        try:
            length = len(pattern_bytes(option, value))
        except ValueError as error:
            return str(error)
        # libxt_string refuses 128 bytes in the hex form, though the kernel takes them.
        limit = _MAX_PATTERN if option == "string" else _MAX_PATTERN - 1
        return None if 1 <= length <= limit else f"must have 1 to {limit} bytes"

    return check


def _word(*words: str) -> _Check:
    def check(value: str, _: Family) -> str | None:
        unknown = [word for word in value.split(",") if word not in words]
        return f"{unknown[0]!r} is not one of {' '.join(words)}" if unknown else None

    return check


def _prefix_length(value: str, family: Family) -> str | None:
    return _number(0, 32 if family is Family.IP else 128)(value, family)


def _mark(value: str, _: Family) -> str | None:
    parts = value.split("/")
    try:
        numbers = [int(part, 0) for part in parts]
    except ValueError:
        return "must be a mark or mark/mask"
    if len(parts) <= 2 and all(0 <= number <= _U32 for number in numbers):
        return None
    return "must be a mark or mark/mask of 32 bits"


_U32 = 0xFFFFFFFF
_SET_NAME = _text(31, "\"' /")  # IPSET_MAXNAMELEN - 1
_PORTS: dict[str, _Check] = dict.fromkeys(
    ("sport", "dport", "source-port", "destination-port"), _port_range
)
_MULTIPORTS: dict[str, _Check] = dict.fromkeys(
    ("sports", "dports", "ports", "source-ports", "destination-ports"), _port_list
)
_BY_EXTENSION: dict[str, dict[str, _Check]] = {
    "udp": _PORTS,
    "tcp": _PORTS,
    "sctp": _PORTS,
    "multiport": _MULTIPORTS,
    "string": {
        "string": _pattern("string"),
        "hex-string": _pattern("hex-string"),
        "algo": _word("bm", "kmp"),
        "from": _number(0, 65535),
        "to": _number(0, 65535),
    },
    "recent": {
        "name": _text(199, "/"),
        "seconds": _number(0, _U32),
        "hitcount": _number(1, _U32),
    },
    "hashlimit": {
        "hashlimit-above": _rate,
        "hashlimit-upto": _rate,
        "hashlimit-name": _text(254, "/"),
        "hashlimit-mode": _word("srcip", "srcport", "dstip", "dstport"),
        "hashlimit-srcmask": _prefix_length,
        "hashlimit-dstmask": _prefix_length,
        "hashlimit-htable-size": _number(1, _U32),
        "hashlimit-htable-max": _number(1, _U32),
        "hashlimit-htable-expire": _number(1, _U32),
        "hashlimit-htable-gcinterval": _number(1, _U32),
    },
    "limit": {"limit": _rate, "limit-burst": _number(1, 10000)},
    "connlimit": {
        "connlimit-above": _number(0, _U32),
        "connlimit-upto": _number(0, _U32),
        "connlimit-mask": _prefix_length,
    },
    "length": {"length": _port_range},
    "mark": {"mark": _mark},
    "connmark": {"mark": _mark},
    "MARK": {"set-mark": _mark, "set-xmark": _mark},
    "CONNMARK": {"set-mark": _mark, "set-xmark": _mark},
    "set": {"match-set": _SET_NAME},
    "SET": {
        "add-set": _SET_NAME,
        "del-set": _SET_NAME,
        "timeout": _number(0, 2147483),  # ipset: milliseconds of a day-sized timer in 32 bits
    },
    "comment": {"comment": _text(255)},
    "LOG": {"log-prefix": _text(29)},
    "NFLOG": {
        "nflog-prefix": _text(63),
        "nflog-group": _number(0, 65535),
        "nflog-size": _number(0, _U32),
        "nflog-threshold": _number(1, 65535),
    },
}
_CHECKS: dict[tuple[str, str], _Check] = {
    (extension, option): check
    for extension, checks in _BY_EXTENSION.items()
    for option, check in checks.items()
}
