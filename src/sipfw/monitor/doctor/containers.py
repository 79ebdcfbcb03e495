"""A switch in a container that the policy does not know of; `apply` asks before it goes live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.lockout.openings import names_of_containers
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.host.own_addresses import own_addresses
from sipfw.host.proc_net import way_to, ways_out
from sipfw.monitor.doctor.findings import CannotTellError, Diagnosis, DiagnosisState
from sipfw.monitor.doctor.ports import listed
from sipfw.monitor.doctor.record import applied_ruleset
from sipfw.monitor.doctor.rules import published_ports, published_targets

if TYPE_CHECKING:
    from sipfw.monitor.doctor.host import HostView
    from sipfw.ruleset.model import Ruleset


def unnamed_containers(host: HostView, ruleset: Ruleset) -> list[Diagnostic]:
    """Warn where SIP is sent on to a container whose interface this ruleset does not name.

    What cannot be looked up is no reason to warn: `sipfw doctor` says so.
    """
    try:
        if host.setting("net/ipv4/ip_forward") == 0:
            return []
        text = _unnamed(host, ruleset)
    except CannotTellError:
        return []
    if text is None:
        return []
    return [Diagnostic(text, "signalling.behind", severity=Severity.WARNING)]


def published(host: HostView) -> Diagnosis:
    """Tell whether SIP goes on to a container, and whether the applied policy knows."""
    name = "containers"
    ports = published_ports(host.rules)
    if not ports:
        return Diagnosis(name, DiagnosisState.OK, "no SIP port is sent on to a container")
    if host.setting("net/ipv4/ip_forward") == 0:
        sentence = f"port {listed(ports)} is sent on to a container, but ip_forward is off"
        return Diagnosis(name, DiagnosisState.WARNING, sentence, "sysctl -w net.ipv4.ip_forward=1")
    ruleset = applied_ruleset(host)
    text = None if ruleset is None else _unnamed(host, ruleset)
    if text is not None:
        return Diagnosis(name, DiagnosisState.PROBLEM, text)
    sentence = f"port {listed(ports)} is sent on to a container: guarded in raw like the host's own"
    return Diagnosis(name, DiagnosisState.OK, sentence)


def _unnamed(host: HostView, ruleset: Ruleset) -> str | None:
    """Say what becomes of a switch whose interface is not named, and what to do; None if it is."""
    ports = published_ports(host.rules)
    if not ports:
        return None
    named = names_of_containers(ruleset)
    targets = published_targets(host.rules)
    elsewhere = targets - set(own_addresses(host.proc))
    # What goes out to the Internet again has no bridge that could be named.
    ways = {way_to(address, host.proc) for address in elsewhere} - ways_out(host.proc)
    if targets and not ways:
        return None
    bridges = sorted(way for way in ways if way is not None)
    missing = [way for way in bridges if not any(match.fits(way) for match in named)]
    if not missing and (bridges or named):
        return None
    names = ", ".join(missing or ["docker0"])
    return (
        f"port {listed(ports)} is sent on to a container, whose own calls count as a stranger's: "
        "they are limited and can get it banned; its answers teach nothing, and connections to it "
        f"are not counted; name its bridge in the policy, signalling: {{behind: [{names}]}}, and "
        "apply"
    )
