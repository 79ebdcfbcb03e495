"""The firewall that `sipfw why` explains: the one on record, and the kernel's state behind it.

Reads files and the kernel, changes neither. Nothing here needs the policy's own classes, whose
import would take as long as the whole answer.
"""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipfw.deploy.applied import read_record
from sipfw.deploy.generations import Damaged, read_generation, read_ruleset
from sipfw.deploy.lists.sets import has_lists
from sipfw.deploy.none_active import HINT, NOTHING
from sipfw.errors import BackendError
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.backend import backend_of
from sipfw.kernel.state.connections import tcp_connections
from sipfw.lower.naming import base_id
from sipfw.monitor.why.packets import PacketTransport, sip_ports
from sipfw.ruleset.match import PayloadContains
from sipfw.ruleset.rule import Family
from sipfw.words import pluralize

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from sipfw.host.files import Layout
    from sipfw.kernel.state.limits import LimitState
    from sipfw.kernel.state.sources import SourceSets
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.model import Ruleset
    from sipfw.simulate.state import Limit

_NAMES = {Family.IP: "IPv4", Family.IP6: "IPv6"}
_PROC_NET = Path("/proc/net")


@dataclass(frozen=True, slots=True)
class ExplainedFirewall:
    """What is explained. `backend` and `generation` are None for a policy that is not applied."""

    ruleset: Ruleset
    source: str
    backend: str | None = None
    generation: int | None = None
    ipset: bool = True


class LiveKernel:
    """This host's kernel. `proc_net` is another folder for a thread in a namespace of its own."""

    def __init__(self, firewall: ExplainedFirewall, proc_net: Path = _PROC_NET) -> None:
        self._proc_net = proc_net
        self._runner = SubprocessRunner()
        self._ports = {
            item
            for transport in PacketTransport
            if transport is not PacketTransport.UDP
            for item in sip_ports(firewall.ruleset, transport)
        }
        chosen = backend_of(firewall.backend or "", ipset=firewall.ipset)
        names = frozenset(item.name for item in firewall.ruleset.sets)
        self.limits: LimitState = chosen.limits(proc_net)
        self.sets: SourceSets = chosen.sources(names, proc_net)

    def connections(self, network: IPv4Network | IPv6Network) -> int | None:
        """Return how many SIP connections a network holds; None if nobody tells."""
        return tcp_connections(network, self._ports, self._runner, self._proc_net)

    def common(self, ruleset: Ruleset) -> dict[str, Limit]:
        """Return nothing: neither xt_limit nor nf_tables shows the tokens of a common limit."""
        del ruleset
        return {}


@dataclass(frozen=True, slots=True)
class _Record:
    """What of the record of the last apply is needed here.

    `marks` are `<id>#<digest>` of the rules of one family, or of both where one table holds them.
    """

    source: str
    backend: str
    generation: int | None
    guarded: bool
    marks: Counter[str]


def applied_firewall(layout: Layout, family: Family) -> tuple[ExplainedFirewall, str | None]:
    """Return the firewall on record and a warning if the kernel has another one.

    Raises BackendError where there is none, or where it does not guard this family.
    """
    record = read_record(layout, lambda data: _record(data, family))
    if record is None:
        raise BackendError(
            NOTHING,
            hint=f"{HINT}, or ask about a policy with --offline",
        )
    if not record.guarded:
        raise BackendError(
            f"the kernel has no {_NAMES[family]} packet filter, so sipfw judges nothing there",
            hint="see sipfw verify",
        )
    number = record.generation
    unknown = Damaged(0, "an older sipfw has applied it and kept no ruleset")
    generation = unknown if number is None else read_generation(layout, number)
    ruleset = generation if isinstance(generation, Damaged) else read_ruleset(layout, generation)
    if isinstance(generation, Damaged) or isinstance(ruleset, Damaged):
        reason = ruleset.reason if isinstance(ruleset, Damaged) else ""
        raise BackendError(
            f"the ruleset of the applied firewall cannot be read: {reason}", hint="apply again"
        )
    if number is not None and has_lists(ruleset):
        # A generation keeps the sets of block lists empty. Loading them takes the policy models.
        from sipfw.deploy.lists.fill import filled  # noqa: PLC0415 - see above

        ruleset = filled(ruleset, layout, number)
    firewall = ExplainedFirewall(
        _as_applied(ruleset, record), record.source, record.backend, number, generation.ipset
    )
    return firewall, _difference(record, family)


def _record(data: Any, family: Family) -> _Record:
    """Take what is needed, without the objects that `verify` compares: they are thousands."""
    backend, expectation = str(data["backend"]), data["expectation"]
    together = backend_of(backend).facts.together
    rules = [
        rule
        for chain in expectation["chains"]
        if together or chain["family"] == family.value
        for rule in chain["rules"]
    ]
    marks = Counter(f"{rule['id']}#{rule['digest']}" for rule in rules)
    # The live marks of one table are of both families, and one rule may be the jump of both.
    marks |= Counter(
        {
            f"{item['rule']['id']}#{item['rule']['digest']}"
            for item in expectation["jumps"]
            if together or item["family"] == family.value
        }
    )
    number = data.get("generation")
    return _Record(
        str(data["source"]),
        backend,
        None if number is None else int(number),
        any(item["family"] == family.value for item in expectation["jumps"]),
        marks,
    )


def _as_applied(ruleset: Ruleset, record: _Record) -> Ruleset:
    """Leave out what rests on text searches where the kernel had none at the apply."""
    live = {base_id(mark.partition("#")[0]) for mark in record.marks}
    texts = (
        rule
        for chain in ruleset.chains
        for rule in chain.rules
        if any(isinstance(match, PayloadContains) for match in rule.matches)
    )
    if all(rule.id in live for rule in texts):
        return ruleset
    # pydantic comes with it: 0.2 s that only a kernel without text searches has to pay.
    from sipfw.compiler.without_string_match import without_string_match  # noqa: PLC0415 - see above

    return without_string_match(ruleset)


def _difference(record: _Record, family: Family) -> str | None:
    """Say in how far the kernel's rules are not those on record; by their marks, not in order."""
    found = backend_of(record.backend).marks(family)
    if not found:
        raise BackendError(
            "the applied firewall is not in the kernel: no rule of sipfw is live",
            hint="run sipfw restore",
        )
    wrong = (record.marks - found).total() + (found - record.marks).total()
    if not wrong:
        return None
    return (
        f"{pluralize(wrong, 'difference')} between the kernel's rules and the applied ones, so "
        "this answer may be wrong; see sipfw verify"
    )


def is_own_address(address: IpAddress) -> bool:
    """Tell whether packets from this address come from this host itself."""
    if address.is_loopback:
        return True
    kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            # Sends nothing; to an address of its own, a host speaks from the same one.
            probe.connect((str(address), 9))
            return bool(probe.getsockname()[0] == str(address))
    except OSError:
        return False
