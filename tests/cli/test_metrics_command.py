"""`sipfw metrics` where there is nothing to look at, and what it does not take."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_the_help_page_names_the_default_address(sipfw: Sipfw) -> None:
    ran = sipfw("metrics", "--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert "http://127.0.0.1:8961/metrics" in ran.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--listen", "nonsense"],
        ["--listen", ":8961"],
        ["--listen", "127.0.0.1:0"],
        ["--rules", "some"],
        ["--format", "xml"],
        ["--textfile", "a.prom", "--listen", "9000"],
        ["--textfile", "a.prom", "--format", "openmetrics"],
        ["--listen", "9000", "--format", "openmetrics"],
    ],
    ids=" ".join,
)
def test_usage_errors(words: list[str], sipfw: Sipfw) -> None:
    ran = sipfw("metrics", *words)
    assert (ran.code, ran.stdout) == (2, "")
    assert "Traceback" not in ran.stderr


@needs_root
def test_a_file_that_node_exporter_would_not_read(sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("metrics", "--root", str(tmp_path), "--textfile", str(tmp_path / "sipfw.txt"))
    assert ran.code == 2
    assert "node_exporter reads only files that end in .prom" in ran.stderr
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_without_a_firewall_stdout_stays_empty(sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("metrics", "--root", str(tmp_path))
    assert (ran.code, ran.stdout) == (4, "")
    assert ran.stderr == "no firewall of sipfw is in force; make one live: sipfw apply\n"
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_without_a_firewall_the_file_says_so(sipfw: Sipfw, tmp_path: Path) -> None:
    path = tmp_path / "sipfw.prom"
    ran = sipfw("metrics", "--root", str(tmp_path), "--textfile", str(path))
    assert (ran.code, ran.stdout) == (0, "")
    assert ran.stderr == f"{path}: no firewall of sipfw is in force; make one live: sipfw apply\n"
    assert "\nsipfw_up 0.0\n" in path.read_text()
    # Looking makes no folder of its own.
    assert list(tmp_path.iterdir()) == [path]


@needs_root
def test_a_damaged_record_is_a_figure_too(sipfw: Sipfw, tmp_path: Path) -> None:
    state = tmp_path / "var/lib/sipfw"
    state.mkdir(parents=True)
    (state / "applied.json").write_text("{")
    path = tmp_path / "sipfw.prom"
    ran = sipfw("metrics", "--root", str(tmp_path), "--textfile", str(path))
    assert ran.code == 0
    assert "applied.json: cannot be read" in ran.stderr
    assert "\nsipfw_up 0.0\n" in path.read_text()
    ran = sipfw("metrics", "--root", str(tmp_path))
    assert (ran.code, ran.stdout) == (4, "")


@needs_root
@pytest.mark.parametrize("words", [[], ["--textfile", "sipfw.prom"], ["--listen"]], ids=" ".join)
def test_without_the_library_it_says_what_to_install(
    words: list[str], sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Python does with a module that is None here is what it does without the module.
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    ran = sipfw("metrics", "--root", str(tmp_path), *words)
    assert (ran.code, ran.stdout) == (4, "")
    assert ran.stderr == ("sipfw metrics needs prometheus-client: pip install 'sipfw[metrics]'\n")
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_a_missing_folder_is_one_line(sipfw: Sipfw, tmp_path: Path) -> None:
    path = tmp_path / "none" / "sipfw.prom"
    ran = sipfw("metrics", "--root", str(tmp_path), "--textfile", str(path))
    assert ran.code == 4
    assert ran.stderr.startswith(f"{path.parent}: no such folder; make it")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="needs somebody else than root")
def test_only_root_may_look(sipfw: Sipfw) -> None:
    ran = sipfw("metrics")
    assert (ran.code, ran.stderr) == (4, "only root may see or change the firewall; use sudo\n")
