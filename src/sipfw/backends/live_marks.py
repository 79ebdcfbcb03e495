"""Which of our rules are live, by the mark in their comments alone: an id and a digest each.

Quicker than the reading that `verify` compares, and enough to tell whether the applied firewall is
the one in the kernel.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from typing import TYPE_CHECKING

from sipfw.backends.nft_netlink import (
    DUMP,
    SUBSYS_NFTABLES,
    NetlinkError,
    Request,
    ask,
    name_attribute,
)
from sipfw.errors import BackendError
from sipfw.lower.naming import MARK
from sipfw.lower.nftables_plan import TABLE
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.backends.runner import Runner

_GET_RULES = (SUBSYS_NFTABLES << 8) | 7
_RULE_TABLE = 1

_PROGRAMS = {Family.IP: "iptables", Family.IP6: "ip6tables"}
_MARKS = re.compile(rf"{MARK}([^\"#\s]+#[0-9a-f]{{8}})".encode())


def marks(backend: str, family: Family, runner: Runner) -> Counter[str]:
    """Count the marks `<id>#<digest>` of live rules: of one family, nftables: of both."""
    text = _nft() if backend == "nftables" else _saved(backend, family, runner)
    return Counter(mark.decode("ascii", "replace") for mark in _MARKS.findall(text))


def _saved(backend: str, family: Family, runner: Runner) -> bytes:
    flavour = "nft" if backend == "iptables-nft" else "legacy"
    # Without -t the program creates no table that is not there.
    program = f"{_PROGRAMS[family]}-{flavour}-save"
    done = runner.run([program])
    if done.returncode != 0:
        raise BackendError(f"{program}: {done.stderr.strip() or 'cannot read the rules'}")
    return done.stdout.encode("utf-8", "surrogateescape")


def _nft() -> bytes:
    body = name_attribute(_RULE_TABLE, TABLE)
    try:
        replies = ask("inet", Request(_GET_RULES, body, "read the rules", DUMP))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return b""
        raise
    return b"\n".join(replies)
