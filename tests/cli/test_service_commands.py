"""install-service and refresh on a host where there is nothing to do yet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Sipfw

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize("command", ["install-service", "refresh"])
def test_each_command_has_a_help_page(command: str, sipfw: Sipfw) -> None:
    ran = sipfw(command, "--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert "--root" in ran.stdout


def test_the_init_script_goes_to_stdout_and_the_advice_does_not(
    sipfw: Sipfw, tmp_path: Path
) -> None:
    ran = sipfw("install-service", "--format", "sysv", "--root", str(tmp_path))
    assert ran.code == 0
    assert ran.stdout.startswith("#!/bin/sh\n### BEGIN INIT INFO\n")
    assert f"--root {tmp_path.resolve()}" in ran.stdout
    assert "/etc/init.d/sipfw" in ran.stderr
    assert "refresh" in ran.stderr.splitlines()[-1]
    done = subprocess.run(["sh", "-n"], input=ran.stdout, text=True, check=False)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_a_usage_error(sipfw: Sipfw) -> None:
    assert sipfw("install-service", "--format", "upstart").code == 2


@needs_root
@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs this host")
def test_a_host_without_systemd_gets_advice(sipfw: Sipfw) -> None:
    ran = sipfw("install-service")
    assert (ran.code, ran.stdout) == (4, "")
    assert ran.stderr.startswith("systemd does not run this host; either sipfw install-service")


@needs_root
def test_a_refresh_with_nothing_in_force_changes_nothing(sipfw: Sipfw, tmp_path: Path) -> None:
    for words in ([], ["--cached"]):
        ran = sipfw("refresh", "--root", str(tmp_path), *words)
        assert ran.code == 0
        assert ran.stderr == "nothing to refresh: no firewall of sipfw is in force\n"
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_a_record_without_generation_asks_for_an_apply(sipfw: Sipfw, tmp_path: Path) -> None:
    state = tmp_path / "var/lib/sipfw"
    state.mkdir(parents=True)
    empty = '{"format": 1, "chains": [], "jumps": [], "sets": [], "sysctls": []}'
    record = '{"source": "x", "backend": "iptables", "generation": null, "expectation": %s}'
    (state / "applied.json").write_text(record % empty)
    ran = sipfw("refresh", "--root", str(tmp_path))
    assert ran.code == 4
    assert ran.stderr.rstrip().endswith("did not keep its policy; apply again")


@needs_root
def test_a_damaged_record_is_no_traceback(sipfw: Sipfw, tmp_path: Path) -> None:
    state = tmp_path / "var/lib/sipfw"
    state.mkdir(parents=True)
    (state / "applied.json").write_text("{")
    ran = sipfw("refresh", "--root", str(tmp_path))
    assert ran.code == 4
    assert "applied.json: cannot be read" in ran.stderr


@pytest.mark.parametrize("command", ["install-service", "refresh"])
def test_others_than_root_are_told(
    command: str, sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = sipfw(command, "--root", str(tmp_path))
    assert (ran.code, ran.stdout) == (4, "")
    assert "use sudo" in ran.stderr
