"""Rules that search packets for a text, in chains of an nf_tables table.

nft has no substring match and its text form cannot load the xtables one, so these rules go in by
netlink: nft makes the chain (and must never flush it), this fills it. Refuses to know why a text
is bad, and touches no chain it was not given.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from sipfw.errors import BackendError
from sipfw.host.child import child_command
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.netlink.socket import (
    APPEND,
    CREATE,
    DUMP,
    SUBSYS_COMPAT,
    SUBSYS_NFTABLES,
    NetlinkError,
    NetlinkRequest,
    ask,
    attribute,
    attributes,
    name_attribute,
    nested,
    send_batch,
)
from sipfw.kernel.snapshot import HostSnapshot
from sipfw.ruleset.rule import Goto, Jump

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sipfw.host.runner import Runner

Verdict: TypeAlias = Literal["drop", "return", "accept"] | Goto | Jump
_Pattern: TypeAlias = bytes  # TextRule has a field named bytes

_GET_COMPAT = SUBSYS_COMPAT << 8 | 0
_NEW_TABLE = SUBSYS_NFTABLES << 8 | 0
_NEW_CHAIN = SUBSYS_NFTABLES << 8 | 3
_NEW_RULE = SUBSYS_NFTABLES << 8 | 6
_GET_RULE = SUBSYS_NFTABLES << 8 | 7
_DELETE_RULE = SUBSYS_NFTABLES << 8 | 8

# Attributes of a rule (enum nft_rule_attributes).
_TABLE, _CHAIN, _EXPRESSIONS, _USERDATA = 1, 2, 4, 7

_CODES: Mapping[str, int] = {"drop": 0, "accept": 1, "return": -5}
_JUMP, _GOTO = -3, -4

_MAX_PATTERN = 128  # XT_STRING_MAX_PATTERN_SIZE
_MAX_COMMENT = 128  # nft refuses a longer one when its own listing is loaded
_MAX_CHAIN = 128
_IGNORE_CASE = 2
# from, to, algorithm, pattern, pattern length, flags of struct xt_string_info, revision 1.
_STRING = struct.Struct("=HH16s128sBB")
# A pointer of the kernel's follows. Its member is aligned to 8 bytes and so is the structure, so
# that 4 and 8 byte pointers both give 160 bytes; nft_compat refuses any other size.
_POINTER = struct.calcsize("P")
_ALIGNMENT = 8

_NO_PERMISSION = "no permission: CAP_SYS_ADMIN and CAP_NET_ADMIN are needed"
_OK = "ok"
_STRING_QUESTION = "ask for the string match"
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether something can be used here, and if not, why."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TextRule:
    """Packets with `pattern` (any case of letters) at or after byte `from_offset` get the verdict.

    Offset 0 is the first byte of the IP header. The counter starts at `packets` and `bytes`.
    """

    comment: str
    pattern: _Pattern
    from_offset: int
    verdict: Verdict
    packets: int = 0
    bytes: int = 0


def fill_chain(
    chain: str,
    rules: Sequence[TextRule],
    *,
    table_family: str = "inet",
    table: str = "sipfw",
) -> None:
    """Replace all rules of one chain at once; on an error the old ones stay."""
    fill_chains({chain: rules}, table_family=table_family, table=table)


def fill_chains(
    chains: Mapping[str, Sequence[TextRule]],
    *,
    table_family: str = "inet",
    table: str = "sipfw",
) -> None:
    """Replace all rules of these chains in one transaction; on an error the old ones stay."""
    requests: list[NetlinkRequest] = []
    for chain, rules in chains.items():
        place = name_attribute(_TABLE, table) + name_attribute(_CHAIN, chain)
        requests.append(NetlinkRequest(_DELETE_RULE, place, f"chain {chain}: remove the old rules"))
        for number, rule in enumerate(rules, start=1):
            what = f"chain {chain}: rule {number} of {len(rules)} ({rule.comment})"
            fault = _fault(rule)
            if fault is not None:
                raise BackendError(f"{what}: {fault}")
            body = place + encode_rule(rule)
            requests.append(NetlinkRequest(_NEW_RULE, body, what, CREATE | APPEND))
    if not requests:
        return
    try:
        send_batch(table_family, requests)
    except NetlinkError as error:
        hint = _hint(error, table_family, table)
        raise BackendError(error.message, hint=hint) from error


def read_chain(
    chain: str, *, table_family: str = "inet", table: str = "sipfw"
) -> tuple[TextRule, ...]:
    """Return the rules of a chain with their counters, ready to be filled in again.

    nft's listing does not show the pattern, so only this can tell what a rule searches.
    """
    place = name_attribute(_TABLE, table) + name_attribute(_CHAIN, chain)
    # A missing chain or table is an empty dump.
    found = ask(table_family, NetlinkRequest(_GET_RULE, place, f"list chain {chain}", DUMP))
    rules = []
    for number, body in enumerate(found, start=1):
        fields = dict(attributes(body))
        # Kernels before 4.1 do not filter the dump.
        if (fields[_TABLE], fields[_CHAIN]) != (_zero_ended(table), _zero_ended(chain)):
            continue
        try:
            rules.append(_decode_rule(fields))
        except (KeyError, ValueError, struct.error) as error:
            raise BackendError(f"chain {chain}: rule {number} is not a text rule") from error
    return tuple(rules)


def text_match_available(runner: Runner | None = None) -> Availability:
    """Try a text rule in a network namespace that a thread makes for itself alone.

    unshare(2) moves the calling thread, not the process. A runner that reaches another host or
    namespace asks there, by a process. A command asks more than once; what a kernel can do stays
    the same meanwhile.
    """
    if runner is None or type(runner) in {SubprocessRunner, HostSnapshot}:
        return _tried()
    return _try(runner)


@cache
def _tried() -> Availability:
    with ThreadPoolExecutor(max_workers=1) as elsewhere:
        return _availability(elsewhere.submit(_probe_in_scratch_namespace).result())


def _try(runner: Runner) -> Availability:
    done = runner.run(child_command(__name__, "say_what_is_missing"))
    said = done.stdout.strip()
    if done.returncode != 0 or not said:
        last = done.stderr.strip().splitlines()[-1:]
        return Availability(ok=False, reason=" ".join(["the probe failed:", *last]))
    return _availability(said)


def _availability(said: str) -> Availability:
    return Availability(ok=True) if said == _OK else Availability(ok=False, reason=said)


def say_what_is_missing() -> None:
    """Write what the probe says to stdout. Only for a process of its own."""
    sys.stdout.write(_probe_in_scratch_namespace())


def _probe_in_scratch_namespace() -> str:
    """Take this thread out of its network namespace for good; say `ok` or what is missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return probe() or _OK
    if ctypes.get_errno() == errno.EPERM:
        return _NO_PERMISSION
    return f"no scratch network namespace: {os.strerror(ctypes.get_errno())}"


