"""The engine for legacy iptables, whose rules python-iptables loads in a process of its own."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.runner import Runner, SubprocessRunner
from sipfw.kernel.lacking import LackingError, lacks_of
from sipfw.kernel.xtables.engine import Engine
from sipfw.kernel.xtables.libiptc.patches import has_library, plugin_directory
from sipfw.kernel.xtables.libiptc.protocol import (
    Feature,
    Operation,
    WorkerReply,
    WorkerRequest,
    decode_reply,
    encode_request,
)
from sipfw.kernel.xtables.loaders.libiptc import LibiptcLoader
from sipfw.kernel.xtables.parts import missing_sets, registered
from sipfw.kernel.xtables.tools import LegacyTools
from sipfw.lower.xtables import Family, XPlan
from sipfw.resources import import_root

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKER_TIMEOUT = 60.0

# -I keeps the directory that root stands in and every PYTHON* variable out of the worker; the
# parent's own package directory is handed over, since a checkout is not on the isolated path.
_START_WORKER = (
    "import runpy, sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "runpy.run_module('sipfw.kernel.xtables.libiptc.worker', run_name='__main__')"
)


@dataclass(frozen=True, slots=True)
class IptcWorker:
    """The process that talks to libiptc, and what it is asked."""

    runner: Runner

    def ask(self, request: WorkerRequest) -> WorkerReply:
        """Return the reply to a request; BackendError where the process died."""
        plugins = plugin_directory(sysconfig.get_config_var("MULTIARCH") or "")
        done = self.runner.run(
            [sys.executable, "-I", "-c", _START_WORKER, import_root()],
            stdin=encode_request(request),
            timeout=WORKER_TIMEOUT,
            env={} if plugins is None else {"XTABLES_LIBDIR": plugins},
        )
        try:
            return decode_reply(done.stdout)
        except ValueError:
            said = done.stderr.strip().splitlines()[-1:]
            how = f"signal {-done.returncode}" if done.returncode < 0 else f"{done.returncode}"
            raise BackendError(" ".join([f"worker process died ({how})", *said])) from None

    def probe(self, features: Sequence[str]) -> tuple[Feature, ...]:
        """Ask which extensions work here; "table" asks for legacy iptables as such."""
        reply = self.ask(WorkerRequest(Operation.PROBE, features=tuple(features)))
        if reply.error is not None:
            raise BackendError(reply.error)
        return reply.features

    def knows_all(self, plan: XPlan) -> bool:
        """Tell whether libxtables and the kernel have every extension, so that none is tried."""
        wanted = set(_extensions(plan))
        folder = plugin_directory(sysconfig.get_config_var("MULTIARCH") or "")
        if folder is None or not all(has_library(Path(folder), name) for name in wanted):
            return False
        return all(wanted <= registered(family) for family in {t.family for t in plan.tables})

    def refuse_lacks(self, plan: XPlan) -> None:
        """Raise LackingError for what python-iptables, ipset or the kernel cannot do here."""
        # A kernel without IPv6 tables has a firewall without them.
        lacks = [
            lack
            for lack in lacks_of(self.probe(["table", *_extensions(plan)]))
            if (lack.part, lack.family) != ("table", Family.IP6)
        ]
        lacks += missing_sets(self.runner, plan)
        if lacks:
            raise LackingError(lacks)


class IptablesBackend(Engine):
    """Applies, removes and reads rules of legacy iptables through python-iptables."""

    def __init__(self, runner: Runner | None = None) -> None:
        runner = runner or SubprocessRunner()
        self._worker = IptcWorker(runner)
        super().__init__(runner, LibiptcLoader(LegacyTools(runner), self._worker))

    def probe(self, features: Sequence[str]) -> tuple[Feature, ...]:
        """Ask which extensions work here; "table" asks for legacy iptables as such."""
        return self._worker.probe(features)


def _extensions(plan: XPlan) -> list[str]:
    """Name the match and target extensions of a plan; verdicts and chains are no extensions."""
    rules = [
        rule
        for table in plan.tables
        for rule in (
            *(rule for chain in table.chains for rule in chain.rules),
            *(jump.rule for jump in table.jumps),
        )
    ]
    matches = {match.name for rule in rules for match in rule.matches} - {"icmp", "icmp6"}
    targets = {rule.target.name for rule in rules if rule.target is not None and rule.target.params}
    # Each rule has a comment.
    return sorted(matches | targets | {"comment"})
