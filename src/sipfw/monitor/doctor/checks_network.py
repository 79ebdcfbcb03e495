"""The network around the switch: spoofed sources, IPv6."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.findings import AbsentError, CannotTellError, Diagnosis, DiagnosisState
from sipfw.monitor.doctor.host import entries
from sipfw.monitor.doctor.rules import guards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.monitor.doctor.host import HostView

# What the Internet routes; unique local addresses are global to the kernel and to nobody else.
_ROUTED = IPv6Network("2000::/3")
_GLOBAL_SCOPE = "00"
_SHOWN = 3


def rp_filter(host: HostView) -> Diagnosis:
    """Tell whether packets with somebody else's source address are let in."""
    name = "rp-filter"
    folder = host.proc / "sys/net/ipv4/conf"
    try:
        # The kernel takes the larger of the two.
        everywhere = host.setting("net/ipv4/conf/all/rp_filter")
    except AbsentError:
        return Diagnosis(name, DiagnosisState.UNKNOWN, "this kernel has no setting rp_filter")
    interfaces = [item for item in entries(folder) if item not in {"all", "default", "lo"}]
    off = [
        item
        for item in interfaces
        if max(everywhere, host.setting(f"net/ipv4/conf/{item}/rp_filter")) == 0
    ]
    if not off:
        return Diagnosis(name, DiagnosisState.OK, "source addresses are checked on every interface")
    more = f" and {len(off) - _SHOWN} more" if len(off) > _SHOWN else ""
    sentence = (
        f"off on {', '.join(off[:_SHOWN])}{more}: a packet with a trusted peer's address may come "
        "from anywhere"
    )
    # 2 asks for any way back; 1 would break a host with two uplinks.
    return Diagnosis(
        name, DiagnosisState.WARNING, sentence, "sysctl -w net.ipv4.conf.all.rp_filter=2"
    )


def ipv6(host: HostView) -> Diagnosis:
    """Tell whether IPv6 stands open beside a guarded IPv4."""
    name = "ipv6"
    try:
        addresses = list(_routed_addresses(host))
    except AbsentError:
        return Diagnosis(name, DiagnosisState.OK, "IPv6 is off")
    if not addresses:
        return Diagnosis(name, DiagnosisState.OK, "no address that the Internet reaches")
    rules = host.rules
    guarded = {family: guards(rules, family) for family in Family}
    reach = f"{addresses[0]} on this host"
    if guarded[Family.IP6]:
        return Diagnosis(name, DiagnosisState.OK, f"guarded; {reach}")
    if guarded[Family.IP]:
        sentence = f"IPv4 is guarded, IPv6 is open, and the Internet reaches {reach}"
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, "sipfw apply")
    sentence = f"nothing guards IPv4 or IPv6, and the Internet reaches {reach}"
    return Diagnosis(name, DiagnosisState.WARNING, sentence, "sipfw apply")


def _routed_addresses(host: HostView) -> Iterator[IPv6Address]:
    """Read /proc/net/if_inet6: address, index, length, scope, flags, interface."""
    for line in host.text(host.proc / "net/if_inet6").splitlines():
        words = line.split()
        try:
            address = IPv6Address(int(words[0], 16))
        except (ValueError, IndexError):
            raise CannotTellError("the list of IPv6 addresses cannot be understood") from None
        if words[3:4] == [_GLOBAL_SCOPE] and address in _ROUTED:
            yield address
