"""Compile a policy, load it into the switch's namespace and read back what its rules counted.

Knows how to ask a kernel; knows no packet and no expectation.  `Backend` is all that a packet
test needs from a kernel interface, so that every backend meets the same cases.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import yaml

from lab import namespaces
from sipfw.compiler.pipeline import compile_policy
from sipfw.kernel.nft.engine import NftablesBackend
from sipfw.kernel.nft.reader import nft_live
from sipfw.kernel.nft.tool import live_from_json
from sipfw.lower.iptables import lower
from sipfw.lower.naming import base_id, set_name, split_comment
from sipfw.lower.nftables import lower as lower_nft
from sipfw.policy.load import Request, load
from sipfw.render.nft import Existing, transaction_text
from sipfw.render.restore import ipset_text, restore_text
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Family as FamilyName
    from lab import Node
    from sipfw.lower.nftables_plan import NftPlan
    from sipfw.lower.xtables import XPlan
    from sipfw.ruleset.model import Ruleset

COUNTED_RULE = re.compile(r'^\[(\d+):(\d+)\] -A .*--comment "?([^ "]+)"?')
TABLES = ("raw", "mangle", "filter")
STATE_FOLDERS = ("/proc/net/ipt_hashlimit", "/proc/net/ip6t_hashlimit", "/proc/net/xt_recent")


class Count(NamedTuple):
    """What one rule has counted."""

    packets: int = 0
    bytes: int = 0


class Backend(Protocol):
    """A kernel interface, as far as packet tests use it."""

    def load(self, ruleset: Ruleset) -> None:
        """Put the ruleset into the namespace, beside whatever is there."""

    def clear(self) -> None:
        """Empty the namespace's firewall, and return when no limit remembers anything."""

    def counts(self, family: Family) -> Mapping[str, Count]:
        """Return the counters by rule id."""

    def contains(self, name: str, address: str) -> bool:
        """Tell whether an address is in a set."""

    def add(self, name: str, address: str) -> None:
        """Put an address into a dynamic set."""

    def remove(self, name: str, address: str) -> None:
        """Take an address out of a dynamic set, where it is in."""


class Iptables:
    """Both flavours of iptables: `legacy` tables and `nft`, the nf_tables one; sets are ipsets."""

    ipset = True
    u32 = True

    def __init__(self, node: Node, flavour: str, lock_file: Path) -> None:
        self._node = node
        self._flavour = flavour
        # Labs are namespaces of their own, so they need not wait for each other's tables.
        self._env = {"XTABLES_LOCKFILE": str(lock_file)}

    def load(self, ruleset: Ruleset) -> None:
        sets, texts = _texts(ruleset, self.ipset, self.u32)
        if self.ipset:
            self._node.run(["ipset", "restore", "-exist"], sets)
        for family, text in texts.items():
            self._tool(family, "restore", "--noflush", text=text)

    def clear(self) -> None:
        empty = "".join(f"*{table}\nCOMMIT\n" for table in TABLES)
        for family in Family:
            self._tool(family, "restore", text=empty)
        # nf_tables frees the rules of a finished transaction later, in a work queue, and until
        # then a new rule would find the old hashlimit table by its name.
        deadline = time.monotonic() + 5
        while self._remembers():
            assert time.monotonic() < deadline, "the kernel keeps the state of removed rules"
            time.sleep(0.01)

    def _remembers(self) -> bool:
        busy = self._node.run(["ipset", "destroy"], check=False).returncode
        found = self._node.run(["find", *STATE_FOLDERS, "-type", "f"], check=False)
        return bool(busy or found.stdout)

    def counts(self, family: Family) -> dict[str, Count]:
        packets: Counter[str] = Counter()
        volume: Counter[str] = Counter()
        for line in self._tool(family, "save", "-c").splitlines():
            rule = COUNTED_RULE.match(line)
            ours = split_comment(rule[3]) if rule else None
            if rule and ours:
                packets[base_id(ours[0])] += int(rule[1])
                volume[base_id(ours[0])] += int(rule[2])
        return {rule_id: Count(packets[rule_id], volume[rule_id]) for rule_id in packets}

    def contains(self, name: str, address: str) -> bool:
        listed = self._node.run(["ipset", "save", set_name(name, family_of(address))]).stdout
        return key_of(name, address) in {
            line.split()[2].split(",")[0] for line in listed.splitlines() if line.startswith("add")
        }

    def add(self, name: str, address: str) -> None:
        assert self._ipset("add", name, address) == 0, f"cannot add {address} to {name}"

    def remove(self, name: str, address: str) -> None:
        assert self._ipset("del", name, address) == 0, f"cannot take {address} out of {name}"

    def _ipset(self, command: str, name: str, address: str) -> int:
        kernel_name = set_name(name, family_of(address))
        argv = ["ipset", "-exist", command, kernel_name, address]
        return self._node.run(argv, check=False).returncode

    def _tool(self, family: Family, verb: str, *options: str, text: str | None = None) -> str:
        tool = "iptables" if family is Family.IP else "ip6tables"
        program = f"{tool}-{self._flavour}-{verb}"
        return self._node.run([program, *options], text, env=self._env).stdout


