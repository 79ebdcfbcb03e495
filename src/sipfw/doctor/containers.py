"""A switch in a container that the policy does not know of; `apply` asks before it goes live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.openings import names_containers
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.doctor.checks_network import unnamed_text
from sipfw.doctor.findings import CannotTellError
from sipfw.doctor.rules import published_ports

if TYPE_CHECKING:
    from sipfw.doctor.host import Host
    from sipfw.ruleset.model import Ruleset


def unnamed_containers(host: Host, ruleset: Ruleset) -> list[Diagnostic]:
    """Warn where SIP is sent on to a container whose interface this ruleset does not name.

    What cannot be looked up is no reason to warn: `sipfw doctor` says so.
    """
    try:
        if names_containers(ruleset) or host.setting("net/ipv4/ip_forward") == 0:
            return []
        ports = published_ports(host.rules)
    except CannotTellError:
        return []
    if not ports:
        return []
    return [Diagnostic(unnamed_text(ports), "signalling.behind", severity=Severity.WARNING)]
