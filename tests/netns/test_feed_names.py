"""Block lists whose names look like those of other sets: each keeps its members to itself."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
import yaml
from test_live_commands import Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

# The name of each list, and what its sets of networks are called in nftables.
NAMES = {"my": "my_nets", "my-nets": "my-nets-nets", "x": "x-nets", "x4": "x4-nets"}
NAMES |= {"banned": "banned-nets", "all-ports": "all-ports-nets"}
BACKENDS = ("nftables", "iptables-legacy")


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-feednames-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Host(name, tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _members(number: int, last: int) -> set[str]:
    return {f"203.0.113.{last}", f"198.51.100.{16 * number}/28", f"2001:db8:{number + 1}::/48"}


def _write(folder: Path, last: int) -> dict[str, set[str]]:
    """Write all lists; `last` is the end of an address that each has alone."""
    wanted = {name: _members(number, last + number) for number, name in enumerate(NAMES)}
    for name, members in wanted.items():
        (folder / f"{name}.txt").write_text("".join(f"{item}\n" for item in sorted(members)))
    return wanted


def _held(host: Host, backend: str, name: str) -> set[str]:
    """Return what the kernel holds of a list, both families."""
    if backend != "nftables":
        saved = [host.run("ipset", "save", f"sipfw-feed-{name}{digit}").stdout for digit in "46"]
        return {line.split()[2] for text in saved for line in text.splitlines() if "add " in line}
    found: set[str] = set()
    for part in (name, NAMES[name]):
        for digit in "46":
            shown = host.run("nft", "list", "set", "inet", "sipfw", f"feed-{part}{digit}")
            assert shown.returncode == 0, shown.stderr
            listed = " ".join(re.findall(r"elements = \{(.*?)\}", shown.stdout, re.DOTALL))
            found |= {word for word in re.split(r"[,\s]+", listed) if word}
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_lists_of_any_name_are_applied_refreshed_and_whole(host: Host, backend: str) -> None:
    wanted = _write(host.folder, 10)
    feeds = [{"name": name, "file": str(host.folder / f"{name}.txt")} for name in NAMES]
    policy = host.policy(yaml.safe_dump({"conntrack": {"max": None}, "feeds": feeds}))
    host.must("apply", "--policy", policy, "--backend", backend, "--yes")
    assert {name: _held(host, backend, name) for name in NAMES} == wanted
    assert "the live firewall is the applied one" in host.must("verify").stdout
    wanted = _write(host.folder, 110)
    host.must("refresh", "--feeds-now")
    assert {name: _held(host, backend, name) for name in NAMES} == wanted
    assert "the live firewall is the applied one" in host.must("verify").stdout
    assert json.loads(host.must("verify", "--deep", "--json").stdout)["drift"] == []
    shown = host.must("diff", "--policy", policy, "--backend", backend).stdout
    assert "nothing differs" in shown


def test_each_list_says_whom_it_drops(host: Host) -> None:
    """The single addresses of `my-nets` are in a set that could be taken for networks of `my`."""
    _write(host.folder, 10)
    (host.folder / "my-nets.txt").write_text("192.0.2.200\n192.0.2.0/28\n")
    feeds = [{"name": name, "file": str(host.folder / f"{name}.txt")} for name in ("my", "my-nets")]
    policy = host.policy(yaml.safe_dump({"conntrack": {"max": None}, "feeds": feeds}))
    host.must("apply", "--policy", policy, "--backend", "nftables", "--yes")
    assert _droppers(host, "198.51.100.5") == {"feeds.my"}
    assert _droppers(host, "192.0.2.200") == {"feeds.my-nets"}
    assert _droppers(host, "192.0.2.1") == {"feeds.my-nets"}


def _droppers(host: Host, address: str) -> set[str]:
    """Return the block lists that `why` names as what drops requests of an address."""
    answers = json.loads(host.sipfw("why", address, "--json").stdout)["answers"]
    rules = [
        rule["id"] for answer in answers for out in answer["outcomes"] for rule in out["rules"]
    ]
    return {rule for rule in rules if rule.startswith("feeds.")}
