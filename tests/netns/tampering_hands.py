"""Hands that change a live ruleset with its own tools: the same grips for iptables and for nft."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from lab.node import CommandError
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.nft.tool import NftTool
from sipfw.kernel.nft.way_back import go_back, remember
from sipfw.kernel.xtables.save_text import parse_save

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from shared_host import SharedHost

Family: TypeAlias = Literal["ip", "ip6"]

NAMES: dict[Family, str] = {"ip": "IPv4", "ip6": "IPv6"}
COMMANDS: dict[Family, str] = {"ip": "iptables", "ip6": "ip6tables"}
SUFFIX: dict[Family, str] = {"ip": "4", "ip6": "6"}
STREAMS = tuple(
    f"SIP_STREAM{end}"
    for end in (
        *("", "_DATA", "_TEXTS", "_TOOL", "_HEARD", "_BANNED", "_REGISTERED", "_NOTES"),
        *("_REGISTER", "_PIPELINED", "_REQUEST", "_LOGIN", "_ENCRYPTED"),
    )
)
IN_FILTER = frozenset(
    {"INPUT", "SIPFW_INPUT", "SIP_CONNECTIONS", "SIP_COMPLETED", "SIP_HOST", "SIP_LOST", *STREAMS}
)
HOOKS = {"PREROUTING": "raw_prerouting", "OUTPUT": "raw_output", "INPUT": "filter_input"}


@dataclass(frozen=True, slots=True)
class Spot:
    """One rule: its table and chain by the tool's names, its text, its number or handle."""

    table: str
    chain: str
    text: str
    number: int


