"""What the xtables matches of rules in our nftables table look for, in words that can be compared.

Any match is read, not only those that sipfw makes: whoever changed a rule may have chosen another.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.netlink.socket import (
    DUMP,
    SUBSYS_NFTABLES,
    NetlinkRequest,
    ask,
    attributes,
    name_attribute,
)
from sipfw.lower.naming import search_words
from sipfw.lower.nftables_plan import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

_GET_RULE = SUBSYS_NFTABLES << 8 | 7
# Attributes of a rule (enum nft_rule_attributes).
_TABLE, _CHAIN, _EXPRESSIONS = 1, 2, 4
# from, to, algorithm, pattern, pattern length, flags of struct xt_string_info, revision 1.
_STRING = struct.Struct("=HH16s128sBB")
_INVERT, _IGNORE_CASE = 1, 2
_TO_THE_END = 0xFFFF


def read_searches(chain: str) -> list[str | None]:
    """Return what each rule of a chain searches, None for a rule without an xtables match.

    Empty where the chain cannot be read.
    """
    place = name_attribute(_TABLE, TABLE) + name_attribute(_CHAIN, chain)
    found: list[bytes] = []
    with suppress(BackendError):
        found = ask("inet", NetlinkRequest(_GET_RULE, place, f"list chain {chain}", DUMP))
    rules = [dict(attributes(body)) for body in found]
    # Kernels before 4.1 do not filter the dump.
    return [
        " and ".join(_matches(fields.get(_EXPRESSIONS, b""))) or None
        for fields in rules
        if (_text(fields[_TABLE]), _text(fields[_CHAIN])) == (TABLE, chain)
    ]


def _matches(expressions: bytes) -> Iterator[str]:
    for _, expression in attributes(expressions):
        parts = dict(attributes(expression))
        if _text(parts[1]) != "match":
            continue
        data = dict(attributes(parts[2]))
        name, revision, info = _text(data[1]), struct.unpack("!I", data[2])[0], data[3]
        if name == "string" and revision == 1 and len(info) >= _STRING.size:
            yield _string(info)
        else:
            yield f"{name} {info.hex()}"


def _string(info: bytes) -> str:
    start, end, algorithm, pattern, length, flags = _STRING.unpack_from(info)
    words = search_words(pattern[:length], start)
    if end != _TO_THE_END:
        words += f" to byte {end}"
    if _text(algorithm) != "kmp":
        words += f" by {_text(algorithm)}"
    if not flags & _IGNORE_CASE:
        words += " in this case of letters"
    return f"not {words}" if flags & _INVERT else words


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="replace")
