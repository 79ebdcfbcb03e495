"""A real kamailio with a media relay beside it, and the programs of a call at its ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from lab import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab, Node

HERE = Path(__file__).parent
READY = "exchange is ready"

# Every call goes from the carrier's side to the office's.
CONFIG = Template("""#!KAMAILIO
debug=1
log_stderror=yes
children=2
auto_aliases=no
dns=no
rev_dns=no
disable_tcp=yes
mhomed=yes
listen=udp:$near:5060
listen=udp:$far:5060
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "rtpengine.so"
modparam("rtpengine", "rtpengine_sock", "udp:127.0.0.1:22222")

request_route {
    if (has_totag()) {
        loose_route();
        t_relay();
        exit;
    }
    if (method == "INVITE") {
        record_route();
        $$du = "sip:$callee:5060";
        rtpengine_offer("replace-origin replace-session-connection");
        t_on_reply("MEDIA");
        t_relay();
        exit;
    }
    t_relay();
}

onreply_route[MEDIA] {
    if (has_body("application/sdp")) rtpengine_answer("replace-origin replace-session-connection");
}

event_route[core:worker-one-init] {
    xlog("L_NOTICE", "$ready\\n");
}
""")


class Program:
    """A program of this folder in a namespace; it ends with its input and prints JSON last."""

    def __init__(self, node: Node, name: str, *words: str) -> None:
        argv = ["ip", "netns", "exec", node.namespace, sys.executable, str(HERE / name), *words]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        """Wait for its first line."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> Any:
        """End its input; return what it says."""
        said, _ = self._process.communicate("", timeout=40)
        return json.loads(said.splitlines()[-1])

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.communicate()


class Exchange:
    """The relay, and who has heard what."""

    def __init__(self, lab: Lab, relay: Program) -> None:
        self._lab = lab
        self._relay = relay

    def calls(self, number: int, media: str) -> tuple[Program, Program]:
        """Start that many calls of the carrier, whose media come from an address of its own."""
        lab, target = self._lab, self._lab.switch.address_for(self._lab.carrier)
        callee = Program(lab.office, "calls.py", "callee", lab.office.address4, lab.office.address4)
        callee.ready()
        words = (lab.carrier.address4, media, f"100@{target}", str(number), "at-once")
        return Program(lab.carrier, "calls.py", "caller", *words), callee

    def relayed(self) -> dict[str, int]:
        """End the relay; return how many packets of RTP came from whom."""
        found: dict[str, int] = self._relay.end()
        return found


@contextmanager
def exchange(lab: Lab, folder: Path, first: int) -> Iterator[Exchange]:
    """Run kamailio and its relay on the switch."""
    near, far = (lab.switch.address_for(host) for host in (lab.carrier, lab.office))
    relay = Program(lab.switch, "relay.py", near, far, str(first))
    relay.ready()
    config, log = folder / "exchange.cfg", folder / "exchange.log"
    words = {"near": near, "far": far, "callee": lab.office.address4, "ready": READY}
    config.write_text(CONFIG.substitute(words))
    argv = ["kamailio", "-DD", "-E", "-m", "32", "-M", "4", "-f", str(config)]
    program = lab.switch.popen([*argv, "-Y", str(folder), "-w", str(folder)], output=log)
    try:
        deadline = time.monotonic() + 10
        while READY not in log.read_text():
            if program.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"kamailio does not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield Exchange(lab, relay)
    finally:
        program.terminate()
        program.wait(timeout=5)
        relay.kill()
