"""Other programs that change the firewall of a telephone host: FreePBX, fail2ban."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sipfw.kernel.backend import backend_of
from sipfw.monitor.doctor.findings import CannotTellError, Diagnosis, DiagnosisState
from sipfw.monitor.doctor.host import entries
from sipfw.monitor.doctor.ports import sip_ports
from sipfw.monitor.doctor.rules import ban_chains, has_chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.monitor.doctor.host import HostView

_FREEPBX_MODULE = "var/www/html/admin/modules/firewall"
_FREEPBX_CHAIN = "fpbxfirewall"

_SECTION = re.compile(r"\[([\w.-]{1,64})\]")
_OPTION = re.compile(r"(enabled|port)\s*=\s*(.*)")
_YES = frozenset({"true", "yes", "on", "1"})
_SIP_JAILS = re.compile(r"asterisk|freeswitch|kamailio|opensips|sip", re.IGNORECASE)


def freepbx(host: HostView) -> Diagnosis:
    """Tell whether FreePBX will flush rules: its firewall does at start, also when disabled."""
    name = "freepbx"
    installed = bool(entries(host.root / _FREEPBX_MODULE))
    try:
        active = has_chain(host.rules, _FREEPBX_CHAIN)
    except CannotTellError as error:
        if not installed:
            return Diagnosis(
                name, DiagnosisState.UNKNOWN, f"whether FreePBX's firewall is active: {error}"
            )
        active = False
    if not active and not installed:
        return Diagnosis(name, DiagnosisState.OK, _without_firewall(host))
    what = "FreePBX's firewall is active" if active else "FreePBX's firewall module is installed"
    if _in_own_table(host):
        return Diagnosis(
            name, DiagnosisState.OK, f"{what}; it cannot flush sipfw's own nftables table"
        )
    sentence = f"{what}: each start of FreePBX flushes iptables' filter rules, sipfw's too"
    # Disabled is not enough: the flush is in the start hook of the module.
    fix = "fwconsole ma uninstall firewall && fwconsole ma delete firewall"
    return Diagnosis(
        name, DiagnosisState.PROBLEM if active else DiagnosisState.WARNING, sentence, fix
    )


def _without_firewall(host: HostView) -> str:
    etc = entries(host.root / "etc")
    if "freepbx.conf" in etc:
        return "FreePBX without its firewall"
    return "Asterisk without FreePBX's firewall" if "asterisk" in etc else "no FreePBX"


def _in_own_table(host: HostView) -> bool:
    try:
        return host.applied is not None and backend_of(host.applied.backend).facts.own_table
    except CannotTellError:
        return False


def fail2ban(host: HostView) -> Diagnosis:
    """Tell whether fail2ban acts on the ports that sipfw guards; both may, so it is no fault."""
    name = "fail2ban"
    jails = sorted(_sip_jails(host))
    try:
        chains = sorted(ban_chains(host.rules))
    except CannotTellError as error:
        if not jails:
            return Diagnosis(name, DiagnosisState.UNKNOWN, f"whether it acts on SIP ports: {error}")
        chains = []
    acting = [*chains, *(f"jail {item}" for item in jails)]
    if not acting:
        return Diagnosis(name, DiagnosisState.OK, "does not act on SIP ports")
    sentence = (
        f"acts on SIP ports too ({', '.join(acting)}): its rules stand behind sipfw's, and a "
        "spoofer can have it ban a customer"
    )
    return Diagnosis(name, DiagnosisState.OK, sentence)


def _sip_jails(host: HostView) -> Iterator[str]:
    """Yield the enabled jails for SIP from what the operator wrote; the shipped ones are off."""
    base = host.root / "etc/fail2ban"
    drop_ins = [item for item in entries(base / "jail.d") if item.endswith((".conf", ".local"))]
    files = [*(base / "jail.d" / item for item in drop_ins)]
    files += [base / item for item in entries(base) if item == "jail.local"]
    for file in files:
        yield from _enabled(host, file)


def _enabled(host: HostView, file: Path) -> Iterator[str]:
    options: dict[str, dict[str, str]] = {}
    section = ""
    for line in host.text(file).splitlines():
        if found := _SECTION.fullmatch(line.strip()):
            section = found[1]
        elif section and (found := _OPTION.fullmatch(line.strip())):
            options.setdefault(section, {})[found[1]] = found[2]
    for jail, values in options.items():
        about_sip = _SIP_JAILS.search(jail) or sip_ports(values.get("port", ""))
        if values.get("enabled", "").strip().lower() in _YES and about_sip and jail != "DEFAULT":
            yield jail