class BpfIptables(Iptables):
    """iptables on a kernel without xt_u32."""

    u32 = False


class SetlessIptables(Iptables):
    """iptables on a host without ipset: what the packet path learns are xt_recent lists."""

    ipset = False

    def contains(self, name: str, address: str) -> bool:
        listed = self._node.run(["cat", self._list(name, address)]).stdout.split()
        return f"src={ip_address(key_of(name, address)).exploded}" in listed

    def add(self, name: str, address: str) -> None:
        self._node.run(["tee", self._list(name, address)], f"+{key_of(name, address)}\n")

    def remove(self, name: str, address: str) -> None:
        self._node.run(["tee", self._list(name, address)], f"-{key_of(name, address)}\n")

    def _list(self, name: str, address: str) -> str:
        return f"/proc/net/xt_recent/{set_name(name, family_of(address))}"


class Nftables:
    """`table inet sipfw`, loaded by the backend that operators use.

    It judges a ruleset beforehand and reads it back once in each process; where there is no table,
    what it gives the kernel then is all that a ruleset takes that was loaded before.
    """

    _loaded: ClassVar[set[Ruleset]] = set()

    def __init__(self, node: Node) -> None:
        self._node = node

    def load(self, ruleset: Ruleset) -> None:
        plan, backend = _nft_plan(ruleset), NftablesBackend()
        with namespaces.moved_into(self._node.namespace):
            if ruleset in self._loaded and backend.listing() is None:
                backend._load_texts(list(plan.texts), None)
                backend._load(_nft_text(ruleset))
            else:
                backend.apply(plan)
                self._loaded.add(ruleset)

    def clear(self) -> None:
        self._node.run(["nft", "flush", "ruleset"])

    def counts(self, family: Family) -> dict[str, Count]:
        shown = self._node.run(["nft", "-j", "list", "table", "inet", "sipfw"]).stdout
        live = nft_live(live_from_json(json.loads(shown)["nftables"]))
        packets: Counter[str] = Counter()
        volume: Counter[str] = Counter()
        rules = [rule for chain in live.chains if chain.family is family for rule in chain.rules]
        # One rule leads both families into their chains, so it counts both.
        rules += [jump.rule for jump in live.jumps if jump.family is family]
        for rule in rules:
            name = base_id(rule.rule_id or "")
            packets[name] += rule.packets
            volume[name] += rule.bytes
        return {rule_id: Count(packets[rule_id], volume[rule_id]) for rule_id in packets}

    def contains(self, name: str, address: str) -> bool:
        listed = self._node.run(
            ["nft", "-j", "list", "set", "inet", "sipfw", self._set(name, address)]
        )
        (item,) = [each["set"] for each in json.loads(listed.stdout)["nftables"] if "set" in each]
        return key_of(name, address) in {_address_in(each) for each in item.get("elem", [])}

    def add(self, name: str, address: str) -> None:
        assert self._element("add", name, address) == 0, f"cannot add {address} to {name}"

    def remove(self, name: str, address: str) -> None:
        self._element("delete", name, address)

    def _element(self, verb: str, name: str, address: str) -> int:
        place = ["nft", verb, "element", "inet", "sipfw", self._set(name, address)]
        return self._node.run([*place, f"{{ {key_of(name, address)} }}"], check=False).returncode

    def _set(self, name: str, address: str) -> str:
        return f"{name}{'4' if family_of(address) is Family.IP else '6'}"


