"""A change that is not confirmed goes away by itself, whatever happens to the session."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from test_live_commands import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

POLICY = """\
profile: default
trusted_peers: [{name: a, signalling: [203.0.113.10, "2001:db8:5::/64"]}]
conntrack: {udp_timeout_stream: 77}
"""
OTHER = POLICY.replace("203.0.113.10", "198.51.100.7").replace("77", "88")
SETTING = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-confirm-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Host(name, tmp_path)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(params=["iptables-legacy", "nftables"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def state(host: Host) -> tuple[object, ...]:
    """Return rules, sets and the setting; an nft listing is in order of creation."""
    table = host.run("nft", "-s", "list", "ruleset").stdout.replace("\n}\n", "\n")
    blocks = sorted(part.strip() for part in re.split(r"\n\t(?=chain |set )|\n\n", table))
    rules = [line for line in host.rules() if " -A " in line or line.endswith(" -")]
    return rules, host.sets(), blocks, host.run("cat", SETTING).stdout


def apply(host: Host, backend: str, policy: str, *more: str, code: int = 0) -> str:
    path = host.policy(policy)
    done = host.must("apply", "--backend", backend, "--policy", path, *more, code=code)
    return str(done.stderr)


def history(host: Host) -> list[dict[str, object]]:
    return list(json.loads(host.must("history", "--json").stdout))


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def pending(host: Host) -> bool:
    folder = host.root / "var/lib/sipfw"
    return (folder / "pending.json").exists() or (folder / "undo.json").exists()


def test_the_old_firewall_returns_when_the_session_is_killed(host: Host, backend: str) -> None:
    apply(host, backend, POLICY)
    before = state(host)
    words = f"--root {host.root} --backend {backend} --confirm 3 --policy {host.policy(OTHER)}"
    session = subprocess.Popen(
        [
            *("ip", "netns", "exec", host.name, "sh", "-c"),
            f"{sys.executable} -m sipfw apply {words}; echo; sleep 60",
        ],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "XTABLES_LOCKFILE": str(host.folder / "lock")},
    )
    assert session.stdout is not None
    session.stdout.readline()
    assert state(host) != before
    os.killpg(session.pid, signal.SIGKILL)
    session.communicate()
    assert pending(host)
    wait_for(lambda: not pending(host))
    assert state(host) == before
    assert history(host)[-1]["state"] == "taken back: not confirmed in time"
    host.must("verify")


def test_confirm_keeps(host: Host, backend: str) -> None:
    apply(host, backend, POLICY)
    said = apply(host, backend, OTHER, "--confirm", "2")
    assert "unless you run: sipfw confirm" in said
    after = state(host)
    assert "generation 2 stays" in host.must("confirm").stderr
    time.sleep(2.5)
    assert state(host) == after
    assert "nothing waits" in host.must("confirm", code=4).stderr


def test_rollback_by_number_by_default_and_to_nothing(host: Host, backend: str) -> None:
    empty = state(host)
    apply(host, backend, POLICY)
    first = state(host)
    apply(host, backend, OTHER)
    second = state(host)
    host.must("rollback")
    assert state(host) == first
    host.must("rollback", "2")
    assert state(host) == second
    host.must("rollback", "1")
    assert "no firewall of sipfw is in force" in host.must("rollback").stderr
    assert state(host)[:3] == empty[:3]
    assert "no generation is in force" in host.must("rollback", code=4).stderr
    assert "cannot be used" in host.must("rollback", "9", code=4).stderr
    host.must("rollback", "2")
    assert state(host) == second


def test_a_pending_change_refuses_another_and_rollback_ends_it(host: Host, backend: str) -> None:
    apply(host, backend, POLICY)
    before = state(host)
    apply(host, backend, OTHER, "--confirm", "300")
    said = apply(host, backend, POLICY, code=4)
    assert re.search(
        r"generation 2 waits to be confirmed, (5 min|4 min \d+ s) left; `sipfw confirm`", said
    )
    assert "`sipfw rollback`" in said
    assert "waits to be confirmed" in host.must("rollback", "1", code=4).stderr
    host.must("rollback")
    assert state(host) == before
    assert history(host)[-1]["state"] == "taken back: taken back by sipfw rollback"


def test_two_at_once_and_the_loser_names_the_winner(host: Host) -> None:
    apply(host, "nftables", POLICY)
    before = state(host)
    folder = os.open(host.root / "var/lib/sipfw", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        said = apply(host, "nftables", OTHER, code=4)
    finally:
        os.close(folder)
    assert f"another sipfw is changing the firewall (pid {os.getpid()}" in said
    assert state(host) == before


def test_learned_and_banned_addresses_stay(host: Host) -> None:
    apply(host, "iptables-legacy", POLICY)
    host.run("ipset", "add", "sipfw-banned4", "198.51.100.66", "timeout", "0")
    apply(host, "iptables-legacy", OTHER, "--confirm", "1")
    host.run("ipset", "add", "sipfw-learned4", "198.51.100.67", "timeout", "0")
    wait_for(lambda: not pending(host))
    kept = "\n".join(host.sets())
    assert "198.51.100.66" in kept
    assert "198.51.100.67" in kept


def test_after_a_restart_the_confirmed_one_comes_back(host: Host, backend: str) -> None:
    apply(host, backend, POLICY)
    before = state(host)
    apply(host, backend, OTHER, "--confirm", "300")
    journal = host.root / "var/lib/sipfw/pending.json"
    data = json.loads(journal.read_text())
    journal.write_text(json.dumps({**data, "boot": "another", "token": "another"}))
    assert "was taken back: the host was restarted" in host.must("restore").stderr
    assert state(host) == before
    assert "nothing waits" in host.must("confirm", code=4).stderr


def test_a_damaged_generation_is_named_and_skipped(host: Host) -> None:
    apply(host, "nftables", POLICY)
    first = state(host)
    apply(host, "nftables", OTHER)
    apply(host, "nftables", POLICY.replace("77", "99"))
    stored = host.root / "var/lib/sipfw/generations/2/ruleset.json"
    stored.write_text(stored.read_text()[:-100])
    said = host.must("rollback").stderr
    assert "generation 2 is skipped: ruleset.json has been changed since" in said
    assert state(host) == first
    (stored.parent / "meta.json").write_text("{")
    assert "damaged: meta.json" in host.must("history").stdout


def test_a_terminal_is_asked(host: Host) -> None:
    apply(host, "nftables", POLICY)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sipfw", "apply", "--root", str(host.root)]
    options = ["--backend", "nftables", "--policy", host.policy(OTHER), "--confirm", "60"]
    asked = subprocess.Popen(
        ["ip", "netns", "exec", host.name, *command, *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "XTABLES_LOCKFILE": str(host.folder / "lock")},
    )
    os.close(theirs)
    said = b""
    while b"type yes" not in said:
        said += os.read(ours, 1000)
    os.write(ours, b"no\nyes\n")
    assert asked.wait(20) == 0
    os.close(ours)
    assert history(host)[-1]["state"] == "confirmed"


def hidden(host: Host, setup: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run sipfw in a mount namespace of its own, after `setup`."""
    command = (sys.executable, "-m", "sipfw", words[0], "--root", str(host.root), *words[1:])
    return host.run("unshare", "-m", "sh", "-ec", f'{setup}; exec "$@"', "sh", *command)


