"""Another program changes the packet filter while sipfw does: nothing of it is lost."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from shared_host import BACKENDS, SharedHost

from lab import Node, namespaces, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    Writes: TypeAlias = Sequence[Sequence[str]]

pytestmark = pytest.mark.netns

DRIVER = str(Path(__file__).with_name("writer_driver.py"))
IPTABLES_BACKENDS = ("iptables-legacy", "iptables-nft")
POLICY = {"trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10"]}]}
CHANGED = {**POLICY, "bans": {"duration": "2h"}, "switch": "asterisk"}
OLD = "-p udp -m udp --dport 7 -j DROP"
NEW = "-p udp -m udp --dport 9 -j DROP"
BEFORE = f"""\
*raw
-A PREROUTING {OLD}
COMMIT
*filter
[5:55] -A INPUT {OLD}
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
"""


def words(*lines: str) -> Writes:
    return [line.split() for line in lines]


ADDITIONS = words(
    f"-A INPUT {NEW}",
    f"-I INPUT {NEW}",
    f"-t raw -A PREROUTING {NEW}",
    "-N f2b-late",
    f"-A f2b-late {NEW}",
    "-I INPUT -j f2b-late",
)
A_RULE = words(f"-A INPUT {NEW}")
A_RULE_LESS = words(f"-D INPUT {OLD}")
# As many rules after it as before it, which is all that the kernel compares at a commit.
EVEN = (*A_RULE_LESS, *A_RULE)
WRITES = ("a rule", "a rule less", "an exchange", "many")


@contextmanager
def bare_host(backend: str, folder: Path) -> Iterator[SharedHost]:
    """Make a host with the rules from before and nothing of sipfw."""
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    folder.mkdir()
    name = f"{namespaces.fresh_prefix()}shared"
    namespaces.batch([f"netns add {name}"])
    try:
        host = SharedHost(Node("host", name), backend, folder)
        host.tool("iptables-restore", "-c", text=BEFORE)
        yield host
    finally:
        namespaces.remove([name])


class Meeting:
    """A host on which sipfw is live beside a few rules, and one like it without sipfw."""

    def __init__(self, host: SharedHost, undisturbed: SharedHost) -> None:
        self.host = host
        self.undisturbed = undisturbed

    def apply(
        self,
        writes: Writes,
        *codes: int,
        waits: bool = True,
        always: bool = False,
        late: bool = False,
        fails: bool = False,
    ) -> str:
        """Apply a changed policy while another program writes; return what sipfw said of it.

        See writer_driver.py.
        """
        host = self.host
        tool = f"iptables-{host.flavour}"
        # A program that sipfw does not wait for waits for the lock of sipfw.
        lock = host.folder / "other.lock" if waits else host.env["XTABLES_LOCKFILE"]
        plan = {
            "writes": [[tool, "-w", "30", *each] for each in writes],
            "lock": str(lock),
            "done": str(host.folder / "done"),
            "waits": waits,
            "always": always,
            "late": late,
            "fails": fails,
        }
        command = [sys.executable, DRIVER, json.dumps(plan), "apply", "--root", str(host.root)]
        options = ["--backend", host.backend, "--policy", host.policy(CHANGED)]
        done = host.node.run([*command, *options], check=False, timeout=90, env=host.env)
        assert self.written(), f"nothing was written before the commit: {done.stderr}"
        assert done.returncode in codes, f"exit code {done.returncode}: {done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def written(self) -> int:
        """Return how often the other program has written."""
        file = self.host.folder / "done"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def has_all_of(self, writes: Writes) -> bool:
        """Tell whether the host holds what it would hold of others if sipfw were not there."""
        for each in writes:
            self.undisturbed.tool("iptables", *each)
        return self.host.foreign() == self.undisturbed.foreign()

    def is_in_force(self) -> bool:
        """Tell whether sipfw finds its own rules as it applied them, whatever else it reports."""
        done = self.host.sipfw("verify")
        return "the live firewall is the applied one" in done.stdout + done.stderr


@pytest.fixture
def meeting(backend: str, tmp_path: Path) -> Iterator[Meeting]:
    with (
        bare_host(backend, tmp_path / "host") as host,
        bare_host(backend, tmp_path / "undisturbed") as undisturbed,
    ):
        yield Meeting(host, undisturbed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_appears_before_the_commit_stays(meeting: Meeting) -> None:
    meeting.host.apply(POLICY)
    meeting.apply(ADDITIONS, 0)
    assert meeting.has_all_of(ADDITIONS)


@pytest.mark.parametrize("backend", IPTABLES_BACKENDS)
def test_what_goes_before_the_commit_does_not_come_back(meeting: Meeting) -> None:
    meeting.apply(A_RULE_LESS, 0)
    assert meeting.has_all_of(A_RULE_LESS)


@pytest.mark.parametrize("backend", IPTABLES_BACKENDS)
def test_who_takes_the_lock_loses_nothing(meeting: Meeting) -> None:
    meeting.apply(A_RULE, 0, waits=False)
    deadline = time.monotonic() + 10
    while NEW not in meeting.host.tool("iptables-save"):
        assert time.monotonic() < deadline, "the other program's rule never came"
        time.sleep(0.05)
    assert meeting.has_all_of(A_RULE)


@pytest.mark.parametrize("backend", IPTABLES_BACKENDS)
def test_an_even_exchange_before_the_commit_stays(meeting: Meeting) -> None:
    meeting.apply(EVEN, 0, 4)
    assert meeting.has_all_of(EVEN)


@pytest.mark.parametrize("backend", ["iptables-legacy"])
def test_the_legacy_commit_after_an_even_exchange_is_done_again(meeting: Meeting) -> None:
    said = meeting.apply(EVEN, 0)
    assert "another program" not in said
    assert meeting.is_in_force()


@pytest.mark.parametrize("backend", ["iptables-legacy"])
def test_what_appears_after_the_last_look_stays(meeting: Meeting) -> None:
    meeting.apply(A_RULE, 0, late=True)
    assert meeting.has_all_of(A_RULE)


@pytest.mark.parametrize("backend", ["iptables-legacy"])
def test_an_even_exchange_after_the_last_look_is_told(meeting: Meeting) -> None:
    said = meeting.apply(EVEN, 0, late=True)
    assert "note: ip filter: another program changed this table at the moment" in said
    assert meeting.is_in_force()


@pytest.mark.parametrize("backend", IPTABLES_BACKENDS)
def test_one_that_never_stops_writing_loses_nothing(meeting: Meeting) -> None:
    meeting.apply(A_RULE, 0, 4, 5, always=True)
    assert meeting.has_all_of([*A_RULE] * meeting.written())


@pytest.mark.parametrize("backend", IPTABLES_BACKENDS)
@pytest.mark.parametrize("writes", [A_RULE, A_RULE_LESS, EVEN, ADDITIONS], ids=WRITES)
def test_going_back_leaves_what_changed_meanwhile(meeting: Meeting, writes: Writes) -> None:
    meeting.host.apply(POLICY)
    meeting.apply(writes, 5, fails=True)
    assert meeting.has_all_of(writes)
    assert meeting.is_in_force()
