"""What `nft list ruleset` prints as text: the chains and helpers of all tables.

Lines are kept as nft printed them, where it went on in another line as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

_IP_TABLES = re.compile(r"^table (ip6?) ", re.MULTILINE)
_TABLE = re.compile(r"table (\S+) (.+) \{")
_BLOCK = re.compile(r"\t(chain|ct helper) (.+) \{")
_HOOK = re.compile(
    r"\t\ttype (?P<type>\w+) hook (?P<hook>\w+)(?: devices? (?:= )?(?P<devices>\{[^}]*\}|\S+))?"
    r" priority (?P<name>[a-z]+)?(?: ?(?P<sign>[+-]) ?)?(?P<number>\d+)?"
)
# Names of nft for priorities (netfilter_ipv4.h); those of bridges are others, and not ours to read.
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50}
_PRIORITIES |= {"srcnat": 100}
_SIP = 'type "sip"'


@dataclass(frozen=True, slots=True)
class NftBlock:
    """A chain of nft, or with kind `ct helper` such an object; `lines` are its rules or settings.

    `hook` is None for a chain that only jumps lead to. `type` is filter, nat or route; the chain of
    the lowest `priority` is asked first. `devices` are those of an ingress hook.
    """

    kind: str
    family: str
    table: str
    name: str
    hook: str | None
    drops: bool
    lines: tuple[str, ...]
    type: str = "filter"
    priority: int = 0
    devices: tuple[str, ...] = ()

    @property
    def is_chain(self) -> bool:
        """Whether it holds rules."""
        return self.kind == "chain"

    @property
    def is_sip_helper(self) -> bool:
        """Whether it is the helper that rewrites SIP, under a name of somebody's own."""
        return self.kind == "ct helper" and any(_SIP in line for line in self.lines)


def parse_nft(text: str) -> Iterator[NftBlock]:
    """Read `nft list ruleset`; sets, maps and other objects are passed over."""
    table = ("", "")
    head: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if found := _TABLE.fullmatch(line):
            table = (found[1], found[2])
        elif found := _BLOCK.fullmatch(line):
            head, lines = found, []
        elif line == "\t}" and head is not None:
            yield _block(table, head, lines)
            head = None
        elif head is not None:
            lines.append(line)


def families_of_tables(text: str) -> frozenset[Family]:
    """Return the families that have tables of their own, as those of iptables-nft are."""
    return frozenset(map(Family, _IP_TABLES.findall(text)))


def _block(table: tuple[str, str], head: re.Match[str], lines: list[str]) -> NftBlock:
    hook: re.Match[str] | None = None
    drops = False
    rules: list[str] = []
    for line in lines:
        if head[1] == "chain" and (found := _HOOK.match(line)):
            hook, drops = found, "policy drop;" in line
        elif line.startswith("\t\t\t") and rules:
            # The elements of an unnamed set may go on in lines of their own.
            rules[-1] += f" {line.strip()}"
        else:
            rules.append(line.strip())
    block = NftBlock(head[1], *table, head[2], None, drops, tuple(rules))
    return block if hook is None else replace(block, **_hooked(hook))


def _hooked(found: re.Match[str]) -> dict[str, Any]:
    number = int(found["number"] or 0) * (-1 if found["sign"] == "-" else 1)
    devices = (found["devices"] or "").strip("{} ").split(",")
    return {
        "hook": found["hook"],
        "type": found["type"],
        "priority": _PRIORITIES.get(found["name"] or "", 0) + number,
        "devices": tuple(name.strip(' "') for name in devices if name.strip()),
    }
