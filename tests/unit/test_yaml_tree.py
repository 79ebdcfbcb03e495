from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.errors import PolicyError
from sipfw.policy.yaml_tree import MAX_BYTES, MAX_DEPTH, core_scalar, read_tree


def _data(text: str) -> object:
    return read_tree(text.encode(), "policy.yaml").data


def _faults(text: str) -> list[str]:
    """Return what is wrong, whether nothing can be read or only a part."""
    try:
        return [str(item) for item in read_tree(text.encode(), "policy.yaml").faults]
    except PolicyError as error:
        return [str(item) for item in error.diagnostics]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("TRUE", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("+5", 5),
        ("-5", -5),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".", "."),
        ("2001-01-01", "2001-01-01"),
        ("10-20", "10-20"),
        ("9" * 31, "9" * 31),
        ("9" * 30, int("9" * 30)),
        ("١٢", "١٢"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = core_scalar(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("quoted", ["'5'", '"true"', "'null'", "'~'", '"0x10"'])
def test_quotes_make_text(quoted: str) -> None:
    assert _data(f"a: {quoted}") == {"a": quoted[1:-1]}


@given(st.text(max_size=50))
def test_any_text_is_a_scalar(text: str) -> None:
    core_scalar(text)


def test_every_value_has_its_line() -> None:
    tree = read_tree(b"a: 1\nb:\n  - c: 2\n  -\n    d:\n      3\n", "policy.yaml")
    assert tree.data == {"a": 1, "b": [{"c": 2}, {"d": 3}]}
    assert tree.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 0, "c"): 3,
        ("b", 1): 5,
        ("b", 1, "d"): 5,
    }


def test_a_byte_order_mark_is_no_content() -> None:
    assert read_tree(b"\xef\xbb\xbfa: 1", "policy.yaml").data == {"a": 1}


def test_windows_line_ends_are_line_ends() -> None:
    tree = read_tree(b"a: 1\r\nb: 2\r\n", "policy.yaml")
    assert (tree.data, tree.lines[("b",)]) == ({"a": 1, "b": 2}, 2)


def test_the_deepest_nesting_that_is_read() -> None:
    assert _data("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
    deeper = "a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert _faults(deeper) == ["policy.yaml:1: nested too deeply"]


def test_the_largest_file_that_is_read() -> None:
    fits = b"a: 1\n#" + b"x" * (MAX_BYTES - 6)
    assert read_tree(fits, "policy.yaml").data == {"a": 1}
    with pytest.raises(PolicyError, match="more than 8 MiB"):
        read_tree(fits + b"x", "policy.yaml")


def test_all_yaml_faults_come_at_once() -> None:
    assert _faults("a: &x 1\nb: *x\nc: !t 1\nc: 2\n") == [
        "policy.yaml:1: a: YAML anchors are not supported; remove the &name",
        "policy.yaml:2: b: YAML aliases are not supported; write the value out",
        "policy.yaml:3: c: YAML tags are not supported; remove !t",
        "policy.yaml:4: c: given twice, first on line 3; keep one",
    ]


@pytest.mark.parametrize(
    "text", ['"a\\e[2Jb": 1\n"a\\e[2Jb": 2\n', "a: !<x%1b%0ay> 1\n", '"a\\nb": &x 1\n']
)
def test_no_terminal_sequence_gets_into_a_message(text: str) -> None:
    assert all(line.isprintable() for line in _faults(text))
