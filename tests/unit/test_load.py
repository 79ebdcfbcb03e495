"""From files and options to a policy: which layer wins, and which line a remark names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sipfw.errors import PolicyError
from sipfw.policy.explain import explained
from sipfw.policy.load import (
    LoadedPolicy,
    Request,
    headline,
    load,
    shipped_profiles,
    shipped_switches,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def _load(file: Path, text: str, **options: object) -> LoadedPolicy:
    file.write_text(text, encoding="utf-8")
    return load(Request(file, **options))  # type: ignore[arg-type]


def _faults(file: Path, text: str, **options: object) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        _load(file, text, **options)
    return [str(item).removeprefix(f"{file.parent}/") for item in raised.value.diagnostics]


def test_each_layer_wins_over_those_below(file: Path) -> None:
    text = "profile: wholesale\nswitch: asterisk\nlearning: {window: 90s}\n"
    loaded = _load(file, text, settings=("learning.failures=3",))
    origins = {field: origin for field, _, origin in explained(loaded)}
    assert loaded.sources == ("switch asterisk", "profile wholesale", str(file), "command line")
    assert origins["learning.pending"] == "built-in"
    assert origins["signalling.tls"] == "switch asterisk:2"
    assert origins["bans.duration"] == "profile wholesale:9"
    assert origins["learning.window"] == f"{file}:3"
    assert origins["learning.failures"] == "command line"
    assert (loaded.policy.learning.window, loaded.policy.learning.failures) == (90, 3)


def test_the_options_win_over_the_file(file: Path) -> None:
    text = "profile: wholesale\nswitch: asterisk\n"
    loaded = _load(file, text, profile="retail", switch="kamailio")
    assert (loaded.policy.profile, loaded.policy.switch) == ("retail", "kamailio")
    assert loaded.sources[:2] == ("switch kamailio", "profile retail")


def test_a_profile_wins_over_a_switch_and_a_list_is_replaced(file: Path) -> None:
    loaded = _load(file, "switch: asterisk\nmedia: {ports: [30000-40000]}\n")
    assert [str(item) for item in loaded.policy.media.ports] == ["30000-40000"]


@pytest.mark.parametrize("name", shipped_profiles())
def test_each_profile_is_valid_and_described(name: str) -> None:
    assert load(Request(profile=name)).policy.profile == name
    assert len(headline(name)) > 10


@pytest.mark.parametrize("name", shipped_switches())
def test_each_switch_is_valid_and_described(name: str) -> None:
    assert load(Request(switch=name)).policy.switch == name
    assert len(headline(name)) > 3


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("bans.duration=2h", "bans.duration", "7200"),
        ("bans.enabled=false", "bans.enabled", "false"),
        ("limits.recent=null", "limits.recent", "null"),
        ("limits.recent=", "limits.recent", "null"),
        ("signalling.udp=[5060, 5070]", "signalling.udp", "[5060, 5070]"),
        ("limits.connlimit={per_source: 7}", "limits.connlimit.per_source", "7"),
        ("scanners.user_agents.add=['a=b']", "scanners.user_agents.add", '["a=b"]'),
        (" bans.duration =2h", "bans.duration", "7200"),
    ],
)
def test_a_setting(setting: str, field: str, value: str) -> None:
    found = {name: text for name, text, _ in explained(load(Request(settings=(setting,))))}
    assert found[field] == value


def test_settings_of_one_section_add_up() -> None:
    policy = load(Request(settings=("bans.duration=2h", "bans.size=5", "bans.size=6"))).policy
    assert (policy.bans.duration, policy.bans.size) == (7200, 6)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (("bans",), "command line: --set: 'bans' is not a setting"),
        (("=1",), "command line: --set: '=1' is not a setting"),
        (("bans..size=1",), "command line: --set: 'bans..size=1' is not a setting"),
        (("bans=1", "bans.size=1"), "contradicts an earlier --set"),
        (
            ("bans.duraton=1h",),
            "command line: bans.duraton: unknown field; did you mean `duration`?",
        ),
        (("bans.size=0",), "command line: bans.size: '0' is not a limit"),
        (("bans.size=a: b",), "not YAML: mapping values are not allowed"),
        (("bans.size=&a 1",), "YAML anchors are not supported"),
        (("profile=nope",), "command line: profile: 'nope' is not a known profile"),
        (("profile.x=1",), "is not the name of a profile"),
        (("trusted_peers.0.name=x",), "is not a list"),
    ],
)
def test_a_bad_setting(settings: tuple[str, ...], fault: str) -> None:
    with pytest.raises(PolicyError) as raised:
        load(Request(settings=settings))
    assert fault in str(raised.value)


def test_a_setting_that_is_not_utf8_is_a_fault_of_the_policy() -> None:
    with pytest.raises(PolicyError):
        load(Request(settings=("limits.aggregate=\udcff",)))


def test_a_remark_names_the_line_that_causes_it(file: Path) -> None:
    loaded = _load(file, "profile: default\nscanners:\n  user_agents:\n    add: [q7w]\n")
    [remark] = [item for item in loaded.remarks if "q7w" in item.message]
    assert str(remark).startswith(f"{file}:4: warning: scanners.user_agents.add: 'q7w' is so short")


def test_a_denying_policy_without_peers_may_not_be_applied(file: Path) -> None:
    [blocker] = _load(file, "limits:\n  unknown_sources: denied\n").blockers()
    assert str(blocker).startswith(f"{file}:2: limits.unknown_sources: unknown sources are denied")
    peers = "trusted_peers: [{name: a, signalling: [192.0.2.1]}]\n"
    assert _load(file, f"limits: {{unknown_sources: denied}}\n{peers}").blockers() == []


def test_peers_that_ports_or_transports_tell_apart_may_share_an_address(file: Path) -> None:
    _load(
        file,
        """\
