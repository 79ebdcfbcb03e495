"""Connection tracking: is it full, is its hash large enough, how long do dead entries live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.monitor.doctor.findings import AbsentError, Diagnosis, DiagnosisState

if TYPE_CHECKING:
    from sipfw.monitor.doctor.host import HostView

_FULL = 0.8
# Entries per bucket at the limit; beyond that every lookup walks a long list.
_PER_BUCKET = 8
_SETTINGS = "net/netfilter/nf_conntrack_"
# Timeout -> shortest and longest seconds that suit SIP, and what to set it to. RTP pauses at a
# hold for some 30 s; 432,000 s, the kernel's own for TCP, keeps a dead connection for five days.
_TIMEOUTS = {
    "udp_timeout": (10, 60, 30),
    "udp_timeout_stream": (30, 300, 60),
    "tcp_timeout_established": (600, 86_400, 7200),
}


def fill(host: HostView) -> Diagnosis:
    """Tell whether the table is nearly full: then new calls are dropped."""
    try:
        count, limit = host.setting(f"{_SETTINGS}count"), host.setting(f"{_SETTINGS}max")
    except AbsentError:
        return _not_loaded("conntrack-fill")
    if limit <= 0:
        return Diagnosis("conntrack-fill", DiagnosisState.OK, f"{count:,} entries, no limit")
    used = f"{count:,} of {limit:,} entries ({100 * count / limit:.0f} %)"
    if count <= _FULL * limit:
        return Diagnosis("conntrack-fill", DiagnosisState.OK, used)
    sentence = f"{used}: when it is full, new calls are dropped"
    fix = f"sysctl -w net.netfilter.nf_conntrack_max={2 * limit}"
    return Diagnosis("conntrack-fill", DiagnosisState.PROBLEM, sentence, fix)


def buckets(host: HostView) -> Diagnosis:
    """Tell whether the hash suits the limit."""
    try:
        size, limit = host.setting(f"{_SETTINGS}buckets"), host.setting(f"{_SETTINGS}max")
    except AbsentError:
        return _not_loaded("conntrack-hash")
    if size * _PER_BUCKET >= limit:
        return Diagnosis(
            "conntrack-hash", DiagnosisState.OK, f"{size:,} buckets for {limit:,} entries"
        )
    sentence = f"only {size:,} buckets for {limit:,} entries: lookups get slow as it fills"
    fix = f"echo {-(-limit // 4)} > /sys/module/nf_conntrack/parameters/hashsize"
    return Diagnosis("conntrack-hash", DiagnosisState.WARNING, sentence, fix)


def timeouts(host: HostView) -> Diagnosis:
    """Tell whether entries live as long as SIP needs and not much longer."""
    faults, fixes = [], []
    for name, (shortest, longest, better) in _TIMEOUTS.items():
        try:
            value = host.setting(f"{_SETTINGS}{name}")
        except AbsentError:
            return _not_loaded("conntrack-timeouts")
        if not shortest <= value <= longest:
            faults.append(f"{name} is {value:,} s, too {'short' if value < shortest else 'long'}")
            fixes.append(f"net.netfilter.nf_conntrack_{name}={better}")
    if not faults:
        return Diagnosis("conntrack-timeouts", DiagnosisState.OK, "they suit SIP")
    fix = f"sysctl -w {' '.join(fixes)}"
    return Diagnosis("conntrack-timeouts", DiagnosisState.WARNING, "; ".join(faults), fix)


def _not_loaded(name: str) -> Diagnosis:
    return Diagnosis(name, DiagnosisState.OK, "connection tracking is not loaded")
