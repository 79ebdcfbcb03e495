"""All checks, in the order of what an operator asks first; the worst answers come first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.detect import printable
from sipfw.monitor.doctor import checks_conntrack as conntrack
from sipfw.monitor.doctor import checks_firewall as firewall
from sipfw.monitor.doctor import checks_kernel as kernel
from sipfw.monitor.doctor import checks_neighbours as neighbours
from sipfw.monitor.doctor import checks_network as network
from sipfw.monitor.doctor import checks_reach as reach
from sipfw.monitor.doctor.checks_alg import sip_alg
from sipfw.monitor.doctor.checks_saved import saved_rules
from sipfw.monitor.doctor.closed import closed
from sipfw.monitor.doctor.containers import published
from sipfw.monitor.doctor.findings import CannotTellError, Diagnosis, DiagnosisState
from sipfw.monitor.doctor.stricter.findings import stricter
from sipfw.monitor.doctor.ways_past import port_moves

if TYPE_CHECKING:
    from collections.abc import Callable

    from sipfw.monitor.doctor.host import HostView

CHECKS: dict[str, Callable[[HostView], Diagnosis]] = {
    "live": firewall.live,
    "pending": firewall.pending,
    "last-apply": firewall.last_apply,
    "backend": firewall.backend,
    "sip-alg": sip_alg,
    "ipv6": network.ipv6,
    "conntrack-fill": conntrack.fill,
    "conntrack-hash": conntrack.buckets,
    "conntrack-timeouts": conntrack.timeouts,
    "freepbx": neighbours.freepbx,
    "fail2ban": neighbours.fail2ban,
    "saved-rules": saved_rules,
    "containers": published,
    "stricter-rules": stricter,
    "closed-protocols": closed,
    "port-moves": port_moves,
    "rp-filter": network.rp_filter,
    "ways-back": reach.ways_back,
    "listeners": reach.listeners,
    "interfaces": reach.interfaces,
    "not-read": reach.not_read,
    "kernel-matches": kernel.matches,
    "state-folder": firewall.state_folder,
    "clock": kernel.clock,
}
_ORDER = list(DiagnosisState)
# A record or a journal is JSON that somebody may have written by hand.
_NO_ANSWER = (CannotTellError, BackendError, OSError, ValueError, RecursionError)


def examine(host: HostView) -> tuple[Diagnosis, ...]:
    """Make every check. What cannot be known is a finding too; nothing is raised."""
    found = [_shown(_answer(name, check, host)) for name, check in CHECKS.items()]
    return tuple(sorted(found, key=lambda item: _ORDER.index(item.state)))


def _answer(name: str, check: Callable[[HostView], Diagnosis], host: HostView) -> Diagnosis:
    try:
        return check(host)
    except _NO_ANSWER as error:
        return Diagnosis(name, DiagnosisState.UNKNOWN, str(error))


def _shown(finding: Diagnosis) -> Diagnosis:
    """Return the finding on one line and without what could steer a terminal or a shell.

    Names of chains, folders and interfaces are anybody's.
    """
    fix = finding.fix if finding.fix is None or finding.fix.isprintable() else None
    sentence = printable(" ".join(finding.sentence.split()))
    return replace(finding, sentence=sentence, fix=fix)
