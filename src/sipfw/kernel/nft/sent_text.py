"""Where a rule of nft sends packets: redirect, dnat, tproxy, and a port written into the packet.

What cannot be read counts as every port: a way past is better named once too often.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

from sipfw.compare.foreign import EVERY_PORT, Sent
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sipfw.ruleset.addresses import IpAddress

    # Lists the members of a named set or map of the rule's table; None where they cannot be had.
    Members: TypeAlias = Callable[[str], str | None]

SERVICES = {"sip": 5060, "sip-tls": 5061, "sips": 5061, "ssh": 22, "http": 80, "https": 443}

_QUOTED = re.compile(r'"[^"\n]*"')
_STATEMENT = re.compile(r"(?:ip6? )?(?:prefix )?(?:addr \. port )?to (.+)")
_MAP = re.compile(r"(.*?)\bmap (\{[^}]*\}|@\S+)")
_KEY_IS_PORT = re.compile(r"(?:.*[^.\s] +|.*:|)(?:udp|tcp|th) dport")
_TARGET = re.compile(r"(?:\[([0-9a-f:.]+)[^\]]*\]|([0-9.]+)(?:-[0-9.]+)?)?:(\d+(?:-\d+)?)(?:\s|$)")
# Without a port it is an address or a range of them.
_NO_PORT = re.compile(r"([0-9a-f]*[.:][0-9a-f.:]+)(?:-[0-9a-f.:]+)?(?:\s|$)")
_ADDRESS = re.compile(r"[0-9a-f]*[.:][0-9a-f.:]+")
_RANGE = re.compile(r"(\d{1,5})(?:[-:](\d{1,5}))?")


def listed(value: str, members: Members | None) -> list[str] | None:
    """Return the elements of `{ a, b }` or `@name`; None where they cannot be had."""
    text: str | None = value.strip("{} ")
    if value.startswith("@"):
        text = None if members is None else members(value[1:])
        text = None if text is None else _QUOTED.sub("", text)
    if text is None:
        return None
    return [item.strip() for item in text.split(",") if item.strip()]


def statement(text: str) -> str | None:
    """Return the target behind `redirect`, `dnat` or `tproxy`, None without one."""
    found = _STATEMENT.match(text)
    return None if found is None else found[1]


def sent(target: str, members: Members | None, *, written: bool) -> Iterator[Sent]:
    """Read a target; that of a port which is `written` into the packet has no address."""
    mapped = _MAP.search(target)
    if mapped is not None:
        for key, value in _pairs(mapped, members):
            yield Sent(_ports_in(value), _address_in(value), key)
    elif written:
        yield Sent(_range(target.split(maxsplit=1)[0]) or EVERY_PORT)
    elif (found := _TARGET.match(target)) is not None:
        yield Sent(_range(found[3]), _address_in(found[1] or found[2] or ""))
    elif (found := _NO_PORT.match(target)) is not None:
        yield Sent(None, _address_in(found[1]))


def _pairs(found: re.Match[str], members: Members | None) -> Iterator[tuple[PortRange | None, str]]:
    """Yield the ports of each key of a map, None for all, and its value, empty if not known."""
    elements = listed(found[2], members)
    if elements is None:
        yield None, ""
        return
    by_port = _KEY_IS_PORT.fullmatch(found[1].rstrip()) is not None
    for item in elements:
        key, _, value = item.partition(" : ")
        yield _range(key.split()[0]) if by_port else None, value.strip()


def _ports_in(value: str) -> PortRange | None:
    """Read `5060`, `192.0.2.1 . 5060` or nothing, which may be any; an address alone has none."""
    last = value.rpartition(" . ")[2].split()
    if not last:
        return EVERY_PORT
    return _range(last[0]) or (None if _ADDRESS.search(last[0]) else EVERY_PORT)


def _range(text: str) -> PortRange | None:
    if text in SERVICES:
        return PortRange(SERVICES[text], SERVICES[text])
    found = _RANGE.fullmatch(text)
    return None if found is None else PortRange(int(found[1]), int(found[2] or found[1]))


def _address_in(value: str) -> tuple[IpAddress, ...]:
    found = _ADDRESS.search(value)
    with suppress(ValueError):
        return () if found is None else (ip_address(found[0]),)
    return ()
