"""Bad input no repository should hold: huge, deep, unreadable, random. Never a traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sipfw.errors import Exit
from sipfw.resources import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Sipfw

_ANSWERS = {Exit.CLEAN, Exit.POLICY, Exit.INCOMPLETE}

_VALID = """\
profile: wholesale
switch: asterisk
admin:
  networks: [192.0.2.0/28, '2001:db8:ad::/48']
  ssh_port: 2222
signalling: {udp: [5060, 5062], tcp: [5060], tls: [5061]}
media:
  ports: [10000-20000, 4000]
  sources: peers
trusted_peers:
  - name: carrier-a
    signalling: [203.0.113.10, 203.0.113.64/26, 2001:db8:5::/64]
    media: [203.0.113.0/24]
    tier: large
  - name: carrier-b
    signalling: [198.51.100.7]
    transports: [udp, tls]
    source_ports: [5060, 5062]
scanners:
  block_options: true
  user_agents: {add: [EvilDialer, "it's |42|"], remove: [sipsak]}
limits:
  connlimit: {per_source: 10, per_subnet: 30}
  recent: {hits: 20, seconds: 60}
  hashlimit: {rate: 10/second, burst: 20}
  aggregate: 1000/second
bans: {duration: 1h}
learning: {registered_ttl: 1h, failures: 10, window: 60s}
conntrack: {max: 1048576, udp_timeout: 30}
host: {tcp_ports: [443, 8000-8010], interfaces: [eth1]}
"""

_GARBAGE = st.sampled_from([
    "\0", "\t", "\n", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "!!int ", "---\n", "'", '"', "#",
    "|", ">", "%", "@", "`", "~", "null", "true", "-1", "9" * 5000, "1e999", ".nan", "é", "\u202e",
    "\ud800", "0x", "::", "/0", "/", "%eth0", ",", "\\", "? ", "<<: ", "\ufeff", "\x85", "\u2028",
])  # fmt: skip


def _check(sipfw: Sipfw, folder: Path, raw: bytes) -> tuple[int, str]:
    policy = folder / "policy.yaml"
    policy.write_bytes(raw)
    ran = sipfw("check", "--policy", str(policy), "--root", str(folder))
    return ran.code, ran.stderr.replace(str(folder), "")


def test_a_file_above_the_limit_is_refused(sipfw: Sipfw, tmp_path: Path) -> None:
    started = time.monotonic()
    code, said = _check(sipfw, tmp_path, b"# padding\n" * 950_000)
    assert (code, said) == (
        Exit.POLICY,
        "/policy.yaml: the file has more than 8 MiB; is it a policy?\n",
    )
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_at_once(opening: str, sipfw: Sipfw, tmp_path: Path) -> None:
    started = time.monotonic()
    code, said = _check(sipfw, tmp_path, opening.encode() * 100_000)
    assert code == Exit.POLICY
    assert said.count("\n") == 1
    assert time.monotonic() - started < 2


def test_indented_nesting_is_refused(sipfw: Sipfw, tmp_path: Path) -> None:
    text = "".join(f"{' ' * depth}a:\n" for depth in range(1000))
    assert _check(sipfw, tmp_path, text.encode()) == (
        Exit.POLICY,
        "/policy.yaml:26: nested too deeply\n",
    )


def test_laughs_stay_small(sipfw: Sipfw, tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    started = time.monotonic()
    code, said = _check(sipfw, tmp_path, "\n".join(lines).encode())
    assert code == Exit.POLICY
    assert said.count("YAML anchors are not supported") == 30
    assert time.monotonic() - started < 2


def test_five_thousand_peers_are_no_trouble(sipfw: Sipfw, tmp_path: Path) -> None:
    """Far more peers than any carrier has still answer while an operator waits."""
    peers = [
        f"  - {{name: peer-{n}, signalling: [100.{64 + n // 256}.{n % 256}.0/24]}}"
        for n in range(5000)
    ]
    started = time.monotonic()
    code, _ = _check(sipfw, tmp_path, ("trusted_peers:\n" + "\n".join(peers)).encode())
    assert code == Exit.CLEAN
    assert time.monotonic() - started < 10


def test_a_folder_is_no_policy(sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("check", "--policy", str(tmp_path), "--root", str(tmp_path))
    assert (ran.code, ran.stdout) == (Exit.POLICY, "")
    assert ran.stderr == f"{tmp_path}: cannot be read: is a directory\n"


def test_a_missing_file_is_named(sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("check", "--policy", str(tmp_path / "no.yaml"), "--root", str(tmp_path))
    assert (ran.code, ran.stdout) == (Exit.POLICY, "")
    assert ran.stderr == f"{tmp_path}/no.yaml: cannot be read: no such file or directory\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file that another user cannot read")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        folder.chmod(0o755)
    policy = tmp_path / "policy.yaml"
    policy.write_text(_VALID, encoding="utf-8")
    policy.chmod(0o600)
    ran = subprocess.run(
        [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            sys.executable,
            "-m",
            "sipfw",
            "check",
            "--policy",
            str(policy),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (Exit.POLICY, "")
    assert ran.stderr == f"{policy}: cannot be read: permission denied\n"


def test_the_policy_that_the_mutations_start_from_is_valid(sipfw: Sipfw, tmp_path: Path) -> None:
    assert _check(sipfw, tmp_path, _VALID.encode())[0] == Exit.CLEAN


@pytest.fixture(scope="module", autouse=True)
def _no_dns() -> Iterator[None]:
    """Damage makes host names, and a test must not ask the Internet about them."""

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", unknown)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_random_bytes_and_texts(raw: bytes, sipfw: Sipfw, folder: Path) -> None:
    code, said = _check(sipfw, folder, raw)
    assert code in _ANSWERS, said


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    places=st.lists(st.integers(0, len(_VALID)), min_size=1, max_size=3),
    garbage=_GARBAGE,
    length=st.integers(0, 12),
)
def test_a_valid_policy_with_damage(
    places: list[int], garbage: str, length: int, sipfw: Sipfw, folder: Path
) -> None:
    text = _VALID
    for place in sorted(places, reverse=True):
        text = text[:place] + garbage + text[place + length :]
    code, said = _check(sipfw, folder, text.encode("utf-8", "surrogatepass"))
    assert code in _ANSWERS, said


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["192.0.2.0/24", "::/0", "1h", "10/s", "1-2", "eth0", "udp", "\n", "2001:db8::%x"]
    )
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def _paths() -> list[str]:
    text = (shipped_folder("profiles") / "default.yaml").read_text(encoding="utf-8")
    assert "conntrack" in text
    return [
        *("profile", "switch", "admin", "signalling", "media", "trusted_peers", "limits", "host"),
        *("admin.networks", "admin.ssh_port", "admin.web_ports", "signalling.udp", "signalling.ws"),
        *(
            "media.ports",
            "media.sources",
            "scanners.user_agents.add",
            "scanners.user_agents.remove",
        ),
        *("limits.aggregate", "limits.recent", "limits.hashlimit.rate", "limits.methods.other"),
        *("bans.duration", "learning.failures", "conntrack.max", "host.interfaces", "tiers.small"),
        *("target.recent_hits", "host.tcp_ports", "limits.unknown_sources", "limits.connlimit"),
    ]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(_paths()), value=_TREES)
def test_any_value_in_any_field(path: str, value: object, sipfw: Sipfw, folder: Path) -> None:
    """The value is written as JSON, which YAML reads as the same data."""
    ran = sipfw("check", "--root", str(folder), "--set", f"{path}={_as_json(value)}")
    assert ran.code in _ANSWERS, ran.stderr


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["name", "signalling", "media", "transports", "source_ports", "tier", "allow_any", "x"]
        ),
        _TREES | st.lists(_SCALARS, max_size=3),
    )
)
def test_any_peer(fields: dict[str, object], sipfw: Sipfw, folder: Path) -> None:
    ran = sipfw("check", "--root", str(folder), "--set", f"trusted_peers=[{_as_json(fields)}]")
    assert ran.code in _ANSWERS, ran.stderr


def _as_json(value: object) -> str:
    return json.dumps(value)