class IptablesHand:
    """Iptables of the host's flavour, and ipset."""

    is_nft = False

    def __init__(self, host: SharedHost, inside: ThreadPoolExecutor) -> None:
        del inside
        self.host = host
        self._saved = {family: self._save(family) for family in COMMANDS}
        self._sets = host.run("ipset", "save")

    def _save(self, family: Family) -> str:
        return self.host.tool(f"{COMMANDS[family]}-save", "-c")

    def place(self, chain: str, family: Family = "ip") -> str:
        """Return what `verify` calls a chain or hook."""
        return f"{NAMES[family]} {_table(chain)} {chain}"

    def set(self, name: str) -> str:
        return f"sipfw-{name}"

    def spot(self, rule_id: str, family: Family = "ip") -> Spot:
        return next(
            Spot(table.name, chain.name, rule.line.removeprefix(f"-A {chain.name} "), number)
            for table in parse_save(self._save(family))
            for chain in table.chains
            for number, rule in enumerate(chain.rules, start=1)
            if rule.rule_id == rule_id
        )

    def counted(self, rule_id: str) -> int:
        """Return the packets that a rule has counted."""
        return next(
            rule.packets
            for table in parse_save(self._save("ip"))
            for rule in table.rules
            if rule.rule_id == rule_id
        )

    def load(self, table: str, *lines: str, family: Family = "ip") -> None:
        """Load lines of iptables-restore into one table, beside what is there."""
        text = "\n".join([f"*{table}", *lines, "COMMIT", ""])
        self.host.tool(f"{COMMANDS[family]}-restore", "--noflush", text=text)

    def rewrite(self, spot: Spot, text: str, family: Family = "ip") -> None:
        self.load(spot.table, f"-R {spot.chain} {spot.number} {text}", family=family)

    def delete(self, spot: Spot, family: Family = "ip") -> None:
        self.load(spot.table, f"-D {spot.chain} {spot.number}", family=family)

    def insert(self, spot: Spot, text: str, family: Family = "ip") -> None:
        """Put a rule right before the spot."""
        self.load(spot.table, f"-I {spot.chain} {spot.number} {text}", family=family)

    def append(self, chain: str, text: str, family: Family = "ip") -> None:
        self.load(_table(chain), f"-A {chain} {text}", family=family)

    def flush(self, chain: str, family: Family = "ip") -> None:
        self.load(_table(chain), f"-F {chain}", family=family)

    def drop_chain(self, chain: str, family: Family = "ip") -> None:
        self.load(_table(chain), f"-F {chain}", f"-X {chain}", family=family)

    def rename_chain(self, chain: str, name: str) -> None:
        self.host.tool("iptables", "-t", _table(chain), "-E", chain, name)

    def rule(self, condition: str, verdict: str, comment: str = "") -> str:
        """Write a rule; a condition is an address, or nothing."""
        words = [f"-s {condition}"] if condition else []
        words += [f'-m comment --comment "{comment}"'] if comment else []
        kind = "-g" if verdict.startswith("goto ") else "-j"
        return " ".join([*words, kind, verdict.rpartition(" ")[2]])

    def verdict(self, word: str) -> str:
        return f"-j {word.upper()}"

    def elements(self, verb: str, name: str, *elements: str) -> None:
        word = {"add": "add", "delete": "del"}[verb]
        for element in elements:
            self.host.run("ipset", word, self.set(name), *element.split())

    def flush_set(self, name: str) -> None:
        self.host.run("ipset", "flush", self.set(name))

    def destroy(self, *names: str) -> None:
        """Destroy sets, all without names."""
        # nf_tables lets go of the sets of a deleted rule some time after its transaction.
        deadline = time.monotonic() + 2
        while True:
            try:
                self.host.run("ipset", "destroy", *names)
            except CommandError:
                assert time.monotonic() < deadline, "a set stays in use"
                time.sleep(0.02)
            else:
                return

    def remake_set(self, name: str, old: str, new: str) -> None:
        """Put an empty set with another definition in a set's place."""
        (line,) = (
            line
            for line in self.host.run("ipset", "save", self.set(name)).splitlines()
            if line.startswith("create ")
        )
        words = re.sub(r" (bucketsize|initval) \S+", "", line).split(" ", 2)[2]
        assert old in words
        self.host.run("ipset", *f"create other {words.replace(old, new)}".split())
        self.host.run("ipset", "swap", "other", self.set(name))
        self.host.run("ipset", "destroy", "other")

    def undo(self) -> None:
        """Bring back the tables, and the sets where they differ: the rules must go before them."""
        sets_differ = self.host.run("ipset", "save") != self._sets
        for family, command in COMMANDS.items():
            now, then = (_tables(text) for text in (self._save(family), self._saved[family]))
            emptied = now if sets_differ else now - then
            text = "".join(f"*{name}\nCOMMIT\n" for name in sorted(emptied))
            self.host.tool(f"{command}-restore", text=text)
        if sets_differ:
            self.destroy()
            self.host.run("ipset", "restore", text=self._sets)
        for family, command in COMMANDS.items():
            self.host.tool(f"{command}-restore", "-c", text=self._saved[family])
        for line in self.host.run("nft", "list", "tables").splitlines():
            if line.split()[2] not in {"raw", "filter"}:
                self.host.run("nft", "delete", *line.split())


def _table(chain: str) -> str:
    return "filter" if chain in IN_FILTER else "raw"


def _tables(saved: str) -> set[str]:
    return set(re.findall(r"^\*(\w+)$", saved, re.MULTILINE))


