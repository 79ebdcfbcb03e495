"""Every match and target that we may use: built by the worker and by the iptables program.

Both rules go into the same table of a scratch namespace. They must be equal in the listing and in
the kernel's bytes, because some defects of python-iptables show only there.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from iptc_cases import CASES, Case, add
from scratch_namespace import NamespaceRunner, scratch_namespace

from sipfw.kernel.xtables.legacy import IptablesBackend
from sipfw.kernel.xtables.save_text import parse_save
from sipfw.lower.xtables import (
    Family,
    XChain,
    XPlan,
    XRule,
    XTable,
    XTarget,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

PROGRAM = {Family.IP: "iptables-legacy", Family.IP6: "ip6tables-legacy"}


@dataclass(frozen=True)
class Built:
    """Listing lines and raw entries by (family, table, chain), in case order."""

    lines: dict[tuple[Family, str, str], list[str]]
    raw: dict[tuple[Family, str, str], list[str]]


def plan() -> XPlan:
    tables = []
    for family in Family:
        for table in ("raw", "mangle", "filter"):
            rules = [c.rule for c, f in CASES if f is family and c.table == table]
            target = XChain("TGT", (XRule("sipfw:t#0", target=XTarget("RETURN")),))
            tables.append(XTable(table, family, (XChain("WORKER", tuple(rules)), target), ()))
    return XPlan((), tuple(tables))


def create_sets(namespace: NamespaceRunner) -> None:
    for name, inet in (("four", "inet"), ("six", "inet6")):
        for suffix, kind in (("", "hash:ip"), ("p", "hash:ip,port")):
            namespace.ok(
                "ipset", "create", name + suffix, kind, "family", inet, "timeout", "60", "counters"
            )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Build every case both ways, once for all tests."""
    lock = str(tmp_path_factory.mktemp("matrix") / "lock")
    os.environ["XTABLES_LOCKFILE"] = lock
    try:
        with scratch_namespace("matrix", lock) as namespace:
            create_sets(namespace)
            IptablesBackend(namespace).apply(plan())
            for case, family in CASES:
                at = [PROGRAM[family], "-t", case.table]
                namespace.run([*at, "-N", "PROGRAM"])
                comment = ["-m", "comment", "--comment", case.rule.comment]
                words = shlex.split(case.cli)
                # Our comment is the last match, so it stands before the target.
                cut = next((i for i, w in enumerate(words) if w in {"-j", "-g"}), len(words))
                namespace.ok(*at, "-A", "PROGRAM", *words[:cut], *comment, *words[cut:])
            yield read(namespace)
    finally:
        del os.environ["XTABLES_LOCKFILE"]


def read(namespace: NamespaceRunner) -> Built:
    result = Built({}, {})
    script = str(Path(__file__).with_name("kernel_entries.py"))
    for family in Family:
        for table in parse_save(namespace.ok(f"{PROGRAM[family]}-save")):
            for chain in table.chains:
                lines = [rule.line.split(" ", 2)[2] for rule in chain.rules]
                result.lines[family, table.name, chain.name] = lines
            output = namespace.ok(sys.executable, script, family, table.name, "WORKER", "PROGRAM")
            for chain_name, entries in json.loads(output).items():
                result.raw[family, table.name, chain_name] = entries
    return result


def index_of(case: Case, family: Family) -> int:
    return [c.name for c, f in CASES if f is family and c.table == case.table].index(case.name)


@pytest.mark.parametrize(
    ("case", "family"), CASES, ids=[f"{c.name}-{f}-{c.cli[:60]}" for c, f in CASES]
)
def test_worker_and_program_make_the_same_rule(built: Built, case: Case, family: Family) -> None:
    index = index_of(case, family)
    worker, program = ((family, case.table, chain) for chain in ("WORKER", "PROGRAM"))
    assert built.lines[worker][index] == built.lines[program][index]
    assert built.raw[worker][index] == built.raw[program][index]


def test_matrix_is_complete(built: Built) -> None:
    for (family, table, chain), lines in built.lines.items():
        if chain == "WORKER":
            assert len(lines) == len(built.lines[family, table, "PROGRAM"]) > 0
    assert len(add.cases) >= 80