def probe() -> str | None:
    """Put a text rule into a new table of this namespace; return what the kernel lacks."""
    table, number = name_attribute(1, "sipfw"), struct.Struct("!I")
    requests = [
        NetlinkRequest(_NEW_TABLE, table, "make a table", CREATE),
        NetlinkRequest(_NEW_CHAIN, table + name_attribute(3, "probe"), "make a chain", CREATE),
    ]
    string = name_attribute(1, "string") + attribute(2, number.pack(1)) + attribute(3, bytes(4))
    try:
        send_batch("inet", requests)
        # Both lacks are ENOENT to a rule; this question tells them apart.
        ask("ip", NetlinkRequest(_GET_COMPAT, string, _STRING_QUESTION))
        fill_chain("probe", [TextRule("sipfw:probe", b"x", 0, "drop")])
    except NetlinkError as error:
        return _lack(error)
    except BackendError as error:
        return error.message
    return None


def _lack(error: NetlinkError) -> str:
    if error.errno == errno.EPERM:
        return _NO_PERMISSION
    if error.request == _STRING_QUESTION:
        # nfnetlink says EINVAL for a subsystem that nobody has registered.
        return {
            errno.EINVAL: "the kernel has no nft_compat (CONFIG_NFT_COMPAT)",
            errno.ENOENT: "the kernel has no xt_string (CONFIG_NETFILTER_XT_MATCH_STRING)",
        }.get(error.errno, error.message)
    if error.errno in {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
        return "the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)"
    return error.message


def encode_rule(rule: TextRule) -> _Pattern:
    """Return expressions and comment of a rule as netlink attributes."""
    counter = attribute(1, struct.pack("!Q", rule.bytes)) + attribute(
        2, struct.pack("!Q", rule.packets)
    )
    data = nested(
        _EXPRESSIONS,
        _expression("match", _string_match(rule)),
        _expression("counter", counter),
        # Register 0 is the verdict.
        _expression("immediate", attribute(1, struct.pack("!I", 0)), _verdict(rule.verdict)),
    )
    comment = _zero_ended(rule.comment)
    # NFTNL_UDATA_RULE_COMMENT is type 0 of libnftnl's own type-length-value form.
    return data + attribute(_USERDATA, bytes([0, len(comment)]) + comment)


def _expression(name: str, *data: _Pattern) -> _Pattern:
    return nested(1, name_attribute(1, name), nested(2, *data))


def _string_match(rule: TextRule) -> _Pattern:
    # kmp: bm misses a text that crosses the border of two fragments.
    info = _STRING.pack(
        rule.from_offset, 0xFFFF, b"kmp", rule.pattern, len(rule.pattern), _IGNORE_CASE
    )
    info += b"\0" * (-len(info) % _ALIGNMENT + _POINTER)
    info += b"\0" * (-len(info) % _ALIGNMENT)
    return name_attribute(1, "string") + attribute(2, struct.pack("!I", 1)) + attribute(3, info)


def _verdict(verdict: Verdict) -> _Pattern:
    match verdict:
        case Jump(chain):
            code, chain_name = _JUMP, name_attribute(2, chain)
        case Goto(chain):
            code, chain_name = _GOTO, name_attribute(2, chain)
        case _:
            code, chain_name = _CODES[verdict], b""
    return nested(2, nested(2, attribute(1, struct.pack("!i", code)), chain_name))


def _fault(rule: TextRule) -> str | None:
    """Return why the kernel or nft would not take the rule, None when they would."""
    comment = len(rule.comment.encode())
    if not 1 <= len(rule.pattern) <= _MAX_PATTERN:
        return f"a pattern has 1 to {_MAX_PATTERN} bytes, not {len(rule.pattern)}"
    if not 1 <= comment <= _MAX_COMMENT or not rule.comment.isprintable() or '"' in rule.comment:
        return f'a comment has 1 to {_MAX_COMMENT} printable bytes and no "'
    if not 0 <= rule.from_offset <= 0xFFFF:
        return f"offset {rule.from_offset} is not within 0 to 65535"
    if not (0 <= rule.packets < 1 << 64 and 0 <= rule.bytes < 1 << 64):
        return "a counter starts within 0 to 2^64-1"
    if isinstance(rule.verdict, Jump | Goto) and not 1 <= len(rule.verdict.chain) < _MAX_CHAIN:
        return f"a chain's name has 1 to {_MAX_CHAIN - 1} characters"
    return None


def _hint(error: NetlinkError, table_family: str, table: str) -> str | None:
    match error.errno, error.attribute:
        case errno.EPERM, _:
            return "it needs CAP_NET_ADMIN"
        case errno.ENOENT, 1:
            return f"there is no table {table_family} {table}"
        case errno.ENOENT, 2:
            return "there is no such chain"
        case errno.ENOENT, _:
            return "the chain it leads to, or the kernel's string match, does not exist"
        case errno.EMLINK, _:
            return "the chain it leads to comes back here"
        case errno.EOPNOTSUPP, _:
            return "a base chain cannot be jumped to"
    return None


def _zero_ended(text: str) -> _Pattern:
    return text.encode() + b"\0"


def _text(data: _Pattern) -> str:
    return data.rstrip(b"\0").decode()


def _decode_rule(fields: Mapping[int, _Pattern]) -> TextRule:
    names, details = [], []
    for _, expression in attributes(fields[_EXPRESSIONS]):
        parts = dict(attributes(expression))
        names.append(_text(parts[1]))
        details.append(dict(attributes(parts[2])))
    match, counter, immediate = details if names == ["match", "counter", "immediate"] else ({},) * 3
    start, _, _, pattern, length, flags = _STRING.unpack_from(match[3])
    if _text(match[1]) != "string" or flags != _IGNORE_CASE:
        raise ValueError("another match")
    return TextRule(
        comment=_decode_comment(fields[_USERDATA]),
        pattern=pattern[:length],
        from_offset=start,
        verdict=_decode_verdict(immediate[2]),
        packets=struct.unpack("!Q", counter[2])[0],
        bytes=struct.unpack("!Q", counter[1])[0],
    )


def _decode_comment(userdata: _Pattern) -> str:
    kind, length = userdata[:2]
    if kind != 0:
        raise ValueError("no comment")
    return _text(userdata[2 : 2 + length])


def _decode_verdict(data: _Pattern) -> Verdict:
    parts = dict(attributes(dict(attributes(data))[2]))
    code = struct.unpack("!i", parts[1])[0]
    if code in {_JUMP, _GOTO}:
        chain = _text(parts[2])
        return Jump(chain) if code == _JUMP else Goto(chain)
    for name in ("drop", "accept", "return"):
        if _CODES[name] == code:
            return name
    raise ValueError("another verdict")
