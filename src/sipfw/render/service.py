"""The files that start sipfw at boot, as text. Installs nothing and knows no path of its own."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from sipfw.render.environment import render_template

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT_UNIT = "sipfw.service"
TIMER_UNIT = "sipfw-refresh.timer"
UNITS = (BOOT_UNIT, "sipfw-refresh.service", TIMER_UNIT)

# What else loads rules at boot. A unit that the host does not have is no hindrance to systemd.
_OTHERS = (
    "nftables.service",
    "iptables.service",
    "ip6tables.service",
    "netfilter-persistent.service",
    "ipset.service",
    "ufw.service",
    "firewalld.service",
)


def unit_texts(command: Sequence[str], root: str) -> dict[str, str]:
    """Return the systemd units by name.

    No word of the command line may need quoting: systemd takes no quotes in a program's path.
    """
    words = " ".join(command)
    return {
        name: render_template(f"{name}.j2", command=words, root=root, others=_OTHERS)
        for name in UNITS
    }


def init_text(command: Sequence[str], root: str) -> str:
    """Return an LSB init script for plain sh."""
    return render_template("sipfw.init.j2", command=shlex.join(command), root=shlex.quote(root))
