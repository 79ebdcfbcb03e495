"""Whom this host's own files and connections name, for `init` and `check --host`."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.cli.output import remark

if TYPE_CHECKING:
    from collections.abc import Collection

    from sipfw.monitor.gateways.look import Gateway
    from sipfw.ruleset.match import PortRange


def find_gateways(root: Path, ports: Collection[PortRange]) -> list[Gateway]:
    """Return gateways and talkers; says on stderr what cannot be read.

    The connections are those of the running kernel, which belong to no other root.
    """
    from sipfw.host.own_addresses import own_addresses
    from sipfw.host.runner import SubprocessRunner
    from sipfw.monitor.gateways.look import look_for_gateways, look_for_talkers

    own = own_addresses()
    found, notes = look_for_gateways(root, frozenset(map(ip_network, own)))
    remark(notes)
    if root == Path("/"):
        found += look_for_talkers(own, ports, SubprocessRunner())
    return found
