"""Tries each part of an iptables plan by itself, through the programs, in a scratch namespace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.host.bounded_files import OddFileError, read_at_most
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.lacking import Lack, lack_of, what_matters
from sipfw.kernel.namespace import ProgramRun, run_in_scratch
from sipfw.lower.xtables import Family
from sipfw.render.script import probe_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.host.runner import Completed, Runner
    from sipfw.lower.xtables import XPlan

# A hundred extensions have some 2 kB of names.
_NAMES = 1 << 16
_SETS = {Family.IP: ("sipfw-probe4", "inet"), Family.IP6: ("sipfw-probe6", "inet6")}
_OF_SETS = {"set", "SET"}
# One of each that a plan may do without, with harmless options.
_FORMS = {
    "u32": '-m u32 --u32 "28=0x4f505449"',
    "bpf": '-m bpf --bytecode "1,6 0 0 0"',
    "string": '-m string --algo kmp --string "sip"',
}


@dataclass(frozen=True, slots=True)
class _Probe:
    part: str
    family: Family
    step: ProgramRun


def missing_parts(runner: Runner, plan: XPlan, programs: dict[Family, str]) -> list[Lack]:
    """Return what of the plan does not work alone; `programs` are the families' restore programs.

    Empty where everything does, or where no scratch namespace can be made.
    """
    comment = '-m comment --comment "sipfw probe"'
    alone = [_Probe("comment", each, _step(programs[each], "raw", comment)) for each in Family]
    probes = [*alone, *_set_probes(plan), *_rule_probes(plan, programs)]
    return what_matters(_failed(runner, probes))


def missing_sets(runner: Runner, plan: XPlan) -> list[Lack]:
    """Return the set types that the kernel does not make."""
    return _failed(runner, list(_set_probes(plan)))


@cache
def missing_forms(programs: tuple[tuple[Family, str], ...]) -> dict[str, Lack]:
    """Return what of u32, bpf and string does not work here; what a kernel can do stays the same.

    Empty where no scratch namespace can be made: then the rules themselves will tell.
    """
    runner = SubprocessRunner()
    asked = [(family, name) for family, name in programs if family is Family.IP or _has_ipv6()]
    together = [_step(name, "raw", *_FORMS.values()) for _, name in asked]
    done = run_in_scratch(runner, together)
    if done is None or all(answer.returncode == 0 for answer in done):
        return {}
    probes = [
        _Probe(part, family, _step(name, "raw", rule))
        for family, name in asked
        for part, rule in _FORMS.items()
    ]
    return {lack.part: lack for lack in _failed(runner, probes)}


def registered(family: Family, proc: Path = Path("/proc")) -> frozenset[str]:
    """Name the matches and targets that x_tables has in the kernel already, loaded or built in."""
    prefix = "ip" if family is Family.IP else "ip6"
    found: set[str] = set()
    for what in ("matches", "targets"):
        try:
            found |= {*read_at_most(proc / "net" / f"{prefix}_tables_{what}", _NAMES).split()}
        except (OSError, OddFileError):
            continue
    return frozenset(found)


def _has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()


def _failed(runner: Runner, probes: Sequence[_Probe]) -> list[Lack]:
    # Without ipset or its module only what needs a set fails, which is the right answer.
    sets = [
        ProgramRun(
            ("ipset", "create", name, "hash:ip", "family", kind, "timeout", "60", "counters")
        )
        for name, kind in _SETS.values()
    ]
    done = run_in_scratch(runner, [*sets, *(probe.step for probe in probes)], to_the_end=True)
    if done is None:
        return []
    answers: Sequence[Completed] = done[len(sets) :]
    lacks = [
        lack_of(probe.part, probe.family, answer.stderr)
        for probe, answer in zip(probes, answers, strict=True)
        if answer.returncode != 0 and not _refuses_a_value(probe, answer)
    ]
    return (
        lacks if all(each.returncode == 0 for each in done[: len(sets)]) else _without_ipset(lacks)
    )


def _refuses_a_value(probe: _Probe, answer: Completed) -> bool:
    """Tell whether the kernel knows the extension and only not this use of it.

    ipset says EINVAL of a kernel without sets; an unknown extension is ENOENT to a rule.
    """
    return ":" not in probe.part and "Invalid argument" in answer.stderr


def _without_ipset(lacks: list[Lack]) -> list[Lack]:
    """Call it one lack where no set at all can be made, and blame no match for it."""
    left = [lack for lack in lacks if lack.part not in _OF_SETS and ":" not in lack.part]
    families = dict.fromkeys(lack.family for lack in lacks if lack not in left)
    return [*(Lack("ipset", family) for family in families), *left]


def _set_probes(plan: XPlan) -> Iterator[_Probe]:
    seen: dict[tuple[str, Family], None] = {}
    for item in plan.sets:
        family = Family.IP6 if "inet6" in item.options else Family.IP
        seen[item.type, family] = None
    for number, (kind, family) in enumerate(seen):
        argv = ("ipset", "create", f"sipfw-probe-{number}", kind, "family", _SETS[family][1])
        yield _Probe(kind, family, ProgramRun(argv))


def _rule_probes(plan: XPlan, programs: dict[Family, str]) -> Iterator[_Probe]:
    for line in probe_lines(plan):
        name, table, what, rule = line.split(" ", 3)
        family = Family(name)
        yield _Probe(what.partition(":")[2], family, _step(programs[family], table, rule))


def _step(program: str, table: str, *rules: str) -> ProgramRun:
    """Return the loading of rules that nothing leads to."""
    lines = "".join(f"-A SIPFW_PROBE {rule}\n" for rule in rules)
    text = f"*{table}\n:SIPFW_PROBE - [0:0]\n{lines}COMMIT\n"
    # All namespaces share the lock of the legacy flavour; nobody holds it for long.
    return ProgramRun((program, "--noflush", "-w", "5"), text)