def _address_in(element: Any) -> str:
    """Return the address of an element of a listing, with or without a time, port and counter."""
    key = element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element
    return str(key["concat"][0] if isinstance(key, dict) else key)


class Firewall:
    """A policy at work in the switch's namespace."""

    def __init__(self, node: Node, backend: Backend) -> None:
        self._node = node
        self._backend = backend

    @property
    def own_table(self) -> bool:
        """Tell whether the rules live in a table of their own, which no other one can skip."""
        return isinstance(self._backend, Nftables)

    def load(self, policy: Mapping[str, Any] | None = None) -> None:
        """Load what a policy file of this content means."""
        self._backend.load(_compiled(yaml.safe_dump(dict(policy or {}))))

    def clear(self) -> None:
        """Remove all rules, sets, limits and tracked connections from the namespace."""
        self._backend.clear()
        self._node.run(["conntrack", "-F"])

    def counted(self, rule_id: str, family: FamilyName) -> int:
        """Return the packets that a rule has counted; KeyError where no rule has this id."""
        return self._backend.counts(Family(family))[rule_id].packets

    def counts(self, family: FamilyName) -> Mapping[str, Count]:
        """Return all counters of one family."""
        return self._backend.counts(Family(family))

    def contains(self, name: str, address: str) -> bool:
        """Tell whether `address` is in the set that the policy calls `name`."""
        return self._backend.contains(name, address)

    def add(self, name: str, address: str) -> None:
        """Put an address into a dynamic set, as if the packet path had done it."""
        self._backend.add(name, address)

    def remove(self, name: str, address: str) -> None:
        """Take an address out of a dynamic set."""
        self._backend.remove(name, address)

    def tracked(self) -> int:
        """Return the number of tracked connections of the namespace."""
        shown = self._node.run(["sysctl", "-n", "net.netfilter.nf_conntrack_count"]).stdout
        return int(shown)


# Sets whose elements are whole addresses in IPv6 too: those of endpoints, and of trust by hand.
WHOLE = {
    *("registered", "pending", "ringing", "dialling", "logins", "challenged", "unanswered"),
    *("wrong", "refused-calls", "shut", "tried", "streams", "opened", "outward", "guests"),
}


def key_of(name: str, address: str) -> str:
    """Return what a set holds of an address: in IPv6 a source is a /64."""
    if name in WHOLE or family_of(address) is Family.IP:
        return address
    return str(ip_network((address, 64), strict=False).network_address)


def family_of(address: str) -> Family:
    return Family.IP if ip_address(address).version == 4 else Family.IP6


@cache
def _compiled(policy: str) -> Ruleset:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "policy.yaml")
        file.write_text(policy)
        return compile_policy(load(Request(file=file)))


@cache
def _nft_plan(ruleset: Ruleset) -> NftPlan:
    return lower_nft(ruleset)


@cache
def _nft_text(ruleset: Ruleset) -> str:
    return transaction_text(_nft_plan(ruleset), Existing())


@cache
def _texts(ruleset: Ruleset, ipset: bool, u32: bool) -> tuple[str, Mapping[Family, str]]:
    plan: XPlan = lower(ruleset, ipset=ipset, u32=u32)
    return ipset_text(plan), {family: restore_text(plan, family) for family in Family}
