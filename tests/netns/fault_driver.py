"""Kills a change of the firewall at every step, and looks each time at what is left.

`fault_driver.py BACKEND SCENARIO ROOT STRIDE` makes a network namespace for itself, applies one
small ruleset, and then has child after child change it to the other. The n-th child dies of
SIGKILL at the n-th point: before each write, rename, removal, program and netlink batch, and
after each of those that change the kernel or a name (after any other step is before the next).
What the watchdog then leaves must be one ruleset or the other, with records that say so.

Commands, their workers and watchdogs are forks of this process. Those that die together start for
real, since how far the watchdog has come is up to its start.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kernel_listing import listing
from small_rulesets import small_content

from lab import forks
from sipfw.deploy import sysctls
from sipfw.deploy.activate import current
from sipfw.deploy.apply import apply, remove
from sipfw.deploy.generations import Damaged, Generation, list_generations, read_ruleset
from sipfw.deploy.repair import unfinished
from sipfw.deploy.rollback import confirm, restore, rollback
from sipfw.host.files import Layout
from sipfw.host.locks import watchdog_is_alive
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.backend import Options, backend_of
from sipfw.kernel.netlink import rules as nft_text_rules
from sipfw.kernel.xtables import legacy as iptables
from sipfw.kernel.xtables.libiptc.protocol import Operation, decode_request, encode_request

if TYPE_CHECKING:
    from collections.abc import Callable

NETNS = 0x40000000
OPTIONS = Options()
# A repair waits for programs that still run and for a watchdog before it.
PATIENCE = 30.0
# A watchdog that was forked is at work by then.
ALONE = 1.0


class Killer:
    """Counts points of the process that makes it, and dies at the chosen one."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0
        self.process = os.getpid()

    @property
    def elsewhere(self) -> bool:
        """A watchdog that was forked here is a process of its own, and meets no point."""
        return os.getpid() != self.process

    def point(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, *, after: bool) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            if self.elsewhere:
                return real(*args, **options)
            self.point()
            result = real(*args, **options)
            if after:
                self.point()
            return result

        setattr(owner, name, wrapped)

    def arm(self) -> None:
        for name in ("rename", "replace", "unlink", "mkdir", "rmdir"):
            self.around(os, name, after=True)
        self.around(os, "fsync", after=False)
        self.around(os, "posix_spawn", after=True)
        self.around(sysctls, "_write", after=True)
        self.around(nft_text_rules, "send_batch", after=True)
        real = SubprocessRunner.run

        def run(runner: SubprocessRunner, argv: list[str], **options: Any) -> Any:
            if self.elsewhere:
                return real(runner, argv, **options)
            self.point()
            if iptables._START_WORKER in argv:
                self.between_commits(runner, argv, options, real)
            done = real(runner, argv, **options)
            if not any(word in argv for word in ("list", "save", "--version")):
                self.point()
            return done

        SubprocessRunner.run = run  # type: ignore[method-assign,assignment]

    def between_commits(
        self, runner: SubprocessRunner, argv: list[str], options: dict[str, Any], real: Any
    ) -> None:
        """Let the worker commit some tables only, then die with it."""
        request = decode_request(options["stdin"])
        if request.operation is not Operation.APPLY:
            return
        for count in range(1, len(request.tables)):
            if self.passed + 1 == self.at:
                part = replace(request, tables=request.tables[:count])
                real(runner, argv, **{**options, "stdin": encode_request(part)})
            self.point()


