"""Tries each kind of statement of an nftables transaction by itself, in a scratch namespace."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.kernel.namespace import ProgramRun, run_in_scratch

if TYPE_CHECKING:
    from sipfw.host.runner import Runner

_TABLE = "add table inet sipfw_probe\nadd chain inet sipfw_probe probe\n"
_SET = "add set inet sipfw_probe probe {{ type ipv4_addr; {} }}\n"
_RULE = "add rule inet sipfw_probe probe {}\n"
_LIMITED = "sets whose elements have a limit (kernel 5.7)"
_FILLED = _SET.format("flags dynamic,timeout; timeout 1m; size 9;")


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of statement: how a transaction shows that it has it, and a harmless one."""

    module: str
    sign: str
    text: str


# Modules as net/netfilter/Makefile names them; where the core has the expression (nf_tables_core)
# a kernel without it is too old, and the name says from when on it is there.
_KINDS = (
    _Kind("nf_tables", "", ""),
    _Kind("nft_counter", r"\bcounter\b", _RULE.format("counter")),
    _Kind("nft_ct", r"\bct (state|original)\b|\bnotrack\b", _RULE.format("ct state new")),
    _Kind("nft_connlimit", r"\bct count\b", _RULE.format("ct count over 4")),
    _Kind("nft_limit", r"\blimit rate\b", _RULE.format("limit rate 1/second")),
    _Kind("nft_quota", r"\bquota\b", _RULE.format("quota over 1000 bytes")),
    _Kind("nft_log", r"\blog prefix\b", _RULE.format('log prefix "sipfw"')),
    _Kind("nfnetlink_log", r"\blog prefix .* group\b", _RULE.format('log prefix "sipfw" group 5')),
    _Kind(
        "nft_reject_inet",
        r"\breject\b",
        _RULE.format("meta l4proto tcp reject with tcp reset"),
    ),
    _Kind("sets of networks", r"\bflags interval\b", _SET.format("flags interval;")),
    _Kind(
        "sets that packets fill, with an expiry",
        r"\b(add|update) @",
        _FILLED + _RULE.format("update @probe { ip saddr }"),
    ),
    _Kind(
        _LIMITED,
        r"\b(add|update) @\S+ \{ [^}]*\b(limit|quota|ct count)\b",
        _FILLED + _RULE.format("update @probe { ip saddr limit rate over 1/second }"),
    ),
    _Kind("raw payload @th", r"@th,", _RULE.format("@th,64,32 0x1")),
    _Kind("raw payload @ih (kernel 5.16)", r"@ih,", _RULE.format("@ih,0,8 0x1")),
)


def missing_statements(runner: Runner, transaction: str) -> list[str]:
    """Name what of the transaction the kernel, or this nft, cannot do alone.

    Empty where everything works alone, or where no scratch namespace can be made.
    """
    used = [kind for kind in _KINDS if re.search(kind.sign, transaction)]
    steps = [
        ProgramRun(("nft", "-f", "-"), f"{_TABLE}{kind.text}delete table inet sipfw_probe\n")
        for kind in used
    ]
    done = run_in_scratch(runner, steps, to_the_end=True)
    if done is None:
        return []
    failed = [
        kind.module for kind, answer in zip(used, done, strict=True) if answer.returncode != 0
    ]
    # Without the core nothing works, and the rest is no news; nor is a limit inside of a set.
    if "nf_tables" in failed:
        return ["nf_tables"]
    return [name for name in failed if name != _LIMITED or "nft_limit" not in failed]
