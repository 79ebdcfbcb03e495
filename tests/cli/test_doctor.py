"""`sipfw doctor`: what it prints, and with which exit code."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import Exit
from sipfw.monitor.doctor import examine as examination
from sipfw.monitor.doctor.findings import Diagnosis, DiagnosisState

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw
    from sipfw.monitor.doctor.host import HostView

FINE = Diagnosis("clock", DiagnosisState.OK, "it is set")
LATE = Diagnosis("last-apply", DiagnosisState.WARNING, "sipfw was not applied yet", "sipfw apply")
OPEN = Diagnosis(
    "live", DiagnosisState.PROBLEM, "the applied firewall is not in the kernel", "sipfw restore"
)
DARK = Diagnosis("backend", DiagnosisState.UNKNOWN, "only root can see this; use sudo")


def _checks(monkeypatch: pytest.MonkeyPatch, *findings: Diagnosis) -> None:
    checks = {item.name: lambda _, item=item: item for item in findings}
    monkeypatch.setattr(examination, "CHECKS", checks)


def test_the_page(sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch) -> None:
    _checks(monkeypatch, FINE, DARK, LATE, OPEN)
    ran = sipfw("doctor")
    assert ran.code == Exit.DIFFERENT
    assert ran.stdout.splitlines() == [
        "problem  live        the applied firewall is not in the kernel",
        "                     fix: sipfw restore",
        "warning  last-apply  sipfw was not applied yet",
        "                     fix: sipfw apply",
        "unknown  backend     only root can see this; use sudo",
        "ok       clock       it is set",
        "",
        "1 problem, 1 warning, 1 unknown, 1 ok",
    ]


def test_warnings_are_no_problem(sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch) -> None:
    _checks(monkeypatch, LATE, DARK, FINE)
    assert sipfw("doctor").code == Exit.CLEAN


def test_the_page_for_machines(sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch) -> None:
    _checks(monkeypatch, FINE, OPEN)
    ran = sipfw("doctor", "--json")
    assert ran.code == Exit.DIFFERENT
    assert json.loads(ran.stdout) == {
        "format": 1,
        "clean": False,
        "counts": {"problem": 1, "warning": 0, "unknown": 0, "ok": 1},
        "findings": [
            {
                "name": "live",
                "state": "problem",
                "sentence": "the applied firewall is not in the kernel",
                "fix": "sipfw restore",
            },
            {"name": "clock", "state": "ok", "sentence": "it is set", "fix": None},
        ],
    }


def test_without_root_it_says_so_once(
    sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    ran = sipfw("doctor", "--json", "--root", str(tmp_path))
    assert ran.stderr.splitlines() == [
        "not root: rules and sipfw's own record are not seen; use sudo for all checks"
    ]
    found = {item["name"]: item["state"] for item in json.loads(ran.stdout)["findings"]}
    assert set(found) == set(examination.CHECKS)
    assert found["backend"] == "unknown"


def test_it_looks_below_the_root(
    sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Path] = []

    def check(host: HostView) -> Diagnosis:
        seen.append(host.root)
        return FINE

    monkeypatch.setattr(examination, "CHECKS", {"clock": check})
    sipfw("doctor", "--root", str(tmp_path))
    assert seen == [tmp_path]


@pytest.mark.parametrize(
    ("text", "reader"),
    [
        ("logging: {layers: [banned]}\n", "log"),
        ("logging: {layers: [banned], to: nflog}\n", "nflog"),
        ("logging: {to: nflog}\n", None),
        ("logging: {layers: [nobody]}\n", None),
        (None, None),
    ],
)
def test_it_reads_in_the_policy_who_reads_the_log(
    text: str | None, reader: str | None, sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    seen: list[str | None] = []

    def check(host: HostView) -> Diagnosis:
        seen.append(host.log_reader)
        return FINE

    monkeypatch.setattr(examination, "CHECKS", {"clock": check})
    policy = tmp_path / "etc/sipfw/policy.yaml"
    policy.parent.mkdir(parents=True)
    if text is None:
        os.mkfifo(policy)
    else:
        policy.write_text(text)
    assert sipfw("doctor", "--root", str(tmp_path)).code == Exit.CLEAN
    assert seen == [reader]


def test_the_help_page(sipfw: Sipfw) -> None:
    ran = sipfw("doctor", "--help")
    assert (ran.code, ran.stderr) == (Exit.CLEAN, "")
    assert "  doctor " in sipfw("--help").stdout
