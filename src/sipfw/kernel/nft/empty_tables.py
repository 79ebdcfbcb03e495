"""Takes out tables of iptables-nft that hold nothing but built-in chains without rules.

In a child process, like every other netlink change of the iptables engines, so that it happens
where the runner runs things. The kernel itself refuses whatever is in use (NLM_F_NONREC), so a
rule that somebody adds at the same moment is safe.
"""

from __future__ import annotations

import contextlib
import json
import struct
import sys
from typing import TYPE_CHECKING

from sipfw.host.child import child_command
from sipfw.kernel.netlink.socket import (
    DUMP,
    SUBSYS_NFTABLES,
    NetlinkError,
    NetlinkRequest,
    ask,
    attributes,
    name_attribute,
    send_batch,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.host.runner import Runner
    from sipfw.kernel.xtables.tools import TableKey

_DELETE_TABLE = SUBSYS_NFTABLES << 8 | 2
_GET_CHAIN = SUBSYS_NFTABLES << 8 | 4
_DELETE_CHAIN = SUBSYS_NFTABLES << 8 | 5
_NONREC = 0x100
# enum nft_chain_attributes
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_ACCEPT = 1
_BUILT_IN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})


def drop_empty_tables(runner: Runner, tables: Sequence[TableKey]) -> None:
    """Delete those tables that hold no rule, no other chain and no policy but ACCEPT."""
    if not tables:
        return
    request = json.dumps([[family.value, name] for family, name in tables])
    # An empty table that stays behind costs nothing, so nobody asks for the exit status.
    runner.run(child_command(__name__, "serve"), stdin=request)


def serve() -> None:
    """Do what standard input asks for. Only for a process of its own."""
    for family, name in json.load(sys.stdin):
        # EBUSY: something is in it. ENOENT: it is gone already.
        with contextlib.suppress(NetlinkError):
            _drop(family, name)


def _drop(family: str, name: str) -> None:
    table = name_attribute(_TABLE, name)
    dumped = ask(family, NetlinkRequest(_GET_CHAIN, b"", "list chains", DUMP))
    chains = [dict(attributes(body)) for body in dumped]
    found = [chain for chain in chains if _text(chain[_TABLE]) == name]
    if any(not _is_bare(chain) for chain in found):
        return
    requests = [
        NetlinkRequest(
            _DELETE_CHAIN, table + name_attribute(_NAME, _text(c[_NAME])), "chain", _NONREC
        )
        for c in found
    ]
    send_batch(family, [*requests, NetlinkRequest(_DELETE_TABLE, table, "table", _NONREC)])


def _is_bare(chain: dict[int, bytes]) -> bool:
    """Tell whether it is a built-in chain of iptables that lets everything pass."""
    policy = struct.unpack("!I", chain.get(_POLICY, bytes(4)))[0]
    return _HOOK in chain and policy == _ACCEPT and _text(chain[_NAME]) in _BUILT_IN


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
