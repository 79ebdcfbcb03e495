"""A checkout's firewall in a namespace, loaded by its own code: this version's or another's."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Node

BACKENDS = ("nftables", "iptables", "iptables-nft")

_COMPILED = """
import sys, json, tempfile
from pathlib import Path
from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load
file = Path(tempfile.mkdtemp(), "policy.yaml")
file.write_text(sys.stdin.read())
ruleset = compile_policy(load(Request(file=file)))
file.unlink()
file.parent.rmdir()
"""
_IPTABLES = f"""{_COMPILED}
from sipfw.lower.iptables import lower
from sipfw.render.restore import ipset_text, restore_text
from sipfw.ruleset.rule import Family
plan = lower(ruleset)
print(json.dumps([ipset_text(plan), *(restore_text(plan, family) for family in Family)]))
"""
_NFTABLES = f"""{_COMPILED}
try:
    from sipfw.kernel.nft.engine import NftablesBackend
except ModuleNotFoundError:  # a checkout from before December 2026
    from sipfw.backends.nftables import NftablesBackend
from sipfw.lower.nftables import lower
NftablesBackend().apply(lower(ruleset))
"""


def load(node: Node, checkout: Path, backend: str, policy: str, lock_file: Path) -> None:
    """Load what the checkout makes of a policy's text into a namespace without a firewall."""
    environment = {"PYTHONPATH": str(checkout / "src"), "XTABLES_LOCKFILE": str(lock_file)}
    if backend == "nftables":
        node.run([sys.executable, "-c", _NFTABLES], policy, env=environment)
        return
    printed = node.run([sys.executable, "-c", _IPTABLES], policy, env=environment).stdout
    sets, *tables = json.loads(printed)
    node.run(["ipset", "restore", "-exist"], sets)
    flavour = "nft" if backend == "iptables-nft" else "legacy"
    for text, program in zip(tables, ("iptables", "ip6tables"), strict=True):
        node.run([f"{program}-{flavour}-restore", "--noflush"], text, env=environment)
