"""What a set is, its `SetKind` says, and where it comes from, its `of`: never its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sipfw.compiler import names

_SRC = Path(__file__).parents[2] / "src" / "sipfw"

# The one place that writes the names of both kernels, and what may read them back.
_HOME = "lower/naming.py"
_READS = frozenset({"endswith", "startswith", "removesuffix", "removeprefix", "partition"})
# `feed-` leads no other set of a ruleset; a firewall of an older version says it by no other way.
_ALLOWED = frozenset({"deploy/lists/sets.py: FEED_SET_PREFIX"})

_SETS = {
    name: value
    for name, value in vars(names).items()
    if name.startswith("SET_") or name.endswith("_SET_PREFIX")
}
_ENDINGS = {f"-{end}" for value in _SETS.values() if (end := value.rpartition("-")[2])}
_ENDINGS |= {"-nets", "_nets"}


def _asked(tree: ast.AST) -> list[tuple[int, ast.expr]]:
    """Return what texts are asked for at an end of them, with the line."""
    return [
        (node.lineno, part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _READS
        for argument in node.args
        for part in (argument.elts if isinstance(argument, ast.Tuple) else [argument])
    ]


def _of_a_set(asked: ast.expr) -> str | None:
    """Return the name or ending of a set that is asked for; None for anything else."""
    if isinstance(asked, ast.Constant) and isinstance(asked.value, str):
        text = asked.value
        return text if text in _ENDINGS or text in _SETS.values() else None
    name = asked.attr if isinstance(asked, ast.Attribute) else getattr(asked, "id", "")
    return name if name in _SETS or name == "NETS" else None


def _wrong() -> list[str]:
    return [
        f"{file}: {found}"
        for path in sorted(_SRC.rglob("*.py"))
        if (file := str(path.relative_to(_SRC))) != _HOME
        for _, asked in _asked(ast.parse(path.read_text(encoding="utf-8")))
        if (found := _of_a_set(asked)) is not None
    ]


def test_there_is_something_to_look_for() -> None:
    assert {"-ports", "-nets", "-tls"} <= _ENDINGS
    assert _of_a_set(ast.parse("'-ports'", mode="eval").body) == "-ports"
    assert len(_asked(ast.parse("a.endswith(('-nets', '-ports')) or b.endswith('6')"))) == 3


def test_no_set_is_known_by_an_end_of_its_name() -> None:
    assert set(_wrong()) <= _ALLOWED


def test_the_digit_of_the_family_is_read_in_one_place() -> None:
    """`endswith("6")` and slices of a set's name: a block list may be called `x4`."""
    digit = re.compile(r"""\.name(?:\[-1\]|\[:-1\]|\.endswith\(["'][46]["']\))""")
    found = [
        str(path.relative_to(_SRC))
        for path in sorted(_SRC.rglob("*.py"))
        if digit.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def _keyed_by_summary(tree: ast.AST) -> bool:
    """Tell whether a summary is looked up, or things are kept by it."""
    keys = [
        key
        for node in ast.walk(tree)
        for key in (
            [node.key]
            if isinstance(node, ast.DictComp)
            else [node.elt]
            if isinstance(node, ast.SetComp)
            else [node.left]
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn)
            else []
        )
    ]
    return any(isinstance(key, ast.Attribute) and key.attr == "summary" for key in keys)


def test_no_set_is_found_by_its_summary() -> None:
    """Two sets may have the same words; only an older record has nothing else."""
    found = {
        str(path.relative_to(_SRC))
        for path in sorted(_SRC.rglob("*.py"))
        if _keyed_by_summary(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found <= {"deploy/plan.py"}