def refused(host: Host, backend: str, setup: str, code: int = 4) -> str:
    """Return what an apply says that must leave the old firewall, records included."""
    apply(host, backend, POLICY)
    before = state(host)
    words = ("apply", "--backend", backend, "--policy", host.policy(OTHER), "--confirm", "60")
    done = hidden(host, setup, *words)
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    assert state(host) == before
    assert not pending(host)
    return done.stderr


# With room for the generation alone it goes live, and the record of it does not fit.
@pytest.mark.parametrize(
    ("free", "code"),
    [("0", 4), ("$(( $(du -sk var/lib/sipfw/generations/1 | cut -f1) + 16 ))", 5)],
    ids=["at once", "when it is live"],
)
def test_a_full_disk(host: Host, backend: str, free: str, code: int) -> None:
    keep = host.folder / "keep"
    full = (
        f"mkdir {keep}; mount -t tmpfs -o size=4m none {keep}; cp -a {host.root}/. {keep}; "
        f"mount --bind {keep} {host.root}; "
        f"cd {keep}; dd if=/dev/zero of=fill bs=1k 2>/dev/null || true; "
        f"truncate -s -{free}k fill; cd {host.folder}"
    )
    said = refused(host, backend, full, code)
    assert "no space left on device" in said
    assert code == 4 or "what was in force before is in force again" in said


def test_a_state_folder_that_is_read_only(host: Host, backend: str) -> None:
    folder = host.root / "var/lib/sipfw"
    sealed = f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}"
    assert "is read-only" in refused(host, backend, sealed)


def test_a_missing_nft(host: Host) -> None:
    nothing = host.folder / "nothing"
    nothing.write_text("")
    said = refused(host, "nftables", f"mount --bind {nothing} /usr/sbin/nft")
    assert "nft" in said


def test_a_kernel_that_refuses_the_rules(host: Host) -> None:
    real = host.folder / "nft"
    wrapper = host.folder / "wrapper"
    wrapper.write_text(
        f'#!/bin/sh\n[ "$*" = "-f -" ] || exec {real} "$@"\n'
        'grep -q SIP_TRUSTED || exit 0\necho "Error: Could not process rule" >&2\nexit 1\n'
    )
    wrapper.chmod(0o755)
    setup = f"cp /usr/sbin/nft {real}; mount --bind {wrapper} /usr/sbin/nft"
    assert "Could not process rule" in refused(host, "nftables", setup)


@pytest.mark.parametrize("waits", [False, True])
def test_two_rollbacks_at_once_go_back_one_step(host: Host, backend: str, waits: bool) -> None:
    for policy in (POLICY, OTHER):
        apply(host, backend, policy)
    more = ("--confirm", "600") if waits else ()
    apply(host, backend, POLICY.replace("77", "66"), *more)
    command = [sys.executable, "-m", "sipfw", "rollback", "--root", str(host.root)]
    argv = ["ip", "netns", "exec", host.name, *command]
    env = {**os.environ, "XTABLES_LOCKFILE": str(host.folder / "lock")}
    both = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    said = [each.communicate(timeout=120)[1] for each in both]
    codes = [each.returncode for each in both]
    assert sorted(codes) == [0, 4], said
    # A slow host makes the second one give up before the first one is done.
    assert "nothing was changed" in said[codes.index(4)]
    host.must("rollback")
    assert [item["generation"] for item in history(host) if item["live"]] == [1]
