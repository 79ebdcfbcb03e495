"""Which of our rules are live, by the mark in their comments alone: an id and a digest each.

Quicker than the reading that `verify` compares, and enough to tell whether the applied firewall is
the one in the kernel.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.netlink.socket import (
    DUMP,
    SUBSYS_NFTABLES,
    NetlinkError,
    NetlinkRequest,
    ask,
    name_attribute,
)
from sipfw.lower.naming import MARK
from sipfw.lower.nftables_plan import TABLE
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.host.runner import Runner

_GET_RULES = (SUBSYS_NFTABLES << 8) | 7
_RULE_TABLE = 1

_PROGRAMS = {Family.IP: "iptables", Family.IP6: "ip6tables"}
_MARKS = re.compile(rf"{MARK}([^\"#\s]+#[0-9a-f]{{8}})".encode())


def marks_in_iptables(flavour: str, family: Family, runner: Runner) -> Counter[str]:
    """Count the marks `<id>#<digest>` in one family's tables; `flavour` is `legacy` or `nft`."""
    # Without -t the program creates no table that is not there.
    program = f"{_PROGRAMS[family]}-{flavour}-save"
    done = runner.run([program])
    if done.returncode != 0:
        raise BackendError(f"{program}: {done.stderr.strip() or 'cannot read the rules'}")
    return _marks(done.stdout.encode("utf-8", "surrogateescape"))


def marks_in_nftables() -> Counter[str]:
    """Count the marks `<id>#<digest>` in our table, of both families."""
    body = name_attribute(_RULE_TABLE, TABLE)
    try:
        replies = ask("inet", NetlinkRequest(_GET_RULES, body, "read the rules", DUMP))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return Counter()
        raise
    return _marks(b"\n".join(replies))


def _marks(text: bytes) -> Counter[str]:
    return Counter(mark.decode("ascii", "replace") for mark in _MARKS.findall(text))
