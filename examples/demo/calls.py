"""The carrier's calls: sipp for the signalling, a stream of RTP beside it.

They run while the attacks do, because that is when a firewall hurts the wrong people.
"""

from __future__ import annotations

import csv
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from office import Office, work
from scene import SIP_PORT, DemoError, Scene, tool

from lab import sip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCENARIO = Path(__file__).with_name("call.xml")
CALLS = 40
CALLS_PER_SECOND = 5
TALK_MILLISECONDS = 1000
VOICE_PACKETS = 400
VOICE_GAP = 0.02


@dataclass(frozen=True)
class Traffic:
    """What the carrier tried and what worked."""

    calls: int
    completed: int
    voice_sent: int
    voice_arrived: int
    office: Office

    @property
    def unharmed(self) -> bool:
        """Return whether every call, every voice packet and every request got through."""
        calls = self.completed == self.calls and self.voice_arrived == self.voice_sent
        return calls and self.office.answered == self.office.asked


def alongside(scene: Scene, other: Callable[[], None]) -> Traffic:
    """Make all calls while `other` runs."""
    voice = scene.lab.switch.udp_sink(sip.MEDIA_PORT, keep=0)
    silence = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        calling = pool.submit(_call, scene)
        working = pool.submit(work, scene)
        talking = pool.submit(_talk, scene, silence)
        try:
            other()
        except BaseException:
            silence.set()
            raise
        completed = calling.result()
        talking.result()
        office = working.result()
    arrived = voice.settle()
    voice.close()
    return Traffic(CALLS, completed, VOICE_PACKETS, arrived, office)


def _call(scene: Scene) -> int:
    carrier = scene.lab.carrier
    statistics = scene.scratch / "calls.csv"
    target = scene.lab.switch.address_for(carrier)
    # The bound ends a run in which every call waits for an answer that never comes.
    bound = 2 * CALLS // CALLS_PER_SECOND
    command = [
        *(tool("sipp"), f"{target}:{SIP_PORT}", "-sf", str(SCENARIO), "-nostdin"),
        *("-i", carrier.address4, "-p", str(SIP_PORT), "-s", "15550199"),
        *("-m", str(CALLS), "-r", str(CALLS_PER_SECOND), "-d", str(TALK_MILLISECONDS)),
        *("-timeout", f"{bound}s", "-trace_stat", "-stf", str(statistics), "-fd", "1"),
    ]
    done = carrier.run(
        command, check=False, timeout=bound + 15, cwd=str(scene.scratch), env={"TERM": "dumb"}
    )
    if not statistics.exists():
        raise DemoError(f"sipp did not start: {done.stderr.strip()}")
    with statistics.open(newline="") as lines:
        last = list(csv.DictReader(lines, delimiter=";"))[-1]
    statistics.unlink()
    return int(last["SuccessfulCall(C)"])


def _talk(scene: Scene, silence: threading.Event) -> None:
    carrier = scene.lab.carrier
    target = scene.lab.switch.address_for(carrier)
    for packet in _voice():
        if silence.wait(VOICE_GAP):
            return
        carrier.send_udp(target, sip.MEDIA_PORT, packet, source_port=20000)


def _voice() -> Iterator[bytes]:
    """Yield RTP packets with 20 ms of silence in G.711 (RFC 3550 5.1)."""
    for number in range(VOICE_PACKETS):
        yield struct.pack("!BBHII", 0x80, 0, number, number * 160, 0x5150) + b"\xff" * 160
