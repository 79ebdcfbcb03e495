"""Nobody asks which backend it is: what depends on that is asked of the backend itself."""

from __future__ import annotations

import ast
from pathlib import Path

from sipfw.kernel.backend import backend_names, backend_words

_SRC = Path(__file__).parents[2] / "src" / "sipfw"
# The packages of the backends may know their own names.
_AT_HOME = ("kernel/xtables/", "kernel/nft/")

# Host programs, packages and formats have the same names. Each file with what its word is.
_OTHER_WORDS = {
    "deploy/applied.py": "what a record without a backend was made by",
    "host/runner.py": "packages of distributions",
    "kernel/detect.py": "host programs",
    "kernel/distribution.py": "packages of distributions",
    "kernel/forms.py": "a program, in a sentence",
    "kernel/state/marks.py": "host programs",
    "monitor/doctor/rules.py": "host programs",
    "monitor/support/bundle.py": "host programs",
    "saved/places.py": "services and files of distributions",
}
_FILES = sorted(_SRC.rglob("*.py"))


def _named_in(path: Path) -> list[int]:
    """Return the lines in which a string is the name of a backend, and nothing besides."""
    names = {*backend_names(), *backend_words()}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in names
    ]


def _outside() -> dict[str, list[int]]:
    found = {str(path.relative_to(_SRC)): path for path in _FILES}
    named = {name: _named_in(path) for name, path in found.items() if not name.startswith(_AT_HOME)}
    return {name: lines for name, lines in named.items() if lines}


def test_no_room_names_a_backend() -> None:
    assert {name: lines for name, lines in _outside().items() if name not in _OTHER_WORDS} == {}


def test_the_list_of_other_words_is_short_because_it_is_kept() -> None:
    assert set(_OTHER_WORDS) == set(_outside())


def test_nobody_compares_with_a_backends_name() -> None:
    """Not even at home: a backend is its class, its facts and its options."""
    names = {*backend_names(), *backend_words()}
    compared = [
        f"{path.relative_to(_SRC)}:{node.lineno}"
        for path in _FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        and any(isinstance(part, ast.Constant) and part.value in names for part in ast.walk(node))
        and not _is_about_programs(node)
    ]
    assert compared == []


def _is_about_programs(node: ast.Compare) -> bool:
    """Tell whether a comparison looks into a collection of host programs."""
    return any(
        isinstance(part, ast.Attribute | ast.Name) and "programs" in ast.unparse(part)
        for part in node.comparators
    )
