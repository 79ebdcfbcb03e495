"""The network of a proof: the switch in one namespace, everybody else in another.

The main thread is the switch's host, so that `/proc/net` is its own too, and `apply` works there
as anywhere. Other threads stay in the world, which answers for whole networks of addresses.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.runner import SubprocessRunner
from sipfw.prove.stage import SCRATCH, new_network

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from sipfw.prove.cast import Cast

# Not lo, eth0 or docker0: what a policy says of an interface is said of another one.
_LINK, _WORLD = "sipfw-uplink", "world"
LOCK = str(SCRATCH / "xtables.lock")


def build(cast: Cast, world: Executor) -> None:
    """Move this thread to the switch's namespace and join both; `world` runs in the other one.

    Raises BackendError where the kernel or iproute2 refuses.
    """
    # The pool makes its thread here, in the namespace that becomes the world.
    world.submit(int).result()
    new_network()
    world.submit(_build_world, cast, os.getpid()).result()
    _ip(
        "link set lo up",
        f"link set {_LINK} up",
        f"addr add {cast.switch[4]}/24 dev {_LINK}",
        f"addr add {cast.switch[6]}/48 dev {_LINK} nodad",
        f"route add default via {cast.gateway[4]}",
        f"-6 route add default via {cast.gateway[6]}",
    )


def _build_world(cast: Cast, switch: int) -> None:
    # A local route is enough to bind to any IPv4 address of a network, not to an IPv6 one. What is
    # below /proc/sys/net is that of the thread's namespace.
    Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
    _ip(
        "link set lo up",
        f"link add {_WORLD} type veth peer name {_LINK} netns {switch}",
        f"link set {_WORLD} up",
        f"addr add {cast.gateway[4]}/24 dev {_WORLD}",
        f"addr add {cast.gateway[6]}/48 dev {_WORLD} nodad",
        *(
            f"{'-6 ' if net.version == 6 else ''}route replace local {net} dev lo"
            for net in cast.networks()
        ),
    )


def _ip(*commands: str) -> None:
    for command in commands:
        done = SubprocessRunner().run(["ip", *command.split()])
        if done.returncode != 0:
            raise BackendError(f"ip {command}: {done.stderr.strip()}")