def in_child(action: Callable[[], object], at: int = 0) -> tuple[int, str]:
    """Run an action in a session of its own, to be killed at a point; return status and error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        child(action, at, writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        said = stream.read()
    return os.waitpid(pid, 0)[1], said


def child(action: Callable[[], object], at: int, writer: int) -> NoReturn:
    os.setsid()
    code = 0
    try:
        if at:
            Killer(at).arm()
        action()
    except BaseException as error:  # noqa: BLE001 - it is the parent that judges
        os.write(writer, f"{type(error).__name__}: {error}".encode())
        code = 1
    os._exit(code)


def must(action: Callable[[], object]) -> None:
    status, said = in_child(action)
    assert status == 0, said


class Bench:
    """The namespace, the folder, and what the two rulesets look like when they are live."""

    def __init__(self, backend: str, root: str) -> None:
        self.backend, self.layout = backend, Layout(Path(root))
        self.known: dict[str, object] = {}

    def apply(self, which: str, seconds: int | None = None) -> Callable[[], object]:
        content = small_content(which, self.backend)
        return lambda: apply(content, self.layout, OPTIONS, confirm=seconds)

    def clear(self) -> None:
        """Empty the kernel as a restart does; the files stay."""
        backend_of(self.backend).remove(OPTIONS)

    def learn(self) -> None:
        self.known[""] = listing()
        for which in ("y", "x"):
            must(self.apply(which))
            self.known[which] = listing()
            assert self.state() == which
        assert len({repr(item) for item in self.known.values()}) == 3

    def state(self) -> str:
        """Name what is live; fail for a mixture."""
        found = listing()
        names = [name for name, known in self.known.items() if known == found]
        assert names, f"neither one nor the other: {json.dumps(found, indent=1)}"
        return names[0]

    def settled(self) -> None:
        """Wait until no change is under way, or one waits for its confirmation.

        Killed between the journal and its watchdog, a command has touched nothing yet; then the
        next command clears up.
        """
        end = time.monotonic() + PATIENCE
        alone_since = time.monotonic()
        while time.monotonic() < end:
            found = unfinished(self.layout)
            alive = watchdog_is_alive(self.layout)
            if found is not None and found.open:
                return
            if found is None and not alive:
                return
            if alive:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > ALONE:
                must(lambda: restore(self.layout, OPTIONS))
            time.sleep(0.02)
        raise AssertionError("the watchdog did not repair the change")

    def checked(self, allowed: set[str]) -> str:
        """Return what is live after the repair, once files and kernel agree about it."""
        state = self.state()
        assert state in allowed, f"{state!r} is live, not one of {allowed}"
        for path in self.layout.state.rglob("[!.]*.json"):
            json.loads(path.read_text(encoding="utf-8"))
        found = {item.number: item for item in list_generations(self.layout)}
        assert not [item for item in found.values() if isinstance(item, Damaged)]
        number = current(self.layout).generation
        if number is not None and state:
            live = found[number]
            assert isinstance(live, Generation)
            assert not isinstance(read_ruleset(self.layout, live), Damaged)
            assert live.source == state, f"{state} is live, the record says {live.source}"
        return state


def killed_apply(bench: Bench, at: int) -> bool:
    old = bench.state()
    new = {"x": "y", "y": "x"}[old]
    status, said = in_child(bench.apply(new), at)
    bench.settled()
    assert bench.checked({old, new}) == (new if status == 0 else bench.state())
    return ended(status, said)


def killed_apply_and_rollback(bench: Bench, at: int) -> bool:
    old = bench.state()
    new = {"x": "y", "y": "x"}[old]

    def change() -> None:
        bench.apply(new, 600)()
        rollback(bench.layout, None, OPTIONS)

    status, said = in_child(change, at)
    bench.settled()
    if unfinished(bench.layout) is not None:
        assert bench.checked({new}) == new
        must(lambda: rollback(bench.layout, None, OPTIONS))
        bench.settled()
    assert bench.checked({old, new} if status else {old})
    if bench.state() == new:
        must(bench.apply(old))
    return ended(status, said)


def killed_confirm(bench: Bench, at: int) -> bool:
    old = bench.state()
    new = {"x": "y", "y": "x"}[old]
    must(bench.apply(new, 600))
    status, said = in_child(lambda: confirm(bench.layout, OPTIONS), at)
    waits = unfinished(bench.layout) is not None
    bench.checked({new})
    assert waits == (status != 0 and waits)
    if waits:
        must(lambda: confirm(bench.layout, OPTIONS))
    bench.settled()
    # A restart keeps what was confirmed.
    must(bench.clear)
    must(lambda: restore(bench.layout, OPTIONS))
    bench.settled()
    bench.checked({new})
    return ended(status, said)


def killed_restore(bench: Bench, at: int) -> bool:
    old = bench.state()
    must(bench.clear)
    status, said = in_child(lambda: restore(bench.layout, OPTIONS), at)
    bench.settled()
    state = listing_of(bench)
    assert state in ({old} if status == 0 else {"", old}), state
    must(lambda: restore(bench.layout, OPTIONS))
    bench.settled()
    bench.checked({old})
    return ended(status, said)


def killed_remove(bench: Bench, at: int) -> bool:
    old = bench.state()
    status, said = in_child(lambda: remove(bench.layout, OPTIONS), at)
    bench.settled()
    if listing_of(bench) == "":
        must(bench.apply(old))
    bench.checked({old})
    return ended(status, said)


def listing_of(bench: Bench) -> str:
    """Name what is live; after a restart the setting is what the kernel kept."""
    found = listing()
    for name, known in bench.known.items():
        if known["rules"] == found["rules"]:
            return name
    raise AssertionError(f"neither one nor the other: {json.dumps(found, indent=1)}")


def killed_with_its_watchdog(bench: Bench, at: int) -> bool:
    """As after a power cut, nobody is left; the next command repairs."""
    old = bench.state()
    new = {"x": "y", "y": "x"}[old]
    status, said = in_child(bench.apply(new), at)
    kill_watchdogs(bench.layout)
    must(lambda: restore(bench.layout, OPTIONS))
    bench.settled()
    bench.checked({old, new})
    return ended(status, said)


def kill_watchdogs(layout: Layout) -> None:
    """End the watchdogs of this folder; the first process of one may be about to make another."""
    for _ in range(2):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                if os.fsencode(layout.root) in words and b"-I" in words:
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue


def ended(status: int, said: str) -> bool:
    """Tell whether the action came to its end; it may be killed, but never fail."""
    assert not said, said
    return status == 0


SCENARIOS = {
    "apply": killed_apply,
    "rollback": killed_apply_and_rollback,
    "confirm": killed_confirm,
    "restore": killed_restore,
    "remove": killed_remove,
    "alone": killed_with_its_watchdog,
}


def main() -> None:
    backend, scenario, root, stride = sys.argv[1:5]
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(NETNS) == 0, os.strerror(ctypes.get_errno())
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if SCENARIOS[scenario] is not killed_with_its_watchdog:
        forks.take_over()
    bench = Bench(backend, root)
    bench.learn()
    at, kills = 1, 0
    while not ended_at(bench, scenario, at):
        kills += 1
        at += int(stride)
    sys.stdout.write(f"{kills}\n")


def ended_at(bench: Bench, scenario: str, at: int) -> bool:
    try:
        return SCENARIOS[scenario](bench, at)
    except AssertionError as error:
        sys.exit(f"killed at point {at}: {error}")


if __name__ == "__main__":
    main()
