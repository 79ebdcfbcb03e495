"""A block list may have any name, also one that looks like that of another set."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.expected import expect, from_json, to_json
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower import iptables, nftables
from sipfw.policy.load import Request, load
from sipfw.ruleset.model import SetKind

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.compare.expected import Expectation
    from sipfw.lower.plan import LoweredPlan
    from sipfw.ruleset.model import Ruleset

_NAMES = ("my", "my-nets", "my-ports", "x", "x4", "banned", "trusted-ports")
_MEMBERS = {
    name: (ip_network(f"192.0.2.{number}"), ip_network(f"198.51.100.{16 * number}/28"))
    for number, name in enumerate(_NAMES)
}


@pytest.fixture(name="ruleset", scope="module")
def _ruleset(tmp_path_factory: pytest.TempPathFactory) -> Ruleset:
    path: Path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    feeds = ", ".join(f"{{name: {name}, file: /etc/sipfw/{name}.txt}}" for name in _NAMES)
    path.write_text(f"feeds: [{feeds}]\n", encoding="utf-8")
    return compile_policy(load(Request(path)), feeds=_MEMBERS)


def _plans(ruleset: Ruleset) -> dict[str, LoweredPlan]:
    return {"iptables": iptables.lower(ruleset), "nftables": nftables.lower(ruleset)}


def _elements(wanted: Expectation, name: str) -> set[str]:
    return {
        element
        for item in wanted.sets
        if item.of == f"feed-{name}" and item.elements is not None
        for element in item.elements
    }


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_each_list_has_sets_of_its_own(ruleset: Ruleset, backend: str) -> None:
    wanted = expect(ruleset, _plans(ruleset)[backend])
    names = [item.name for item in wanted.sets]
    assert len(names) == len(set(names))
    for name, members in _MEMBERS.items():
        assert _elements(wanted, name) == {str(item).removesuffix("/32") for item in members}


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_set_knows_where_it_comes_from(ruleset: Ruleset, backend: str) -> None:
    wanted = expect(ruleset, _plans(ruleset)[backend])
    known = {item.name: item for item in ruleset.sets}
    for item in wanted.sets:
        if item.of in known:
            assert item.summary == known[item.of].summary
            assert item.origin == str(known[item.of].origin)
            assert (item.elements is None) == known[item.of].dynamic
    assert {item.of for item in wanted.sets} >= known.keys()


def test_every_lookup_is_in_a_set_of_the_plan(ruleset: Ruleset) -> None:
    plan = nftables.lower(ruleset)
    names = {item.name for item in plan.sets}
    rules = [rule for chain in plan.chains for rule in chain.rules if "feeds.my" in rule.comment]
    asked = {
        word.removeprefix("@") for rule in rules for word in rule.match.split() if word[0] == "@"
    }
    assert asked == {
        f"feed-{name}{digit}"
        for name in ("my", "my_nets", "my-nets", "my-nets-nets", "my-ports", "my-ports-nets")
        for digit in (4, 6)
    }
    assert asked <= names


def test_a_list_is_of_networks_whatever_its_name(ruleset: Ruleset) -> None:
    kinds = {item.kind for item in ruleset.sets if item.name.startswith("feed-")}
    assert kinds == {SetKind.NETWORK}


def test_the_record_keeps_where_a_set_comes_from(ruleset: Ruleset) -> None:
    wanted = expect(ruleset, nftables.lower(ruleset))
    data = json.loads(json.dumps(to_json(wanted)))
    assert from_json(data) == wanted
    for item in data["sets"]:
        del item["of"]
    assert {item.of for item in from_json(data).sets} == {""}
