"""`sipfw doctor`: one page that says what is wrong with this host for SIP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say_json, say_lines, table
from sipfw.cli.which_policy import DEFAULT_POLICY
from sipfw.errors import Exit, SipfwError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sipfw.monitor.doctor.findings import Diagnosis

FORMAT = 1


@click.command("doctor")
@root_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, root: Path, as_json: bool) -> int:
    """Say what is wrong with this host for SIP, and which command mends it.

    Looks at the kernel, the rules of all programs, and files below --root; changes nothing. Exit
    code 1 means that a problem was found; warnings and what cannot be known leave it at 0.
    """
    from sipfw.monitor.doctor.examine import examine
    from sipfw.monitor.doctor.findings import DiagnosisState
    from sipfw.monitor.doctor.host import HostView

    host = HostView(root, log_reader=_log_reader(root))
    findings = examine(host)
    if not host.is_root:
        complain("not root: rules and sipfw's own record are not seen; use sudo for all checks")
    if as_json:
        say_json(as_data(findings))
    else:
        say_lines(as_lines(findings))
    sick = any(item.state is DiagnosisState.PROBLEM for item in findings)
    return Exit.DIFFERENT if sick else Exit.CLEAN


def _log_reader(root: Path) -> str | None:
    """Return whom the policy file wants log lines for; None for nobody, and for a faulty file."""
    path = root / DEFAULT_POLICY
    try:
        if not path.is_file():
            return None
        from sipfw.policy.load import Request, load

        logging = load(Request(path)).policy.logging
    except (SipfwError, OSError):
        return None
    return logging.to.value if logging.layers else None


def as_lines(findings: Sequence[Diagnosis]) -> Iterator[str]:
    """Return the page for people: a line for each check, and its fix below it."""
    rows: list[tuple[str, str, str]] = []
    for item in findings:
        rows.append((item.state.value, item.name, item.sentence))
        if item.fix is not None:
            rows.append(("", "", f"fix: {item.fix}"))
    yield from table(rows, head=False)
    yield ""
    counts = _counts(findings)
    yield ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def as_data(findings: Sequence[Diagnosis]) -> dict[str, Any]:
    """Return the page for machines; `format` counts up when a field changes its meaning.

    `findings` holds every check, worst first: `name` is stable, `state` is problem, warning,
    unknown or ok, `sentence` is for people, `fix` is a command or null.
    """
    counts = _counts(findings)
    return {
        "format": FORMAT,
        "clean": counts["problem"] == 0,
        "counts": counts,
        "findings": [
            {"name": item.name, "state": item.state.value, "sentence": item.sentence}
            | {"fix": item.fix}
            for item in findings
        ],
    }


def _counts(findings: Sequence[Diagnosis]) -> dict[str, int]:
    from sipfw.monitor.doctor.findings import DiagnosisState

    return {state.value: sum(item.state is state for item in findings) for state in DiagnosisState}