class NftHand:
    """The nft program on `table inet sipfw`."""

    is_nft = True

    def __init__(self, host: SharedHost, inside: ThreadPoolExecutor) -> None:
        self.host = host
        self.inside = inside
        self._tool = NftTool(SubprocessRunner())
        self._before = inside.submit(remember, self._tool).result()

    def nft(self, text: str) -> None:
        self.host.run("nft", "-f", "-", text=text)

    def place(self, chain: str, family: Family = "ip") -> str:
        return f"{NAMES[family]} sipfw {HOOKS.get(chain, chain)}"

    def set(self, name: str) -> str:
        return name

    def spot(self, rule_id: str, family: Family = "ip") -> Spot:
        place = re.compile(rf"[A-Z_]+{SUFFIX[family]}(_text_\w+)?|[a-z_]+")
        return next(
            spot
            for spot in self._spots()
            if f'comment "sipfw:{rule_id}#' in spot.text and place.fullmatch(spot.chain)
        )

    def counted(self, rule_id: str) -> int:
        found = re.search(r"counter packets (\d+)", self.spot(rule_id).text)
        assert found
        return int(found[1])

    def _spots(self) -> list[Spot]:
        spots, chain = [], ""
        for line in self.host.run("nft", "-a", "-t", "list", "table", "inet", "sipfw").splitlines():
            if head := re.match(r"\tchain (\S+) \{", line):
                chain = head[1]
            elif rule := re.fullmatch(r"\t\t(.*) # handle (\d+)", line):
                spots.append(Spot("sipfw", chain, rule[1], int(rule[2])))
        return spots

    def rewrite(self, spot: Spot, text: str, family: Family = "ip") -> None:
        del family
        self.nft(f"replace rule inet sipfw {spot.chain} handle {spot.number} {text}\n")

    def delete(self, spot: Spot, family: Family = "ip") -> None:
        del family
        self.nft(f"delete rule inet sipfw {spot.chain} handle {spot.number}\n")

    def insert(self, spot: Spot, text: str, family: Family = "ip") -> None:
        del family
        self.nft(f"insert rule inet sipfw {spot.chain} handle {spot.number} {text}\n")

    def append(self, chain: str, text: str, family: Family = "ip") -> None:
        self.nft(f"add rule inet sipfw {_chain(chain, family)} {text}\n")

    def flush(self, chain: str, family: Family = "ip") -> None:
        self.nft(f"flush chain inet sipfw {_chain(chain, family)}\n")

    def drop_chain(self, chain: str, family: Family = "ip") -> None:
        name = f"chain inet sipfw {_chain(chain, family)}"
        self.nft(f"flush {name}\ndelete {name}\n")

    def rename_chain(self, chain: str, name: str) -> None:
        self.nft(f"rename chain inet sipfw {chain}4 {name}4\n")

    def rule(self, condition: str, verdict: str, comment: str = "") -> str:
        words = [f"ip saddr {condition}"] if condition else []
        words += [verdict if " " in verdict else self.verdict(verdict)]
        return " ".join([*words, *([f'comment "{comment}"'] if comment else [])])

    def verdict(self, word: str) -> str:
        return word.lower() if word.lower() in {"accept", "drop"} else f"jump {word}"

    def elements(self, verb: str, name: str, *elements: str) -> None:
        self.nft(f"{verb} element inet sipfw {name} {{ {', '.join(elements)} }}\n")

    def flush_set(self, name: str) -> None:
        self.nft(f"flush set inet sipfw {name}\n")

    def remake_set(self, name: str, old: str, new: str) -> None:
        """Put an empty set with another definition in a set's place, and its rules back."""
        listed = self.host.run("nft", "-t", "list", "set", "inet", "sipfw", name)
        assert old in listed
        rules = self._spots()
        chains = dict.fromkeys(spot.chain for spot in rules if f"@{name} " in spot.text)
        lines = [f"flush chain inet sipfw {chain}" for chain in chains]
        lines += [f"delete set inet sipfw {name}", listed.replace(old, new)]
        lines += [f"add rule inet sipfw {s.chain} {s.text}" for s in rules if s.chain in chains]
        self.nft("\n".join([*lines, ""]))

    def undo(self) -> None:
        for line in self.host.run("nft", "list", "tables").splitlines():
            self.host.run("nft", "delete", *line.split())
        self.inside.submit(go_back, self._tool, self._before).result()
        self.host.run("ipset", "destroy")


def _chain(name: str, family: Family) -> str:
    return HOOKS.get(name, f"{name}{SUFFIX[family]}")


Hand: TypeAlias = IptablesHand | NftHand
