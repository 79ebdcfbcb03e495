"""`sipfw peer` and `trust --permanent`: what they show, refuse and write."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import BackendError, Exit
from sipfw.host.owned_files import read_owned, replace_owned
from sipfw.manual.policy_peers import adding

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Ran, Sipfw

_POLICY = """\
profile: wholesale   # chosen by anna
trusted_peers:
  - {name: carrier-a, signalling: [203.0.113.10, 203.0.113.16/28], transports: [udp]}   # cheap
# the tail
"""


class Host:
    """A root folder with a policy file in its usual place."""

    def __init__(self, root: Path, sipfw: Sipfw) -> None:
        self.root, self._sipfw = root, sipfw
        self.file = root / "etc/sipfw/policy.yaml"
        self.file.parent.mkdir(parents=True)
        self.file.write_text(_POLICY, encoding="utf-8")
        self.file.chmod(0o640)

    def peer(self, verb: str, *words: str, code: int = 0) -> Ran:
        ran = self._sipfw("peer", verb, "--root", str(self.root), *words)
        assert ran.code == code, ran.stderr
        return ran

    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")


@pytest.fixture
def host(tmp_path: Path, sipfw: Sipfw) -> Host:
    return Host(tmp_path, sipfw)


def test_add_shows_the_difference_and_keeps_owner_and_mode(host: Host) -> None:
    if os.geteuid() == 0:
        os.chown(host.file, 1234, 1235)
    before = host.file.stat()
    ran = host.peer("add", "carrier-b", "198.51.100.7", "sip.carrier.example")
    assert "+  - name: carrier-b\n" in ran.stdout
    assert "+    signalling: [198.51.100.7, sip.carrier.example]\n" in ran.stdout
    assert ran.stderr.endswith(f"written: {host.file}; it is not live yet: sipfw apply\n")
    assert host.text().startswith("profile: wholesale   # chosen by anna\n")
    assert host.text().endswith("# the tail\n")
    after = host.file.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )
    assert [path.name for path in host.file.parent.iterdir()] == ["policy.yaml"]


def test_remove_takes_addresses_or_the_peer(host: Host) -> None:
    host.peer("remove", "carrier-a", "203.0.113.16/28")
    assert "signalling: [203.0.113.10], transports" in host.text()
    host.peer("remove", "carrier-a", "203.0.113.10", code=Exit.POLICY)
    host.peer("remove", "carrier-a")
    assert "trusted_peers: []" in host.text()
    host.peer("remove", "carrier-a", code=Exit.POLICY)


def test_a_dry_run_and_a_no_write_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = host.peer("add", "b", "198.51.100.7", "--dry-run")
    assert "+  - name: b\n" in ran.stdout
    monkeypatch.setattr("sipfw.cli.peer.at_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert "[y/N]" in host.peer("add", "b", "198.51.100.7", code=Exit.DIFFERENT).stderr
    assert host.text() == _POLICY
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    host.peer("add", "b", "198.51.100.7")
    assert "name: b" in host.text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Carrier", "198.51.100.7"), "'Carrier' is not a name"),
        (("b", "203.0.113.300", "$(reboot)"), "'$(reboot)' is neither"),
        (("b", "x\ny"), "'x\\x0ay' is neither"),
        (("b", "198.51.100.7]}, {name: evil, signalling: [0.0.0.0/0"), "is not"),
        (("b", "203.0.113.10"), "policy.yaml"),
        (("b", "0.0.0.0/0"), "policy.yaml"),
        (("carrier-a", "203.0.113.10"), "is in carrier-a already"),
    ],
)
def test_what_would_not_be_a_sound_policy_is_not_written(
    host: Host, words: tuple[str, ...], said: str
) -> None:
    ran = host.peer("add", *words, code=Exit.POLICY)
    assert said in ran.stderr
    assert "/tmp/tmp" not in ran.stderr  # noqa: S108 - the place of the copy that was checked
    assert ran.stdout == ""
    assert host.text() == _POLICY


def test_a_file_that_changed_meanwhile_is_left_alone(host: Host) -> None:
    edit = adding(host.file, "b", ["198.51.100.7"])
    host.file.write_text(_POLICY + "# carol was here\n", encoding="utf-8")
    with pytest.raises(BackendError, match="somebody has changed it meanwhile"):
        edit.write()
    assert host.text().endswith("# carol was here\n")
    assert [path.name for path in host.file.parent.iterdir()] == ["policy.yaml"]


def test_a_link_stays_a_link(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "real.yaml"
    host.file.rename(target)
    host.file.symlink_to(target)
    host.peer("add", "b", "198.51.100.7")
    assert host.file.is_symlink()
    assert "name: b" in target.read_text(encoding="utf-8")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_only_a_file_is_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (lambda: read_owned(pipe), lambda: replace_owned(pipe, b"", "x")):
        with pytest.raises(BackendError, match="is not a file"):
            read()
    with pytest.raises(BackendError, match="no such file"):
        read_owned(tmp_path / "missing")


def test_list_and_test(host: Host) -> None:
    head, line = host.peer("list").stdout.splitlines()
    assert head.split() == ["name", "signalling", "media", "transports", "ports", "tier"]
    assert line.startswith("carrier-a  203.0.113.10/32, 203.0.113.16/28  -")
    assert json.loads(host.peer("list", "--json").stdout)[0]["name"] == "carrier-a"
    mine = host.peer("test", "carrier-a", "203.0.113.10", "203.0.113.17")
    assert mine.stdout.splitlines() == [
        "203.0.113.10 is carrier-a's over udp",
        "203.0.113.17 is carrier-a's over udp",
    ]
    host.peer("add", "b", "198.51.100.7")
    others = host.peer("test", "carrier-a", "198.51.100.7", "198.51.100.8", code=Exit.DIFFERENT)
    assert others.stdout.splitlines() == [
        "198.51.100.7 is not carrier-a's: b",
        "198.51.100.8 is not carrier-a's: a stranger",
    ]
    host.peer("test", "nobody", "198.51.100.7", code=Exit.USAGE)
    host.peer("test", "carrier-a", "198.51.100.0/24", code=Exit.USAGE)


def test_trust_permanent_writes_a_peer(host: Host, sipfw: Sipfw) -> None:
    ran = sipfw("trust", "--root", str(host.root), "198.51.100.9", "--permanent", "lab")
    assert ran.code == 0, ran.stderr
    assert "  - name: lab\n    signalling: [198.51.100.9]\n" in host.text()
    for more in (("--for", "2h"), ("--list",), ("--end",), ("--reason", "x")):
        words = ("198.51.100.9", "--permanent", "lab", *more)
        assert sipfw("trust", "--root", str(host.root), *words).code == Exit.USAGE


def test_without_a_file_nothing_is_made(tmp_path: Path, sipfw: Sipfw) -> None:
    ran = sipfw("peer", "add", "b", "198.51.100.7", "--root", str(tmp_path))
    assert ran.code == Exit.POLICY
    assert f"no policy at {tmp_path}/etc/sipfw/policy.yaml; sipfw init writes one" in ran.stderr
    assert list(tmp_path.iterdir()) == []
