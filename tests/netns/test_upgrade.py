"""A host whose firewall was applied by sipfw of October 2026, and is looked at by this version.

`tests/data/upgrade` holds what that version left: its state folder with two generations, a ban and
a trust by hand and a reading, and the kernel's own listing of rules and sets. The policy names
nobody's texts, because nft cannot load a search again.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_live_commands import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

DATA = Path(__file__).resolve().parents[1] / "data" / "upgrade"
BANNED, TRUSTED = "198.51.100.66", "198.51.100.77"
LASTS = 86_400


@pytest.fixture(params=["iptables-legacy", "iptables-nft", "nftables"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-upgrade-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Host(name, tmp_path)
        made.run("ip", "link", "set", "lo", "up")
        with tarfile.open(DATA / f"{request.param}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        _load(made, str(request.param))
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _load(host: Host, backend: str) -> None:
    """Bring the kernel to what the older version left, with orders that last for another day."""
    for name in ("bans.json", "trust.json"):
        path = host.root / "var/lib/sipfw" / name
        data = json.loads(path.read_text())
        for entry in data["entries"]:
            entry["until"] = int(time.time()) + LASTS
            entry["since"] = int(time.time()) - LASTS
        path.write_text(json.dumps(data))
        path.chmod(0o600)
    for path in (host.root / "var/lib/sipfw").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    settings = str(host.root / "etc/sysctl.d/60-sipfw.conf")
    host.run("sysctl", "-q", "-e", "-p", settings)
    files = (
        [(("nft", "-f", "-"), "ruleset.nft")]
        if backend == "nftables"
        else [
            (("ipset", "restore"), "ipset"),
            ((f"{backend}-restore",), "rules.v4"),
            ((f"ip6{backend.removeprefix('ip')}-restore",), "rules.v6"),
        ]
    )
    for argv, name in files:
        done = host.run(*argv, stdin=(host.folder / name).read_text())
        assert done.returncode == 0, done.stderr


def test_it_is_healthy_without_an_apply(host: Host) -> None:
    assert "the live firewall is the applied one" in host.must("verify").stdout
    assert host.must("verify", "--since", "last", "--json").stdout
    history = host.must("history").stdout.splitlines()
    assert [line.split()[:2] for line in history[1:]][-1] == ["*", "4"]
    assert BANNED in host.must("bans").stdout
    assert TRUSTED in host.must("trust", "--list").stdout
    assert "trusted" in host.must("why", "203.0.113.10").stdout


def test_what_stands_by_hand_can_be_ended(host: Host) -> None:
    host.must("unban", BANNED)
    host.must("trust", "--end", TRUSTED)
    assert BANNED not in host.must("bans").stdout
    host.must("verify")


def test_the_first_apply_takes_everything_over(host: Host, request: pytest.FixtureRequest) -> None:
    backend = request.node.callspec.params["host"]
    words = ("--policy", str(host.folder / "policy.yaml"), "--backend", backend)
    said = host.must("diff", *words, code=1).stdout
    # Those in which the losses of peers are noted, and of whom; no older one changes or goes.
    assert said.splitlines()[-1].endswith("; sets: 12 added")
    host.must("apply", *words, "--yes")
    assert "nothing differs" in host.must("diff", *words).stdout
    host.must("verify")
    assert BANNED in host.must("bans").stdout
    host.must("rollback", "4")
    host.must("verify")


def test_a_boot_restores_it(host: Host) -> None:
    host.must("restore")
    host.must("verify")
    assert BANNED in host.must("bans").stdout
