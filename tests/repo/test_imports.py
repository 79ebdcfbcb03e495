"""Which package may import which: the arrows of the design, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_SRC = Path(__file__).parents[2] / "src" / "sipfw"

# Everybody may import these: they import nothing of sipfw but each other.
_COMMON = {"diagnostics", "errors", "plain_data", "resources", "words", ""}

_ALLOWED = {
    "ruleset": set(),
    "policy": {"ruleset"},
    "compiler": {"policy", "ruleset"},
    "feeds": {"policy", "ruleset"},
    "resolver": {"policy", "ruleset"},
    "simulate": {"ruleset"},
    "lower": {"ruleset"},
    "render": {"lower", "ruleset"},
    "host": {"ruleset"},
    "compare": {"lower", "ruleset"},
    "kernel": {"compare", "compiler", "host", "lower", "render", "ruleset"},
    "saved": {"host", "kernel", "lower", "ruleset"},
    "deploy": {
        "compare",
        "compiler",
        "feeds",
        "host",
        "kernel",
        "lower",
        "policy",
        "render",
        "resolver",
        "ruleset",
        "saved",
        "simulate",
    },
    "manual": {"compiler", "deploy", "host", "kernel", "policy", "ruleset"},
    "upkeep": {
        "compare",
        "compiler",
        "deploy",
        "host",
        "kernel",
        "lower",
        "manual",
        "policy",
        "ruleset",
        "saved",
    },
    "monitor": {
        "compare",
        "compiler",
        "deploy",
        "feeds",
        "host",
        "kernel",
        "lower",
        "manual",
        "policy",
        "ruleset",
        "saved",
        "simulate",
        "upkeep",
    },
    "prove": {
        "deploy",
        "host",
        "kernel",
        "lower",
        "monitor",
        "policy",
        "ruleset",
        "simulate",
    },
    "cli": {
        "compare",
        "compiler",
        "deploy",
        "host",
        "kernel",
        "lower",
        "manual",
        "monitor",
        "policy",
        "prove",
        "render",
        "ruleset",
        "simulate",
        "upkeep",
    },
}

_HOME = {
    "click": "cli",
    "jinja2": "render",
    "pydantic": "policy",
    "pydantic_core": "policy",
    "yaml": "policy",
    "iptc": "kernel",
    "rich": "cli",
    "dns": "resolver",
    "prometheus_client": "monitor",
}


@dataclass(frozen=True)
class Import:
    """One imported module and where it stands; `lazy` means inside a function."""

    file: str
    package: str
    line: int
    module: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def _imports() -> Iterator[Import]:
    for path in sorted(_SRC.rglob("*.py")):
        relative = path.relative_to(_SRC)
        package = relative.parts[0] if len(relative.parts) > 1 else relative.stem
        yield from _in_tree(ast.parse(path.read_text(encoding="utf-8")), str(relative), package)


def _in_tree(tree: ast.AST, file: str, package: str, *, lazy: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, package, node.lineno, alias.name, lazy)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports by a relative path"
            yield Import(file, package, node.lineno, node.module or "", lazy)
        else:
            inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _in_tree(node, file, package, lazy=inner)


IMPORTS = list(_imports())


def _target(module: str) -> str | None:
    """Return the part of sipfw that a module belongs to, None for other packages."""
    parts = module.split(".")
    if parts[0] != "sipfw":
        return None
    return parts[1] if len(parts) > 1 else ""


def test_there_is_something_to_look_at() -> None:
    assert len(IMPORTS) > 100
    assert {item.package for item in IMPORTS} >= set(_ALLOWED)


@pytest.mark.parametrize("package", sorted(_ALLOWED))
def test_a_package_imports_downwards_only(package: str) -> None:
    allowed = _ALLOWED[package] | _COMMON | {package}
    wrong = [
        str(item)
        for item in IMPORTS
        if item.package == package
        and (target := _target(item.module)) is not None
        and target not in allowed
    ]
    assert wrong == []


def test_policy_takes_plain_values_from_the_ruleset() -> None:
    wrong = [
        str(item)
        for item in IMPORTS
        if item.package == "policy"
        and item.module.startswith("sipfw.ruleset")
        and item.module != "sipfw.ruleset.match"
    ]
    assert wrong == []


def test_diagnostics_and_errors_import_nothing_heavier() -> None:
    for name in ("diagnostics", "errors", "plain_data", "resources", "words"):
        found = {item.module for item in IMPORTS if item.package == name}
        assert {module for module in found if module.startswith("sipfw")} <= {"sipfw.diagnostics"}


@pytest.mark.parametrize("library", sorted(_HOME))
def test_a_library_has_one_home(library: str) -> None:
    wrong = [
        str(item)
        for item in IMPORTS
        if item.module.partition(".")[0] == library and item.package != _HOME[library]
    ]
    assert wrong == []


def test_python_iptables_is_imported_in_the_worker_only() -> None:
    """Its import alone loads kernel modules and C libraries; an error in them ends the process."""
    wrong = [
        str(item)
        for item in IMPORTS
        if item.module.partition(".")[0] == "iptc"
        and not (item.lazy and item.file.startswith("kernel/xtables/libiptc/"))
    ]
    assert wrong == []


def test_prometheus_client_is_imported_by_who_writes_metrics_only() -> None:
    """It is an extra, and its import takes a tenth of a second."""
    found = [item for item in IMPORTS if item.module.partition(".")[0] == "prometheus_client"]
    assert {item.file for item in found} == {"monitor/metrics/text.py"}
    loaded = "import sys, sipfw.monitor.metrics.text; print('prometheus_client' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_nobody_but_the_runner_starts_programs() -> None:
    """The probe makes a set in the scratch namespace that only its own process is in."""
    wrong = [
        str(item)
        for item in IMPORTS
        if item.module == "subprocess"
        and item.file not in {"host/runner.py", "kernel/xtables/libiptc/probe.py"}
    ]
    assert wrong == []