trusted_peers:
  - {name: a, signalling: [192.0.2.1], source_ports: [5060]}
  - {name: b, signalling: [192.0.2.1], source_ports: [5070]}
  - {name: c, signalling: [192.0.2.2], transports: [udp]}
  - {name: d, signalling: [192.0.2.2], transports: [tcp]}
  - {name: e, signalling: [0.0.0.0/0], allow_any: true}
""",
    )
    assert _faults(
        file,
        """\
trusted_peers:
  - {name: a, signalling: [192.0.2.1], source_ports: [5060, 5070]}
  - {name: b, signalling: [192.0.2.1], source_ports: [5070]}
""",
    )[0].startswith("policy.yaml:3: trusted_peers.b.signalling: '192.0.2.1")


_WAITING = [
    pytest.param(
        "media: {ports: [5000-6000]}\n",
        "policy.yaml:1: ",
        id="a clash with a built-in value names the line that causes it",
    ),
    pytest.param(
        "profile: nope\nbans: {size: 0}\n",
        "policy.yaml:2: bans.size",
        id="an unknown profile does not hide other faults",
    ),
    pytest.param(
        "bans: &x {size: 0}\n",
        "policy.yaml:1: bans.size",
        id="an anchor does not hide other faults",
    ),
    pytest.param(
        "trusted_peers: [{name: a, signalling: [192.0.2.1], tier: small}]\n"
        "tiers: {small: {calls_per_second: 60000, concurrent: 1, longest_call: 1}}\n",
        "policy.yaml:2: tiers.small",
        id="a tier is faster than hashlimit counts",
    ),
    pytest.param(
        "learning: {rate: 1/hour, burst: 10000}\n",
        "policy.yaml:1: learning",
        id="a learned source's bucket never refills",
    ),
    pytest.param(
        "trusted_peers: [{name: a, signalling: [255.255.255.255]}]\n",
        "policy.yaml:1: trusted_peers.a",
        id="the broadcast address is no peer",
    ),
    pytest.param(
        "trusted_peers: [{name: a, signalling: [0.0.0.0/8]}]\n",
        "policy.yaml:1: trusted_peers.a",
        id="the network of 0.0.0.0 is no peer",
    ),
    pytest.param(
        "trusted_peers: [{name: a, signalling: ['::ffff:192.0.2.1']}]\n",
        "policy.yaml:1: trusted_peers.a",
        id="a mapped address never matches",
    ),
    pytest.param(
        "bans: {size: 2147483648}\n",
        "policy.yaml:1: bans.size: '2147483648' is too large",
        id="too large is not called too small",
    ),
    pytest.param(
        "limits: null\n",
        "policy.yaml:1: limits: 'null' is not",
        id="a message quotes YAML and not Python",
    ),
]


@pytest.mark.parametrize(("text", "fault"), _WAITING)
def test_known_gaps(text: str, fault: str, file: Path) -> None:
    assert [item for item in _faults(file, text) if item.startswith(fault)]
