"""Connections that have ended, while connection tracking still remembers them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.handles import TcpConnection
    from lab.laboratory import Lab

# How a connection ends, and what connection tracking calls it for some time afterwards.
CLOSED = {"reset": "CLOSE", "closed": "TIME_WAIT"}


def end(lab: Lab, connection: TcpConnection, how: str) -> None:
    """End the attacker's connection so that its port is free there at once."""
    kill = ["ss", "-K", "-ta", "sport", "=", f":{connection.source_port}"]
    if how == "reset":
        lab.attacker.run(kill)
    connection.close()
    state = CLOSED[how]
    tracked = ["conntrack", "-L", "-p", "tcp", "--state", state]
    deadline = time.monotonic() + 10
    while not any(
        f" {state} " in lab.switch.run([*tracked, "-f", version]).stdout
        for version in ("ipv4", "ipv6")
    ):
        assert time.monotonic() < deadline, f"no connection is tracked as {state}"
        time.sleep(0.02)
    lab.attacker.run(kill)
