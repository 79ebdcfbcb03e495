"""How many programs a command starts: each asks the kernel, and one look is enough."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest
from test_live_commands import Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

POLICY = """\
profile: default
trusted_peers: [{name: a, signalling: [203.0.113.10, "2001:db8:5::/64"]}]
"""
# Every program that is started, the watchdog included.
COUNT = """\
import json, os, subprocess, sys
log = sys.argv.pop(1)
started = []

popen, spawn = subprocess.Popen.__init__, os.posix_spawn

def by_popen(self, args, *more, **options):
    started.append([str(word) for word in args])
    popen(self, args, *more, **options)

def by_spawn(path, argv, *more, **options):
    started.append([str(word) for word in argv])
    return spawn(path, argv, *more, **options)

subprocess.Popen.__init__, os.posix_spawn = by_popen, by_spawn
from sipfw.cli import main
try:
    main()
finally:
    json.dump(started, open(log, "w"))
"""
# The most that each command may start, by backend.
BOUNDS = {
    ("iptables-legacy", "apply"): 20,
    ("iptables-nft", "apply"): 18,
    ("nftables", "apply"): 9,
    # Half of these read the rules of others, in every packet filter of the host.
    ("iptables-legacy", "diff"): 11,
    ("iptables-nft", "diff"): 12,
    ("nftables", "diff"): 6,
    ("iptables-legacy", "verify"): 10,
    ("iptables-nft", "verify"): 11,
    ("nftables", "verify"): 6,
}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-count-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Host(name, tmp_path)
        # Every host has a route to its peers; one without is asked about each.
        made.run("ip", "link", "set", "lo", "up")
        made.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1")
        for link in ("out0", "out1"):
            # Without an address of its own a link says nothing.
            made.run("ip", "link", "set", link, "addrgenmode", "none", "up")
        for family in ("-4", "-6"):
            made.run("ip", family, "route", "add", "default", "dev", "out0")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def started(host: Host, *words: str) -> list[list[str]]:
    log = host.folder / "started.json"
    done = host.python(COUNT, str(log), words[0], "--root", str(host.root), *words[1:])
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(log.read_text())
    return found


@pytest.mark.parametrize("backend", ["iptables-legacy", "iptables-nft", "nftables"])
def test_an_unchanged_apply_starts_few_programs(host: Host, backend: str) -> None:
    words = ("--backend", backend, "--policy", host.policy(POLICY))
    host.must("apply", "--yes", *words, "--root", str(host.root))
    for command, options in (("apply", ("--yes", *words)), ("diff", words), ("verify", ())):
        found = started(host, command, *options)
        shown = "\n".join(" ".join(argv)[:110] for argv in found)
        # `pytest -s` shows it.
        sys.stdout.write(f"{backend} {command}: {len(found)} programs\n")
        assert len(found) <= BOUNDS[backend, command], shown
