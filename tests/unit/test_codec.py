from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load, shipped_profiles
from sipfw.ruleset import codec
from sipfw.ruleset.codec import DecodeError, decode, encode
from sipfw.ruleset.match import Match
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority, Ruleset
from sipfw.ruleset.rule import Action, Drop, Goto, Origin, Rule

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
PEER = """\
admin: {networks: [192.0.2.0/28]}
trusted_peers:
  - {name: a, signalling: [203.0.113.10, "2001:db8:5::/64"], source_ports: [5060]}
"""


def _sample() -> Ruleset:
    return compile_policy(load(Request(settings=("bans.duration=9m",))))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_comes_back_equal(example: Path) -> None:
    ruleset = compile_policy(load(Request(example)))
    assert decode(encode(ruleset)) == ruleset
    assert encode(decode(encode(ruleset))) == encode(ruleset)


@pytest.mark.parametrize("profile", shipped_profiles())
def test_every_profile_comes_back_equal(profile: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(PEER, encoding="utf-8")
    ruleset = compile_policy(load(Request(file, profile)))
    assert decode(encode(ruleset)) == ruleset


def _value(kind: Any) -> Any:
    """Make some value of an annotated type, different from its default where that is easy."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return (_value(arguments[0]),)
    if arguments:
        return _value(arguments[0])
    plain = {str: "word", int: 7, bool: True, bytes: b"\x00\xff"}
    if kind in plain:
        return plain[kind]
    if kind.__module__ == "ipaddress":
        return kind("192.0.2.0/28" if "4" in kind.__name__ else "2001:db8::/64")
    if hasattr(kind, "__dataclass_fields__"):
        return kind(**{name: _value(hint) for name, hint in codec._hints(kind).items()})
    return list(kind)[-1]


@pytest.mark.parametrize("kind", typing.get_args(Match), ids=lambda kind: kind.__name__)
def test_every_match_comes_back_equal(kind: Any) -> None:
    match = _value(kind)
    assert codec._value(codec._plain(match), Match, "match") == match


@pytest.mark.parametrize("kind", typing.get_args(Action), ids=lambda kind: kind.__name__)
def test_every_action_comes_back_equal(kind: Any) -> None:
    action = _value(kind)
    assert codec._value(codec._plain(action), Action, "action") == action


def _changed(*steps: Any, value: object) -> str:
    """Return the sample's text with one value replaced; None takes the key away."""
    data = json.loads(encode(_sample()))
    place = data
    for step in steps[:-1]:
        place = place[step]
    if value is None:
        del place[steps[-1]]
    else:
        place[steps[-1]] = value
    return json.dumps(data)


_CHAIN = ("ruleset", "chains", 0)
_RULE = (*_CHAIN, "rules", 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{}", "not a ruleset"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": NaN}', "not JSON: NaN"),
        (_changed("format", value=99), "format 99, this version reads 1"),
        (_changed("format", value=True), "format True"),
        (_changed(*_CHAIN, "extra", value=1), "a Chain has no 'extra'"),
        (_changed(*_CHAIN, "name", value=None), "a Chain needs name"),
        (_changed(*_CHAIN, "name", value=5), r"ruleset.chains\[0\].name: 5 is no str"),
        (_changed(*_CHAIN, "name", value="A; flush ruleset"), "is no name of a chain"),
        (_changed(*_CHAIN, "summary", value="a\nb"), "cannot be printed"),
        (_changed(*_CHAIN, "summary", value="\ud800"), "cannot be printed"),
        (_changed(*_CHAIN, "layer", value="cellar"), "'cellar' is no Layer"),
        (_changed(*_CHAIN, "rules", value={}), "is no list"),
        (_changed(*_RULE, "action", value={"is": "Exec"}), "no type 'Exec' here"),
        (_changed(*_RULE, "action", value="accept"), "does not belong here"),
        (_changed(*_RULE, "matches", value=[{"is": "Rule"}]), "no type 'Rule' here"),
        (_changed(*_RULE, "id", value="../x"), "is no name"),
        (
            _changed("ruleset", "sysctls", 0, "name", value="kernel.core_pattern"),
            "no setting of connection tracking",
        ),
        (_changed("ruleset", "sysctls", 0, "value", value=True), "True is no int"),
        (_changed("ruleset", "sysctls", 0, "value", value=1.5), "1.5 is no int"),
    ],
)
def test_damage_is_named(text: str, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        decode(text)


def test_every_cut_is_damage() -> None:
    text = encode(_sample())
    for end in range(0, len(text) - 2, 997):
        with pytest.raises(DecodeError):
            decode(text[:end])


def test_a_reference_to_nothing_is_damage() -> None:
    rule = Rule("a", (), Goto("NOWHERE"), "a rule", Origin("limits", "policy.yaml"))
    chain = Chain("A", Layer.ENTRY, "", (rule,), Priority.RAW, Base(Hook.INPUT, Priority.RAW))
    with pytest.raises(DecodeError, match="names the chain NOWHERE, which is missing"):
        decode(encode(Ruleset((chain,), (), ())))


def test_a_field_that_an_older_version_did_not_know_has_its_default() -> None:
    rule = Rule("a", (), Drop(), "a rule", Origin("limits", "policy.yaml"))
    chain = Chain("A", Layer.ENTRY, "", (rule,), Priority.RAW, Base(Hook.INPUT, Priority.RAW))
    data = json.loads(encode(Ruleset((chain,), (), ())))
    del data["ruleset"]["chains"][0]["rules"][0]["family"]
    assert decode(json.dumps(data)) == Ruleset((chain,), (), ())
