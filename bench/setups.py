"""The columns of the benchmark: each puts one firewall into a stage; knows no packet."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from guide import guide_script

from packets import BANNED
from sipfw.compiler.pipeline import compile_policy
from sipfw.kernel.nft.engine import NftablesBackend
from sipfw.lower.iptables import lower
from sipfw.lower.naming import set_name
from sipfw.lower.nftables import lower as lower_nft
from sipfw.policy.load import Request, load
from sipfw.render.restore import ipset_text, restore_text
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stage import Stage

    from sipfw.ruleset.model import Ruleset

TRUSTED = ("203.0.113.10/32", "203.0.113.20/32", "198.51.100.0/28")
ADMIN = "192.0.2.0/28"
MANY_BANS = 10_000

POLICY = f"""\
profile: wholesale
admin: {{networks: [{ADMIN}]}}
trusted_peers:
  - {{name: carrier-a, signalling: [{TRUSTED[0]}, "2001:db8:5::/64"], media: [203.0.113.0/24]}}
  - {{name: carrier-b, signalling: [{TRUSTED[1]}]}}
  - {{name: carrier-c, signalling: [{TRUSTED[2]}], tier: large}}
bans: {{size: 131072}}
"""

NOTRACK = f"{POLICY}media: {{notrack: true}}\n"

# Columns of this checkout, and what they are compared with where there is another.
COMPARED = {"sipfw iptables": "other iptables", "sipfw nftables": "other nftables"}
NOTHING = "no firewall"
DROP_ALL = "drop all in raw"
GUIDE = "guide's script"


@dataclass(frozen=True, slots=True)
class Setup:
    """A firewall by name."""

    name: str
    load: Callable[[Stage], None]


def compiled(text: str = POLICY) -> Ruleset:
    """Return what a policy file of this content means."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "policy.yaml")
        file.write_text(text)
        return compile_policy(load(Request(file=file)))


def addresses(first: str, count: int) -> Iterator[str]:
    """Yield consecutive addresses."""
    start = ip_address(first)
    return (str(start + number) for number in range(count))


def ban(stage: Stage, sources: Iterator[str]) -> None:
    """Ban addresses as the rules would."""
    name = set_name("banned", Family.IP)
    stage.run(["ipset", "restore", "-exist"], "".join(f"add {name} {each}\n" for each in sources))


def _nothing(_stage: Stage) -> None:
    return


def _drop_all(stage: Stage) -> None:
    stage.run(["iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-j", "DROP"])


def _guide(stage: Stage) -> None:
    stage.run(["iptables-legacy-restore"], guide_script(TRUSTED, ADMIN))


def load_iptables(stage: Stage, text: str = POLICY, bans: int = 0, *, u32: bool = True) -> None:
    """Load sipfw's rules as its iptables backend would, with `bans` banned addresses."""
    plan = lower(compiled(text), u32=u32)
    stage.run(["ipset", "restore", "-exist"], ipset_text(plan))
    for family, program in ((Family.IP, "iptables"), (Family.IP6, "ip6tables")):
        stage.run([f"{program}-legacy-restore", "--noflush"], restore_text(plan, family))
    ban(stage, iter([BANNED]))
    ban(stage, addresses("198.19.64.0", bans))


def load_nftables(stage: Stage, text: str = POLICY, bans: int = 0) -> None:
    """Load sipfw's table as its nftables backend does, with `bans` banned addresses."""
    with stage.inside():
        NftablesBackend().apply(lower_nft(compiled(text)))
    banned = ", ".join((BANNED, *addresses("198.19.64.0", bans)))
    stage.run(["nft", "-f", "-"], f"add element inet sipfw banned4 {{ {banned} }}\n")


# What another checkout does with the same policy, in its own words: it prints what iptables and
# ipset read, or loads its table itself.
_OTHER_IPTABLES = """
import sys, json, tempfile
from pathlib import Path
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.policy.load import Request, load
from sipfw.render.restore import ipset_text, restore_text
from sipfw.ruleset.rule import Family
file = Path(tempfile.mkdtemp(), "policy.yaml")
file.write_text(sys.stdin.read())
plan = lower(compile_policy(load(Request(file=file))))
print(json.dumps([ipset_text(plan), *(restore_text(plan, family) for family in Family)]))
"""
_OTHER_NFTABLES = """
import sys, tempfile
from pathlib import Path
from sipfw.kernel.nft.engine import NftablesBackend
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.nftables import lower
from sipfw.policy.load import Request, load
file = Path(tempfile.mkdtemp(), "policy.yaml")
file.write_text(sys.stdin.read())
NftablesBackend().apply(lower(compile_policy(load(Request(file=file)))))
"""


def _other_iptables(stage: Stage, checkout: Path) -> None:
    printed = stage.run(_python(checkout, _OTHER_IPTABLES), POLICY)
    sets, *tables = json.loads(printed)
    stage.run(["ipset", "restore", "-exist"], sets)
    for text, program in zip(tables, ("iptables", "ip6tables"), strict=True):
        stage.run([f"{program}-legacy-restore", "--noflush"], text)
    ban(stage, iter([BANNED]))


def _other_nftables(stage: Stage, checkout: Path) -> None:
    stage.run(_python(checkout, _OTHER_NFTABLES), POLICY)
    stage.run(["nft", "-f", "-"], f"add element inet sipfw banned4 {{ {BANNED} }}\n")


def _python(checkout: Path, code: str) -> list[str]:
    return ["env", f"PYTHONPATH={checkout / 'src'}", sys.executable, "-c", code]


def against(checkout: Path) -> tuple[Setup, ...]:
    """Return the columns of another checkout, to be measured beside this one's."""
    return (
        Setup("other iptables", partial(_other_iptables, checkout=checkout)),
        Setup("other nftables", partial(_other_nftables, checkout=checkout)),
    )


def setups() -> tuple[Setup, ...]:
    """Return every column."""
    return (
        Setup(NOTHING, _nothing),
        Setup(DROP_ALL, _drop_all),
        Setup(GUIDE, _guide),
        Setup("sipfw iptables", load_iptables),
        Setup("iptables, 10k bans", partial(load_iptables, bans=MANY_BANS)),
        Setup("iptables, notrack", partial(load_iptables, text=NOTRACK)),
        Setup("iptables, bpf", partial(load_iptables, u32=False)),
        Setup("sipfw nftables", load_nftables),
        Setup("nftables, notrack", partial(load_nftables, text=NOTRACK)),
    )
