"""The SIP helper of connection tracking ("SIP ALG"), which rewrites calls and breaks them.

Who may attach it: a rule, firewalld's service sip, or the kernel by itself where
nf_conntrack_helper is 1 (the default before Linux 4.7; the setting is gone since 6.0).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sipfw.monitor.doctor.findings import AbsentError, CannotTellError, Diagnosis, DiagnosisState
from sipfw.monitor.doctor.host import entries
from sipfw.monitor.doctor.rules import helper_rules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.monitor.doctor.host import HostView

NAME = "sip-alg"

_MODULES = ("nf_nat_sip", "nf_conntrack_sip")
_UNLOAD = "modprobe -r nf_nat_sip nf_conntrack_sip"
_FOLDERS = ("etc/firewalld", "usr/lib/firewalld")
_SERVICE = re.compile(r"<service\s+name\s*=\s*[\"']([\w.-]{1,64})[\"']")
_HELPER = re.compile(
    r"<helper\s+name\s*=\s*[\"']sip[\"']|<module\s+name\s*=\s*[\"'](?:nf_conntrack_)?sip[\"']"
)
_ZONE_FILE = re.compile(r"([\w-]{1,64})\.xml")


def sip_alg(host: HostView) -> Diagnosis:
    """Tell whether the kernel rewrites SIP, or soon may."""
    by_kernel = _automatic(host)
    if by_kernel is not None:
        return by_kernel
    try:
        attached = list(helper_rules(host.rules))
    except CannotTellError as error:
        return _without_rules(host, str(error))
    zone = next(_firewalld(host), None)
    if attached:
        where, fix = attached[0]
        more = f" and {len(attached) - 1} more" if len(attached) > 1 else ""
        sentence = f"a rule in {where}{more} has the kernel rewrite SIP, which breaks calls"
        return Diagnosis(
            NAME, DiagnosisState.PROBLEM, sentence, _firewalld_fix(*zone) if zone else fix
        )
    if zone is not None:
        return _zone(*zone, "is not live now, but is when firewalld starts")
    loaded = [name for name in _MODULES if name in host.loaded_modules]
    if loaded:
        sentence = f"{' and '.join(loaded)} loaded; nothing attaches the SIP helper now"
        return Diagnosis(NAME, DiagnosisState.WARNING, sentence, _UNLOAD)
    return Diagnosis(NAME, DiagnosisState.OK, "the kernel does not rewrite SIP")


def _automatic(host: HostView) -> Diagnosis | None:
    """Return what the setting says, None where it leaves the helper to rules."""
    try:
        if host.setting("net/netfilter/nf_conntrack_helper") == 0:
            return None
    except AbsentError:
        return None
    fix = "sysctl -w net.netfilter.nf_conntrack_helper=0"
    if any(host.has_module(name) for name in _MODULES):
        sentence = "the kernel rewrites SIP (nf_conntrack_helper = 1), which breaks calls"
        return Diagnosis(NAME, DiagnosisState.PROBLEM, sentence, f"{fix} && {_UNLOAD}")
    sentence = "nf_conntrack_helper = 1: the kernel rewrites SIP once nf_conntrack_sip is loaded"
    return Diagnosis(NAME, DiagnosisState.WARNING, sentence, fix)


def _without_rules(host: HostView, reason: str) -> Diagnosis:
    zone = next(_firewalld(host), None)
    if zone is not None:
        return _zone(*zone, "may be live")
    return Diagnosis(
        NAME, DiagnosisState.UNKNOWN, f"whether a rule attaches the SIP helper: {reason}"
    )


def _zone(zone: str, service: str, live: str) -> Diagnosis:
    sentence = f"firewalld's zone {zone} has service {service}, whose SIP helper {live}"
    return Diagnosis(NAME, DiagnosisState.WARNING, sentence, _firewalld_fix(zone, service))


def _firewalld_fix(zone: str, service: str) -> str:
    command = f"firewall-cmd --permanent --zone={zone} --remove-service={service}"
    return f"{command} --add-port=5060/udp --add-port=5060/tcp && firewall-cmd --reload"


def _firewalld(host: HostView) -> Iterator[tuple[str, str]]:
    """Yield zone and service where a zone's service brings the helper along."""
    seen = set()
    for folder in _FOLDERS:
        # A zone below /etc replaces the shipped one of that name.
        zones = host.root / folder / "zones"
        for file in entries(zones):
            found = _ZONE_FILE.fullmatch(file)
            if found is None or file in seen:
                continue
            seen.add(file)
            for service in _SERVICE.findall(_xml(host, zones / file)):
                if _brings_helper(host, service):
                    yield found[1], service


def _brings_helper(host: HostView, service: str) -> bool:
    for folder in _FOLDERS:
        try:
            text = _xml(host, host.root / folder / "services" / f"{service}.xml")
        except AbsentError:
            continue
        return _HELPER.search(text) is not None
    return service == "sip"


def _xml(host: HostView, path: Path) -> str:
    # No XML parser: a few lines of text are wanted, and entities can make a small file endless.
    first, *others = host.text(path).split("<!--")
    # What begins a comment and never ends it is a comment to the end of the file.
    return first + "".join(part.partition("-->")[2] for part in others)
