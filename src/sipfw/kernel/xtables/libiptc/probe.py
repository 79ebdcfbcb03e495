"""Asking libxtables and the kernel which matches and targets work here.

Runs in a network namespace of its own, so a probe never touches live rules, and each question in
a child process, because a wrong answer may be a crash. What a probe rule means is irrelevant.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.libiptc.build import RuleBuilder
from sipfw.kernel.xtables.libiptc.protocol import Feature
from sipfw.kernel.xtables.libiptc.table import KernelTable
from sipfw.lower.xtables import Family, XMatch, XParam, XRule, XTarget

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

_CLONE_NEWNET = 0x40000000
_SET = {Family.IP: "sipfw-probe4", Family.IP6: "sipfw-probe6"}
_ACCEPTED, _NOT_FOUND, _REFUSED = 0, 3, 4


def probe(iptc: ModuleType, names: Sequence[str]) -> Iterator[Feature]:
    """Try every named extension in both families; `table` stands for the legacy core itself."""
    isolated = _enter_scratch_namespace()
    for family in Family:
        for name in names:
            if name not in _SAMPLES:
                reason = "no probe is written for it"
                yield Feature(family, name, found=False, accepted=None, reason=reason)
                continue
            status, reason = _in_child(iptc, family, name, isolated=isolated)
            accepted = None if not isolated else status == _ACCEPTED
            yield Feature(family, name, status in {_ACCEPTED, _REFUSED}, accepted, reason)


def _enter_scratch_namespace() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        return False
    for family, name in _SET.items():
        inet = "inet" if family is Family.IP else "inet6"
        # Without ipset or its module only the set features fail, which is the right answer.
        subprocess.run(
            ["ipset", "create", name, "hash:ip", "family", inet, "timeout", "60"],
            check=False,
            capture_output=True,
        )
    return True


def _in_child(iptc: ModuleType, family: Family, name: str, *, isolated: bool) -> tuple[int, str]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status, reason = _try(iptc, family, name, isolated=isolated)
        os.write(writer, reason.encode()[:1000])
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as stream:
        reason = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, reason if status >= 0 else f"libxtables died of signal {-status}"


def _try(iptc: ModuleType, family: Family, name: str, *, isolated: bool) -> tuple[int, str]:
    table, part = _SAMPLES[name]
    rule = _rule(family, part)
    try:
        entry = RuleBuilder(iptc, family, frozenset()).build(rule)
    except Exception as error:  # noqa: BLE001 - any failure is the answer, and the child ends
        return _NOT_FOUND, str(error)
    if not isolated:
        return _ACCEPTED, ""
    try:
        kernel = KernelTable(iptc, family, table)
        hook = "INPUT" if table == "filter" else "PREROUTING"
        kernel.append(hook, entry)
        kernel.commit()
    except Exception as error:  # noqa: BLE001 - any failure is the answer, and the child ends
        return _REFUSED, str(error)
    return _ACCEPTED, ""


def _rule(family: Family, part: XMatch | XTarget | None) -> XRule:
    protocol = part.name if part is not None and part.name in {"tcp", "udp"} else "udp"
    if part is None:
        return XRule("sipfw:probe")
    named = type(part)(
        part.name,
        tuple(
            XParam(param.name, tuple(value.format(set=_SET[family]) for value in param.values))
            for param in part.params
        ),
    )
    if isinstance(named, XTarget):
        return XRule("sipfw:probe", protocol, target=named)
    return XRule("sipfw:probe", protocol, matches=(named,))


def _options(*options: tuple[str, ...]) -> tuple[XParam, ...]:
    return tuple(XParam(name, tuple(values)) for name, *values in options)


# Feature -> table that it is tried in, and the extension with plain options.
_SAMPLES: dict[str, tuple[str, XMatch | XTarget | None]] = {
    "table": ("filter", None),
    "addrtype": ("raw", XMatch("addrtype", _options(("dst-type", "LOCAL")))),
    "bpf": ("raw", XMatch("bpf", _options(("bytecode", "1,6 0 0 0")))),
    "comment": ("raw", XMatch("comment", _options(("comment", "sipfw probe")))),
    "connlimit": ("filter", XMatch("connlimit", _options(("connlimit-above", "9")))),
    "conntrack": ("filter", XMatch("conntrack", _options(("ctstate", "NEW")))),
    "hashlimit": (
        "raw",
        XMatch(
            "hashlimit",
            _options(
                ("hashlimit-above", "9/sec"),
                ("hashlimit-mode", "srcip"),
                ("hashlimit-name", "sipfw_probe"),
            ),
        ),
    ),
    "length": ("raw", XMatch("length", _options(("length", "0:40")))),
    "limit": ("raw", XMatch("limit", _options(("limit", "9/sec")))),
    "mark": ("raw", XMatch("mark", _options(("mark", "1")))),
    "multiport": ("raw", XMatch("multiport", _options(("dports", "5060,5061")))),
    "recent": ("raw", XMatch("recent", _options(("set",), ("name", "sipfw_probe")))),
    "set": ("raw", XMatch("set", _options(("match-set", "{set}", "src")))),
    "u32": ("raw", XMatch("u32", _options(("u32", "28=0x4f505449")))),
    "string": ("raw", XMatch("string", _options(("algo", "kmp"), ("string", "sip")))),
    "tcp": ("raw", XMatch("tcp", _options(("dport", "5060")))),
    "udp": ("raw", XMatch("udp", _options(("dport", "5060")))),
    "CT": ("raw", XTarget("CT", _options(("notrack",)))),
    "LOG": ("raw", XTarget("LOG", _options(("log-prefix", "sipfw")))),
    "MARK": ("mangle", XTarget("MARK", _options(("set-xmark", "0x1/0x1")))),
    "NFLOG": ("raw", XTarget("NFLOG", _options(("nflog-group", "5")))),
    "REJECT": ("filter", XTarget("REJECT")),
    "SET": ("raw", XTarget("SET", _options(("add-set", "{set}", "src"), ("exist",)))),
}
