"""The process that talks to libiptc: one JSON request on stdin, one JSON reply on stdout.

It exists because libxtables reports an error by jumping out of Python, after which the interpreter
is damaged, and crashes on some inputs. Dying costs nothing: only `commit` touches the kernel, and
the parent compares and restores. It takes no lock and keeps no snapshot; both are the parent's.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.libiptc.limits import table_faults
from sipfw.kernel.xtables.libiptc.patches import load_iptc
from sipfw.kernel.xtables.libiptc.probe import probe
from sipfw.kernel.xtables.libiptc.protocol import (
    Operation,
    WorkerReply,
    WorkerRequest,
    decode_request,
    encode_reply,
)
from sipfw.kernel.xtables.libiptc.table import CHANGED, TableEdit
from sipfw.kernel.xtables.standing import Adoption

if TYPE_CHECKING:
    from types import ModuleType

    from sipfw.lower.xtables import XTable

_BYTES = re.compile(r"b'([^']*)'")


class Job:
    """One request, with what is known about its progress when something fails."""

    def __init__(self, request: WorkerRequest) -> None:
        self.request = request
        self.step = "load python-iptables"
        self.committed: list[str] = []
        self.notes: list[str] = []

    def run(self) -> WorkerReply:
        """Do what the request says."""
        for table in self.request.tables:
            faults = table_faults(table)
            if faults:
                return WorkerReply(error="; ".join(faults))
        iptc = load_iptc()
        if self.request.operation is Operation.PROBE:
            return WorkerReply(features=tuple(probe(iptc, self.request.features)))
        return self._edit(iptc)

    def _edit(self, iptc: ModuleType) -> WorkerReply:
        """Prepare every table, then commit one after the other: a bad rule changes nothing."""
        edits = []
        for table in self.request.tables:
            self.step = f"open table {table.family} {table.name}"
            edits.append(TableEdit(iptc, table, self._adoption(table)))
        foreign = [f"{edit.label} {name}" for edit in edits for name in edit.foreign_chains()]
        if foreign:
            return WorkerReply(
                error=f"not made by sipfw: chain {', '.join(foreign)}", foreign=tuple(foreign)
            )
        for edit in edits:
            self.step = f"change table {edit.label}"
            edit.change(reposition=self.request.reposition)
        for edit in edits:
            self.step = f"commit table {edit.label}"
            edit.commit()
            self.committed.append(edit.label)
            self.notes += edit.notes
        return WorkerReply(committed=tuple(self.committed), notes=tuple(self.notes))

    def _adoption(self, table: XTable) -> Adoption:
        """Allow what the request names, and chains of the table's own names with it."""
        own = (chain.name for chain in table.chains)
        elsewhere = self.request.adopt_chains
        return Adoption(frozenset({*elsewhere, *own} if elsewhere else ()))


def main() -> None:
    """Serve one request and end."""
    # It ends before garbage could fill anything, and walks over all rules otherwise.
    gc.disable()
    # libxtables and its plugins print to descriptor 1 as they like; the reply must be alone.
    reply_to = os.dup(1)
    os.dup2(2, 1)
    job = Job(decode_request(sys.stdin.read()))
    try:
        reply = job.run()
    except Exception as error:  # noqa: BLE001 - every failure becomes the reply, then the process ends
        text = _BYTES.sub(r"\1", str(error))
        reply = WorkerReply(
            error=f"{job.step}: {text}",
            # EAGAIN from the kernel: the table grew or shrank since it was fetched.
            retry=CHANGED in text or "Resource temporarily unavailable" in text,
            committed=tuple(job.committed),
            notes=tuple(job.notes),
        )
    with os.fdopen(reply_to, "w", encoding="utf-8") as stream:
        stream.write(encode_reply(reply))
    # Destructors of python-iptables objects would run libiptc code on damaged state.
    os._exit(0 if reply.error is None else 1)


if __name__ == "__main__":
    main()
