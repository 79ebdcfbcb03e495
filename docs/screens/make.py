"""Make the pictures of docs/screens: a lab under attack, and what sipfw shows of it.

    python docs/screens/make.py        needs root, chromium, sipp and sipvicious; two minutes

Everything happens in network namespaces; files are written in a mount namespace over /etc and
/var/lib, so that the pictures show the paths of a host and this host keeps its own.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

# The laboratory lives in tests/, the attacks in examples/; neither is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/demo"))

import attacks
import calls
from guest import Guest
from pictures import save_terminal
from scene import SIP_PORT, Scene, prepare

from lab import Lab, sip
from lab.browser import Browser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyte

    from lab.terminal import Terminal

HERE = Path(__file__).resolve().parent
POLICY = """\
profile: wholesale
switch: kamailio
admin:
  networks: [192.0.2.0/28]
trusted_peers:
  - name: carrier-a
    signalling: [203.0.113.10, 2001:db8:5::a]
    media: [203.0.113.0/24]
    tier: large
  - name: carrier-b
    signalling: [203.0.113.128/28]
# The switch of the lab names such a port in its SDP; kamailio's usual ones are others.
media: {ports: [10000-20000]}
bans: {duration: 1h}
"""
READ_EVERY = 5.2
GUESSER = "198.51.100.75"
FLOODERS = [f"198.51.100.{number}" for number in range(140, 152)]


def main() -> int:
    """Make every picture and return 0."""
    with (
        Lab(hosts=("carrier", "attacker", "office")) as lab,
        tempfile.TemporaryDirectory(prefix="sipfw-screens-") as scratch,
        Guest(lab.switch.namespace, Path(scratch)) as guest,
    ):
        scene = prepare(lab, Path(scratch))
        for address in [attack.source for attack in attacks.ATTACKS] + FLOODERS:
            lab.attacker.add_address(address)
        print("attack the unprotected switch, to know what the tools send")
        calls.alongside(scene, lambda: _attack(scene))
        guest.write("/etc/sipfw/policy.yaml", POLICY)
        guest.sipfw("apply", "--yes")
        print("attack again")
        with _readings(guest):
            for look in (_watch, _look, _report):
                _with_traffic(scene, functools.partial(look, guest))
    return 0


@contextmanager
def _readings(guest: Guest) -> Iterator[None]:
    """Look every few seconds, as a monitoring system does; the report draws what was seen."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(READ_EVERY):
            guest.sipfw("verify", "--brief")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _attack(scene: Scene) -> None:
    for attack in attacks.ATTACKS:
        attacks.launch(scene, attack)


def _with_traffic(scene: Scene, look: Callable[[], None]) -> None:
    """Run attacks, a flood and calls, and look meanwhile."""
    over = threading.Event()
    flood = threading.Thread(target=_flood, args=(scene, over))
    flood.start()
    looking = threading.Thread(target=look)

    def other() -> None:
        looking.start()
        _attack(scene)

    try:
        calls.alongside(scene, other)
        looking.join()
    finally:
        over.set()
        flood.join()


def _flood(scene: Scene, over: threading.Event) -> None:
    """Send REGISTERs from a dozen sources, a hundred a second, for a minute at most."""
    message = sip.request("REGISTER", source=FLOODERS[0], destination=scene.target, user="1000")
    end = time.monotonic() + 60
    while not over.wait(0.5) and time.monotonic() < end:
        for source in FLOODERS[: 4 + int(time.monotonic()) % 8]:
            scene.lab.attacker.spoof_udp([source] * 6, scene.target, 5060, SIP_PORT, message)


def _watch(guest: Guest) -> None:
    words = ("verify", "--watch", "--interval", "0.5")
    with guest.terminal(*words, columns=128, lines=36) as terminal:
        terminal.wait_for("HEALTHY")
        # Until the scanners have been at work for a while.
        terminal.keep_reading(7.5)
        _settle(terminal)
        _save(terminal.screen, "watch", *words)
        terminal.type("q")
        terminal.end()


def _settle(terminal: Terminal) -> None:
    """Read the rest of a picture that is being drawn."""
    before = b""
    while terminal.written != before:
        before = terminal.written
        terminal.keep_reading(0.1)


def _look(guest: Guest) -> None:
    time.sleep(3)
    for name, *words in (
        ("top", "top", "-n", "12"),
        ("why", "why", GUESSER, "--method", "REGISTER"),
        ("verify", "verify", "--family", "4", "--top", "10", "--hits"),
    ):
        _save(guest.screen(*words), name, *words)
    ban = ("--for", "2h", "--reason", "fraud desk, ticket 4711")
    guest.sipfw("ban", "198.51.100.200", "2001:db8:99::200", *ban)
    _save(guest.screen("bans"), "bans", "bans")


def _save(screen: pyte.Screen, name: str, *words: str) -> None:
    save_terminal(screen, HERE / f"{name}.svg", " ".join(("sipfw", *words)))


def _report(guest: Guest) -> None:
    time.sleep(4)
    html = guest.sipfw("report", "--html", "-")
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        page = Path(folder, "report.html")
        page.write_text(html, encoding="utf-8")
        browser.show(page, 1280)
        # The rest is more tables, and a picture in a repository should be small.
        end = browser.evaluate("document.querySelector('#sources').getBoundingClientRect().bottom")
        picture = browser.picture(height=end + 16)
    (HERE / "report.png").write_bytes(picture)
    print(f"report.png: {len(picture) / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
