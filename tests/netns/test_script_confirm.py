"""The rendered script's `apply --confirm`: what nobody confirms goes away, whoever gets killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from script_host import FLAVOURS, FOREIGN, GUIDE, SHELLS, Host, script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.netns
pytest_plugins = ("script_fixtures",)

STATE = "var/lib/sipfw/script"
UDP_TIMEOUT = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"
OLD = ("retail", "trusted_peers=[{name: old, signalling: [192.0.2.77]}]")
NEW = ("premium", "bans.duration=10m", "conntrack.udp_timeout=41")
# Hangs once, when it counts: the rehearsal has a lock file of its own.
HANG_ONCE = """\
case "${XTABLES_LOCKFILE:-} $*" in
" "*--noflush*) mkdir "$0.hung" 2>/dev/null && exec sleep 30 ;;
esac"""


def state(host: Host) -> list[str]:
    """Return everything that must come back; in the nf_tables flavour chains may change places."""
    timeout = host.ok("cat", UDP_TIMEOUT).strip()
    names = host.ok("ipset", "list", "-n").split()
    headers = [
        " ".join(word for word in line.split() if not word.startswith("0x"))
        for line in host.ok("ipset", "save").splitlines()
        if line.startswith("create")
    ]
    return [timeout, *sorted(names), *sorted(headers), *sorted(host.listing(counters=True))]


def pending(host: Host) -> bool:
    return (host.root / STATE / "pending").exists()


def wait_for(what: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def ended(host: Host) -> None:
    wait_for(lambda: not pending(host) and not list((host.root / STATE).glob("change.*")))


def started(host: Host, text: str, *words: str) -> subprocess.Popen[bytes]:
    """Start the script as the leader of a session, as under a terminal."""
    path = host.folder / "firewall.sh"
    # A shell reads its script as it goes: it must not change under one that still runs.
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return subprocess.Popen(
        ["ip", "netns", "exec", host.namespace, host.shell, str(path), *words],
        env={**os.environ, "SIPFW_ROOT": str(host.root), "IPTABLES": host.iptables, **host.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def hang_in_ip6tables(host: Host) -> Callable[[], bool]:
    name = f"{host.iptables.replace('iptables', 'ip6tables')}-restore"
    host.replace_tool(name, HANG_ONCE)
    return (host.folder / "tools" / f"{name}.hung").exists


def watchdog(host: Host) -> int:
    (path,) = (host.root / STATE).glob("change.*/watchdog")
    return int(path.read_text().split()[0])


@pytest.fixture
def both(make_host: Callable[[str, str], Host]) -> Iterator[list[Host]]:
    """Make a host of each flavour and shell, and leave no watchdog behind."""
    hosts = [make_host(*pair) for pair in zip(FLAVOURS, SHELLS, strict=True)]
    for host in hosts:
        # The watchdog shall run in the host's shell, too.
        folder = host.folder / "shell"
        folder.mkdir()
        (folder / "sh").symlink_to(f"/usr/bin/{host.shell}")
        host.env["PATH"] = f"{folder}:{os.environ['PATH']}"
    yield hosts
    for host in hosts:
        for path in (host.root / STATE).glob("change.*/watchdog"):
            os.kill(int(path.read_text().split()[0]), signal.SIGKILL)


def with_bans(host: Host) -> list[str]:
    """Make a host where an older policy of ours, and others, have been at work for a while."""
    host.restore(FOREIGN)
    host.must(script(*OLD))
    host.ok("ipset", "add", "sipfw-banned4", "192.0.2.66", "timeout", "3000")
    host.ok("ipset", "add", "sipfw-banned6", "2001:db8::66", "timeout", "3000")
    # A set that only older versions had: each apply destroys it.
    host.ok("ipset", "create", "sipfw-older4", "hash:net", "counters")
    host.ok("ipset", "add", "sipfw-older4", "198.51.100.0/25")
    return state(host)


def unconfirmed_the_older_firewall_comes_back_with_its_bans(host: Host) -> None:
    before = with_bans(host)
    kept = (host.root / STATE / "firewall.sh").read_text()
    settings = (host.root / "etc/sysctl.d/60-sipfw.conf").read_text()

    process = started(host, script(*NEW), "apply", "--confirm", "2")
    assert process.wait() == 0
    assert state(host) != before
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        os.kill(watchdog(host), number)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    ended(host)
    assert state(host) == before
    assert "timeout 29" in host.ok("ipset", "save", "sipfw-banned4")
    assert (host.root / STATE / "firewall.sh").read_text() == kept
    assert (host.root / "etc/sysctl.d/60-sipfw.conf").read_text() == settings
    assert host.must(script(*OLD), "status") == ""
    assert "was taken back: it was not confirmed within 2 s" in host.must(
        script(*NEW), "confirm", status=1
    )


def unconfirmed_an_empty_host_is_empty_again(host: Host) -> None:
    host.restore(FOREIGN)
    before = state(host)
    host.must(script(*NEW), "apply", "--confirm=1")
    # What others do meanwhile stays, and does not stand in the way.
    host.ok(host.iptables, "-D", "INPUT", "-j", "ACCEPT")
    host.ok(host.iptables, "-A", "SIP_TRUSTED", "-t", "raw", "-s", "192.0.2.9", "-j", "DROP")
    ended(host)
    host.ok(host.iptables, "-A", "INPUT", "-j", "ACCEPT", "-c", "11", "1200")
    assert state(host) == before
    names = {path.name for path in (host.root / STATE).iterdir()}
    assert names == {"lock", "watchdog.log", "previous.ipset", "previous.v4", "previous.v6"}
    assert not (host.root / "etc/sysctl.d/60-sipfw.conf").exists()


def confirmed_it_stays(host: Host) -> None:
    with_bans(host)
    said = host.must(script(*NEW), "apply", "--confirm", "3")
    assert "in 3 s the firewall of before comes back, unless you run: firewall.sh confirm" in said
    loaded = state(host)
    process = watchdog(host)

    said = host.must(script(*NEW), "apply", status=4)
    assert " s are left; keep it with: firewall.sh confirm; go back now with: firewall.sh" in said
    assert "a change waits" in host.script(script(*NEW), "status").stdout
    assert "confirmed: the firewall stays" in host.must(script(*OLD), "confirm")

    ended(host)
    wait_for(lambda: not Path(f"/proc/{process}").exists())
    assert state(host) == loaded
    assert "no change waits" in host.must(script(*NEW), "rollback", status=1)
    assert (host.root / STATE / "firewall.sh").read_text() == script(*NEW)
    assert "= 41" in (host.root / "etc/sysctl.d/60-sipfw.conf").read_text()


def rollback_does_not_wait(host: Host) -> None:
    before = with_bans(host)
    host.must(script(*NEW), "apply", "--confirm", "600")
    del host.env["PATH"]
    # The change knows which iptables it was made with.
    tools, host.env["IPTABLES"] = host.iptables, "iptables"
    assert "the firewall of before is back" in host.must(script(*NEW), "rollback")
    host.env["IPTABLES"] = tools
    assert state(host) == before
    ended(host)


def the_session_is_killed_while_it_loads(host: Host) -> None:
    before = with_bans(host)
    hangs = hang_in_ip6tables(host)
    process = started(host, script(*NEW), "apply", "--confirm", "600")
    wait_for(hangs)
    process.kill()
    process.wait()
    # What the script has started holds its lock, so nobody gets in between.
    assert "being loaded, or its load was cut off" in host.must(script(*NEW), status=4)
    time.sleep(1.5)
    assert pending(host)
    os.killpg(process.pid, signal.SIGKILL)
    ended(host)
    assert state(host) == before


def adopted_chains_come_back(host: Host) -> None:
    host.restore(GUIDE)
    before = state(host)
    host.must(script(*NEW), "apply", "--adopt", "--confirm", "600")
    # The places of the rules that come back are no longer the same numbers.
    host.ok(host.iptables, "-I", "INPUT", "-s", "192.0.2.5", "-j", "ACCEPT")
    # A watchdog that is told to end goes back at once.
    os.kill(watchdog(host), signal.SIGTERM)
    ended(host)
    host.ok(host.iptables, "-D", "INPUT", "1")
    assert state(host) == before
    order = host.ok(host.iptables, "-S", "INPUT").splitlines()[1:]
    assert order == [line.partition("] ")[2] for line in GUIDE.splitlines() if "-A INPUT" in line]


@pytest.mark.parametrize(
    "scenario",
    [
        unconfirmed_the_older_firewall_comes_back_with_its_bans,
        unconfirmed_an_empty_host_is_empty_again,
        confirmed_it_stays,
        rollback_does_not_wait,
        the_session_is_killed_while_it_loads,
        adopted_chains_come_back,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_in_both_flavours(both: list[Host], scenario: Callable[[Host], None]) -> None:
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(scenario, host) for host in both]:
            done.result()


def test_without_setsid_and_ipv6(legacy: Host) -> None:
    legacy.hide("setsid", "ip6tables-legacy")
    legacy.restore(FOREIGN)
    before = state(legacy)
    assert "so IPv4 only" in legacy.must(script(*NEW), "apply", "--confirm", "1")
    os.kill(watchdog(legacy), signal.SIGHUP)
    del legacy.env["PATH"]
    ended(legacy)
    assert state(legacy) == before


def test_a_refused_load_leaves_nothing_pending(legacy: Host) -> None:
    before = state(legacy)
    name = f"{legacy.iptables.replace('iptables', 'ip6tables')}-restore"
    legacy.replace_tool(
        name,
        'case "${XTABLES_LOCKFILE:-} $*" in " "*--noflush*)\n'
        'mkdir "$0.once" 2>/dev/null && { echo "line 3 failed" >&2; exit 1; } ;; esac',
    )
    said = legacy.must(script(*NEW), "apply", "--confirm", "600", status=5)
    assert "the previous firewall is back" in said
    ended(legacy)
    assert state(legacy) == before


def test_a_dead_watchdog_is_told_and_a_restart_forgets_the_change(legacy: Host) -> None:
    legacy.must(script(*OLD))
    legacy.must(script(*NEW), "apply", "--confirm", "600")
    os.kill(watchdog(legacy), signal.SIGKILL)
    assert "its watchdog is dead" in legacy.must(script(*NEW), status=4)
    (where,) = (legacy.root / STATE).glob("change.*/where")
    where.write_text("another start of the host\n")
    kept = legacy.root / STATE / "firewall.sh"
    assert kept.read_text() == script(*OLD)
    assert legacy.run("sh", "-c", legacy.script(script(), "boot-line").stdout).returncode == 0
    assert not pending(legacy)
    assert legacy.must(script(*OLD), "status") == ""


def test_the_change_is_for_root_only(legacy: Host) -> None:
    legacy.must(script(), "apply", "--confirm", "600")
    folder = legacy.root / STATE
    (change,) = folder.glob("change.*")
    assert [path.stat().st_mode & 0o777 for path in (folder, change)] == [0o700, 0o700]
    assert {path.stat().st_mode & 0o77 for path in folder.rglob("*")} == {0}
    legacy.must(script(), "rollback")
    legacy.must(script(), "remove")
    assert legacy.files() == []


def test_confirm_and_rollback_at_once_have_one_winner(legacy: Host) -> None:
    legacy.must(script(), "apply", "--confirm", "600")
    text = script()
    rivals = [started(legacy, text, word) for word in ("confirm", "rollback")]
    assert sorted(process.wait() for process in rivals) == [0, 1]
    loaded = any("SIPFW_INPUT" in line for line in legacy.listing())
    assert loaded is (rivals[0].returncode == 0)
    ended(legacy)


@pytest.mark.parametrize(
    "words",
    [
        ["--confirm"],
        ["--confirm", "0"],
        ["--confirm", "08"],
        ["--confirm=86401"],
        ["--confirm", "1;reboot"],
        ["status", "--confirm", "5"],
    ],
)
def test_wrong_seconds(legacy: Host, words: list[str]) -> None:
    assert legacy.must(script(), *words, status=2)
    assert legacy.files() == []


def test_it_must_be_able_to_watch(legacy: Host) -> None:
    done = legacy.run("dash", "-s", "apply", "--confirm", "5", stdin=script())
    assert (done.returncode, "save it as a file" in done.stderr) == (4, True)
    legacy.hide("flock")
    assert "needs flock" in legacy.must(script(), "apply", "--confirm", "5", status=4)
    del legacy.env["PATH"]
    assert legacy.listing() == []
