from __future__ import annotations

from sipfw.diagnostics import Location
from sipfw.policy.merge import BUILT_IN, Layer, Origins, merge
from sipfw.policy.yaml_tree import Tree, read_tree


def _layer(name: str, text: str) -> Layer:
    return Layer(name, read_tree(text.encode(), name))


def test_mappings_merge_and_everything_else_replaces() -> None:
    data, _ = merge(
        [
            _layer("below", "a: {x: 1, y: [1, 2, 3]}\nb: 1\nc: {k: 1}\n"),
            _layer("above", "a: {y: [9]}\nb: {deep: 2}\nc: null\n"),
        ]
    )
    assert data == {"a": {"x": 1, "y": [9]}, "b": {"deep": 2}, "c": None}


def test_the_layers_themselves_stay_as_they_are() -> None:
    below, above = _layer("below", "a: {x: 1}\n"), _layer("above", "a: {y: 2}\n")
    merge([below, above])
    assert (below.tree.data, above.tree.data) == ({"a": {"x": 1}}, {"a": {"y": 2}})


def test_origins_follow_the_value() -> None:
    _, origins = merge(
        [_layer("below", "a:\n  x: 1\n  y: 1\n"), _layer("above", "\n\na: {y: 2}\n")]
    )
    assert origins.nearest(("a", "x")) == Location("below", 2)
    assert origins.nearest(("a", "y")) == Location("above", 3)
    assert origins.nearest(("a",)) == Location("above", 3)
    assert origins.nearest(("b", "c")) == BUILT_IN
    assert origins.nearest_written(("a", "z")) == BUILT_IN


def test_a_replaced_list_leaves_no_origins_behind() -> None:
    _, origins = merge([_layer("below", "a:\n  - 1\n  - 2\n"), _layer("above", "a: [9]\n")])
    assert origins.nearest(("a", 0)) == Location("above", 1)
    assert origins.nearest(("a", 1)) == Location("above", 1)


def test_a_layer_without_lines_is_named_alone() -> None:
    _, origins = merge([Layer("command line", Tree({"a": {"b": 1}}))])
    assert str(origins.nearest(("a", "b"))) == "command line"


def test_removing_a_list_item_moves_the_later_ones_up() -> None:
    origins = Origins()
    for index in range(4):
        origins.record(("a", index), Location("f", index))
        origins.record(("a", index, "x"), Location("f", 10 + index))
    origins.record(("b",), Location("f", 99))
    origins.close_gap(("a",), 1)
    assert [origins.nearest(("a", n)).line for n in range(3)] == [0, 2, 3]
    assert [origins.nearest(("a", n, "x")).line for n in range(3)] == [10, 12, 13]
    assert origins.nearest(("a", 3)) == BUILT_IN
    assert origins.nearest(("b",)).line == 99
