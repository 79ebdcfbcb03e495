"""Short forms: they mean what the long ones mean, and faults keep their lines."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from jsonschema.validators import validator_for

from sipfw.compiler.pipeline import compile_policy
from sipfw.errors import PolicyError
from sipfw.lower.iptables import lower
from sipfw.policy.explain import explained
from sipfw.policy.fields import annotations_of, holds_list, section_in
from sipfw.policy.load import Request, load
from sipfw.policy.model import Policy
from sipfw.policy.schema import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jsonschema.protocols import Validator
    from pydantic import BaseModel

    from sipfw.policy.load import LoadedPolicy

# One value for every field of a policy that holds a list of plain values.
_ONE = {
    "admin.networks": "192.0.2.0/28",
    "admin.web_ports": 8443,
    "signalling.udp": 5070,
    "signalling.tcp": 5070,
    "signalling.tls": 5071,
    "signalling.ws": 5066,
    "signalling.wss": 7443,
    "signalling.behind": "docker0",
    "media.ports": "30000-40000",
    "trusted_peers.signalling": "203.0.113.10",
    "trusted_peers.media": "203.0.113.0/24",
    "trusted_peers.transports": "udp",
    "trusted_peers.source_ports": 5060,
    "scanners.user_agents.add": "EvilDialer",
    "scanners.user_agents.remove": "sipsak",
    "scanners.user_agents.optional": "sipsak",
    "names.allow_private": "sip.carrier.example",
    "host.tcp_ports": "8000-8010",
    "host.udp_ports": 1194,
    "host.interfaces": "eth1",
    "host.protocols": "vrrp",
    "logging.layers": "banned",
}


def _lists(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, annotation in annotations_of(model).items():
        inner = section_in(annotation)
        if inner is not None:
            yield from _lists(inner, f"{path}{name}.")
        elif holds_list(annotation):
            yield path + name


def _policy(field: str, value: object) -> dict[str, Any]:
    """Return a policy with this value, and what else it needs to be valid."""
    peer: dict[str, Any] = {"name": "a", "signalling": ["203.0.113.10", "sip.carrier.example"]}
    data: dict[str, Any] = {"trusted_peers": [peer]}
    *parents, last = field.split(".")
    place = peer if parents == ["trusted_peers"] else data
    for step in [] if place is peer else parents:
        place = place.setdefault(step, {})
    place[last] = value
    return data


@functools.cache
def _schema() -> Validator:
    schema = json_schema()
    kind = validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


def _load(folder: Path, text: str) -> LoadedPolicy:
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return load(Request(file))


def _faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        _load(folder, text)
    return [str(item).removeprefix(f"{folder}/policy.yaml:") for item in raised.value.diagnostics]


def test_every_list_of_a_policy_is_tried() -> None:
    assert set(_lists(Policy)) == set(_ONE)


@pytest.mark.parametrize("field", _ONE)
def test_one_value_is_a_list_of_one(field: str, tmp_path: Path) -> None:
    short, long = _policy(field, _ONE[field]), _policy(field, [_ONE[field]])
    meant = _load(tmp_path, yaml.safe_dump(long)).policy
    assert _load(tmp_path, yaml.safe_dump(short)).policy == meant
    _schema().validate(short)
    _schema().validate(long)


@pytest.mark.parametrize("field", ["media.ports", "host.interfaces", "admin.networks"])
def test_one_value_of_the_command_line_is_a_list_of_one(field: str) -> None:
    policy = load(Request(settings=(f"{field}={_ONE[field]}",))).policy
    [found] = functools.reduce(getattr, field.split("."), policy)
    assert str(found) == _ONE[field]


@pytest.mark.parametrize("field", ["trusted_peers", "feeds"])
def test_one_group_of_fields_is_a_list_of_one(field: str, tmp_path: Path) -> None:
    group = {
        "trusted_peers": "{name: a, signalling: 203.0.113.10}",
        "feeds": "{name: a, file: /etc/sipfw/block.txt, min_prefix: {ip: 16}}",
    }[field]
    meant = _load(tmp_path, f"{field}: [{group}]").policy
    found = _load(tmp_path, f"{field}: {group}").policy
    assert found == meant
    _schema().validate(yaml.safe_load(f"{field}: {group}"))


def test_nothing_is_not_a_list_of_one(tmp_path: Path) -> None:
    [fault] = _faults(tmp_path, "media:\n  ports:\n")
    assert fault.startswith("2: media.ports: 'null' is not a list")


def test_the_schema_still_refuses_what_is_neither() -> None:
    for wrong in ({"media": {"ports": {"from": 1}}}, {"media": {"ports": None}}):
        with pytest.raises(jsonschema.ValidationError):
            _schema().validate(wrong)


def test_a_fault_deep_in_a_group_keeps_its_line(tmp_path: Path) -> None:
    text = "feeds:\n  name: a\n  file: /a\n  min_prefix:\n    ip: 16\n    ip6: 3\n"
    assert _faults(tmp_path, text) == [
        "6: feeds.a.min_prefix.ip6: '3' is too small; write at least 19"
    ]


def test_a_part_of_a_list_is_not_set_alone() -> None:
    """It would replace the whole list of the file, and with it all other peers."""
    for setting in ("trusted_peers.b.signalling=203.0.113.9", "admin.networks.0=192.0.2.1"):
        with pytest.raises(PolicyError, match="give it whole: --set '"):
            load(Request(settings=(setting,)))


def test_explained_values_and_origins_are_those_of_the_entries(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "profile: default\nmedia:\n  ports: 30000-40000\n")
    assert loaded.origins.nearest(("media", "ports", 0)).line == 3


_CARRIERS = (
    "[{name: carrier-a, signalling: [203.0.113.10]}, {name: 3cx, signalling: [2001:db8::1]}]"
)


@pytest.mark.parametrize(
    "short",
    [
        "{carrier-a: 203.0.113.10, 3cx: 2001:db8::1}",
        "{carrier-a: [203.0.113.10], 3cx: [2001:db8::1]}",
        "{carrier-a: {signalling: 203.0.113.10}, 3cx: {signalling: [2001:db8::1]}}",
        "[carrier-a: 203.0.113.10, 3cx: 2001:db8::1]",
        "[{name: carrier-a, signalling: 203.0.113.10}, 3cx: {signalling: 2001:db8::1}]",
    ],
)
def test_peers_may_stand_under_their_names(short: str, tmp_path: Path) -> None:
    meant = _load(tmp_path, f"trusted_peers: {_CARRIERS}").policy
    assert _load(tmp_path, f"trusted_peers: {short}").policy == meant
    _schema().validate(yaml.safe_load(f"trusted_peers: {short}"))


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.10", "203-0-113-10"),
        ("203.0.113.64/26", "203-0-113-64-26"),
        ("2001:db8::1", "2001-db8-1"),
        ("sip.carrier.example:5060", "sip-carrier-example-5060"),
        ("2001:db8:1111:2222:3333:4444:5555:6666", "2001-db8-1111-2222-333-908a8944"),
    ],
)
def test_an_address_alone_is_a_peer_that_is_called_after_it(
    address: str, name: str, tmp_path: Path
) -> None:
    for text in (f"trusted_peers: ['{address}']", f"trusted_peers: '{address}'"):
        [peer] = _load(tmp_path, text).policy.trusted_peers
        assert peer.name == name
        assert str(peer.signalling[0]).startswith(address)
        _schema().validate(yaml.safe_load(text))


def test_long_addresses_that_begin_alike_are_two_peers(tmp_path: Path) -> None:
    both = ["2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:7777"]
    names = [peer.name for peer in _load(tmp_path, f"trusted_peers: {both}").policy.trusted_peers]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 31


def test_no_set_and_no_chain_is_called_after_a_peer(tmp_path: Path) -> None:
    """So a digit in front, or a name of ours, makes no identifier of the kernel odd."""
    rulesets = [
        compile_policy(
            _load(
                tmp_path,
                f"trusted_peers: {{{name}: {{signalling: 203.0.113.10, source_ports: 5070}}}}",
            )
        )
        for name in ("carrier-a", "3cx", "203-0-113-10", "trusted", "0")
    ]
    assert len(set(rulesets)) == 1
    assert lower(rulesets[0]) == lower(rulesets[-1])


def test_peers_under_their_names_keep_their_lines(tmp_path: Path) -> None:
    text = "trusted_peers:\n  a:\n    - 203.0.113.1\n    - 203.0.113.300\n  b: 203.0.113.0/33\n"
    text += "  c:\n    signalling: 203.0.113.9\n    tier: x\n  d:\n"
    assert [fault.split(": ")[:2] for fault in _faults(tmp_path, text)] == [
        ["4", "trusted_peers.a.signalling"],
        ["5", "trusted_peers.b.signalling"],
        ["8", "trusted_peers.c.tier"],
        ["9", "trusted_peers.d.signalling"],
    ]


def test_no_peers_may_be_written_as_an_empty_mapping(tmp_path: Path) -> None:
    assert _load(tmp_path, "trusted_peers: {}").policy.trusted_peers == ()


def test_explain_names_the_line_of_a_peer_under_its_name(tmp_path: Path) -> None:
    rows = explained(_load(tmp_path, "trusted_peers:\n\n  3cx: 203.0.113.10\n"))
    origins = {field: origin for field, _, origin in rows if field.startswith("trusted_peers.3cx")}
    assert origins["trusted_peers.3cx.name"].endswith("policy.yaml:3")
    assert origins["trusted_peers.3cx.signalling"].endswith("policy.yaml:3")


def test_what_stands_under_a_slipped_name_is_checked_at_once(tmp_path: Path) -> None:
    text = (
        "trusted_peer:\n  - name: a\n    signaling: 0.0.0.0/33\n    transport: ip\n"
        "admn:\n  network: 192.0.2.1/24\nprofil: retial\n"
    )
    assert [fault.split("; write")[0] for fault in _faults(tmp_path, text)] == [
        "1: trusted_peer: unknown field; did you mean `trusted_peers`?",
        "3: trusted_peers.a.signaling: unknown field; did you mean `signalling`?",
        "3: trusted_peers.a.signalling: '0.0.0.0/33' is not an address",
        "4: trusted_peers.a.transport: unknown field; did you mean `transports`?",
        "4: trusted_peers.a.transports: 'ip' is not known",
        "5: admn: unknown field; did you mean `admin`?",
        "6: admin.network: unknown field; did you mean `networks`?",
        "6: admin.networks: '192.0.2.1/24' has host bits set",
        "7: profil: unknown field; did you mean `profile`?",
        "7: profile: 'retial' is not a known profile; did you mean retail?",
    ]


def test_a_slipped_name_beside_the_right_one_is_only_unknown(tmp_path: Path) -> None:
    text = (
        "bans: {duration: 1h}\nban: {duration: 0}\nbanss: {duration: 0}\nsignalin: 1\nsignalng: 2\n"
    )
    found = [fault.split(":")[0:2] for fault in _faults(tmp_path, text)]
    assert found[:2] == [["2", " ban"], ["3", " banss"]]
    assert {number for number, _ in found} == {"2", "3", "4", "5"}


def test_an_entry_with_one_slipped_field_is_not_taken_for_a_name(tmp_path: Path) -> None:
    faults = _faults(tmp_path, "trusted_peers:\n  - signaling: 203.0.113.10\n")
    assert "did you mean `signalling`?" in faults[0]
    assert "name: is missing" in faults[1]


def test_names_within_names_come_to_an_end(tmp_path: Path) -> None:
    text = "trusted_peers: {a: {a: {a: {a: 1}}}}\n"
    assert any("trusted_peers.a" in fault for fault in _faults(tmp_path, text))
    assert _faults(tmp_path, "trusted_peers: [a: {a: {a: {a: 1}}}]\n")
