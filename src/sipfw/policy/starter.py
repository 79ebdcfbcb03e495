"""The text of a starter policy: every line either true for this host or commented out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_BRIDGE = re.compile(r"br-[0-9a-f]{12}")


def starter_policy(
    *,
    profile: str,
    switch: str | None,
    admin_networks: Sequence[str],
    udp_ports: Sequence[int],
    tcp_ports: Sequence[int],
    interfaces: Sequence[str],
    found: Sequence[str] = (),
) -> str:
    """Return a commented policy file; `found` are commented peers that this host suggests."""
    lines = [
        "# sipfw policy. Check it with `sipfw check`; `sipfw check --explain` shows every field.",
        "",
        f"profile: {profile}            # see `sipfw profiles`",
        *_switch(switch),
        "",
        *_admin(admin_networks),
        "",
        *_signalling(udp_ports, tcp_ports),
        *_containers(interfaces),
        "# Carriers and customers with fixed addresses: never limited, never banned. Add yours.",
        "trusted_peers: []",
        "#  - name: carrier-a",
        "#    signalling: [203.0.113.10, 203.0.113.20, sip.carrier-a.example]",
        "#    media: [203.0.113.0/24]",
        "#    # A name is followed by SRV; what it no longer means stays for names.grace (1h).",
        "#    tier: large             # small medium large premium; tiers.enforce caps calls at it",
        *_found(found),
        "",
        "scanners:",
        "  block_options: true       # OPTIONS from unknown sources",
        "  user_agents: {add: [], remove: []}",
        "",
        "bans: {duration: 1h}",
        "",
        "# Log lines about what these layers drop; see docs/logging.md.",
        "# logging: {layers: [banned, scanner-block]}",
        "",
        "host:",
        "  # With admin networks sipfw drops what no rule admits. Ports that everybody may reach:",
        "  tcp_ports: []",
        "  udp_ports: []",
        "  # Interfaces of an inner network, open entirely"
        + (f" (this host has {', '.join(interfaces)}):" if interfaces else ":"),
        "  interfaces: []",
    ]
    return "\n".join(lines) + "\n"


def _found(lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [
        "#",
        "# Found on this host, not checked: whoever is trusted is never limited. For each that is",
        "# yours take away the [] above and the first # of its lines.",
        *lines,
    ]


def _switch(switch: str | None) -> list[str]:
    if switch is None:
        return ["# switch: asterisk          # sets the usual ports; see `sipfw profiles`"]
    return [f"switch: {switch}"]


def _admin(networks: Sequence[str]) -> list[str]:
    lines = ["# Who may reach ssh and the web interface. Without any, only SIP is guarded."]
    if networks:
        return [*lines, "admin:", f"  networks: [{', '.join(repr(item) for item in networks)}]"]
    return [*lines, "# admin:", "#   networks: [192.0.2.0/28]"]


def _signalling(udp_ports: Sequence[int], tcp_ports: Sequence[int]) -> list[str]:
    if not udp_ports and not tcp_ports:
        return []
    udp = ", ".join(map(str, udp_ports))
    others = {
        name: ", ".join(str(port) for port in tcp_ports if _TRANSPORTS.get(port, "tcp") == name)
        for name in ("tcp", "tls", "ws", "wss")
    }
    lists = ", ".join(f"{name}: [{ports}]" for name, ports in {"udp": udp, **others}.items())
    return ["# SIP sockets that listen on this host now.", f"signalling: {{{lists}}}", ""]


def _containers(interfaces: Sequence[str]) -> list[str]:
    """Docker's own bridge is docker0, those of its networks are br- and twelve digits."""
    bridges = ["docker0"] if "docker0" in interfaces else []
    bridges += ["'br-*'"] if any(_BRIDGE.fullmatch(name) for name in interfaces) else []
    if not bridges:
        return []
    return [
        "# If the switch runs in a container, name its bridge below signalling, so that its own",
        f"# calls are never limited:  behind: [{', '.join(bridges)}]",
        "",
    ]


# What the usual TCP ports carry beside plain SIP.
_TRANSPORTS = {5061: "tls", 5081: "tls", 5161: "tls", 5066: "ws", 7443: "wss"}
