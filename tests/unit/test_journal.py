from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sipfw.deploy import arming, journal, repair
from sipfw.deploy.journal import Journal, Phase, boottime
from sipfw.deploy.orphans import orphans
from sipfw.errors import BackendError
from sipfw.host.files import Layout
from sipfw.host.locks import state_lock, try_state_lock, watchdog_is_alive, watchdog_lock
from sipfw.host.runner import Completed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    (made.generations / "4").mkdir(parents=True)
    return made


def _journal(**changes: object) -> Journal:
    return replace(Journal("apply", 3, 4, ("nftables",)), **changes)  # type: ignore[arg-type]


def test_it_comes_back(layout: Layout) -> None:
    written = _journal(phase=Phase.WAITING, deadline=boottime() + 60)
    journal.write(layout, written)
    assert journal.read(layout.pending) == written
    assert journal.read(layout.undo) is None
    assert layout.pending.stat().st_mode & 0o077 == 0


def test_one_of_keep_and_turn_back_wins(layout: Layout) -> None:
    journal.write(layout, _journal())
    assert journal.keep(layout, 4)
    assert not journal.turn_back(layout)
    assert (layout.generations / "4/confirmed.json").exists()
    journal.write(layout, _journal())
    assert journal.turn_back(layout)
    assert not journal.keep(layout, 4)
    assert journal.read(layout.undo) is not None
    journal.drop(layout)
    assert journal.read(layout.undo) is None


@pytest.mark.parametrize("jump", [-10_000_000.0, 10_000_000.0])
def test_a_wall_clock_that_jumps_changes_nothing(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = _journal(phase=Phase.WAITING, deadline=boottime() + 60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert 59 < waiting.seconds_left() <= 60


def test_time_runs_out_and_another_boot_has_none() -> None:
    assert _journal(phase=Phase.WAITING, deadline=boottime() - 1).seconds_left() == 0
    assert _journal(phase=Phase.CHANGING, deadline=boottime() + 9).seconds_left() == 0
    other = _journal(phase=Phase.WAITING, deadline=boottime() + 9, boot="another")
    assert (other.seconds_left(), other.waits) == (0, False)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"phase": "dreaming"},
        {"before": "3"},
        {"before": True},
        {"backends": [1]},
        {"deadline": float("inf")},
        {"extra": 1},
    ],
)
def test_damage_is_an_unfinished_change(layout: Layout, change: dict[str, object]) -> None:
    journal.write(layout, _journal())
    data = json.loads(layout.pending.read_text())
    layout.pending.write_text(json.dumps({**data, **change}))
    with pytest.raises(ValueError, match=r"pending\.json|dreaming"):
        journal.read(layout.pending)
    found = repair.unfinished(layout)
    assert found is not None
    assert not found.open
    assert found.journal.before is None


def test_a_waiting_change_is_refused_with_both_ways_out(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed = []
    monkeypatch.setattr(repair, "arm", lambda _, found: armed.append(found.token))
    waiting = _journal(phase=Phase.WAITING, deadline=boottime() + 60)
    journal.write(layout, waiting)
    said = r"generation 4 waits to be confirmed, (59 s|1 min) left; .*confirm.*rollback"
    with pytest.raises(BackendError, match=said):
        repair.settle(layout, repair.Options())
    # Nobody watched it: that must not mean that it stays for ever.
    assert armed == [waiting.token]
    with watchdog_lock(layout, 0.0), pytest.raises(BackendError, match=said):
        repair.settle(layout, repair.Options())
    assert len(armed) == 1


def test_a_lock_names_its_holder_and_ends_with_it(layout: Layout) -> None:
    with state_lock(layout), try_state_lock(layout, 0.0) as free:
        assert not free
        with pytest.raises(BackendError, match=f"pid {os.getpid()}"):
            state_lock(layout, 0.05).__enter__()
    with state_lock(layout, 0.0):
        pass
    assert not watchdog_is_alive(layout)
    with watchdog_lock(layout, 0.0) as alone:
        assert alone
        assert watchdog_is_alive(layout)


def test_a_program_that_lost_its_sipfw_is_found() -> None:
    script = "import subprocess, os; print(subprocess.Popen(['sleep', '20'], stdout=2).pid)"
    started = boottime()
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.setsid(); print(os.getpid()); {script}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    group, orphan = map(int, done.stdout.split())
    try:
        left = _journal(group=group, started=started)
        assert orphans(left) == [orphan]
        assert orphans(replace(left, started=boottime() + 1)) == []
        assert orphans(replace(left, boot="another")) == []
    finally:
        os.kill(orphan, 9)


def test_where_systemd_runs_the_watchdog_is_a_unit(layout: Layout) -> None:
    class Runner:
        argv: list[str]

        def run(self, argv: list[str], **_: object) -> Completed:
            self.argv = argv
            return Completed(0, "", "")

    runner = Runner()
    command = arming.watchdog_command(layout, "token")
    assert arming._armed_by_systemd(command, "token", runner)  # type: ignore[arg-type]
    assert runner.argv[0] == "systemd-run"
    assert "--service-type=forking" in runner.argv
    assert "--unit=sipfw-watchdog-token" in runner.argv
    assert runner.argv[runner.argv.index("--") + 1 :] == command


def test_a_namespace_is_not_systemds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arming, "_SYSTEMD", tmp_path)
    for process, net in (("self", "net:[1]"), ("1", "net:[2]")):
        folder = tmp_path / process / "ns"
        folder.mkdir(parents=True)
        (folder / "net").symlink_to(net)
        (folder / "mnt").symlink_to("mnt:[1]")
    assert not arming._is_systemds_host(tmp_path)
    (tmp_path / "1/ns/net").unlink()
    (tmp_path / "1/ns/net").symlink_to("net:[1]")
    assert arming._is_systemds_host(tmp_path)


def test_a_watchdog_that_does_not_start_is_said(layout: Layout) -> None:
    with pytest.raises(BackendError, match="does not start"):
        arming.arm(layout, _journal())
