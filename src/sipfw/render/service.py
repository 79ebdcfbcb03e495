"""The files that start sipfw at boot, as text. Installs nothing and knows no path of its own."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from sipfw.render.environment import render_template

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT_UNIT = "sipfw.service"
SETS_UNIT = "sipfw-sets.service"
TIMER_UNIT = "sipfw-refresh.timer"
KEEP_TIMER = "sipfw-keep.timer"
TIMERS = (TIMER_UNIT, KEEP_TIMER)
UNITS = (
    BOOT_UNIT,
    SETS_UNIT,
    "sipfw-refresh.service",
    TIMER_UNIT,
    "sipfw-keep.service",
    KEEP_TIMER,
)

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


def unit_texts(command: Sequence[str], root: str, *, ipset_unit: bool = False) -> dict[str, str]:
    """Return the systemd units by name.

    No word of the command line may need quoting: systemd takes no quotes in a program's path.
    With `ipset_unit` the host has an ipset.service of its own, as RHEL has: it destroys sets that
    its file does not hold, so ours come after it. On Debian that name is an alias of
    netfilter-persistent.service, before which they have to come.
    """
    words = " ".join(command)
    later = [name for name in _OTHERS if not (ipset_unit and name == "ipset.service")]
    return {
        name: render_template(
            f"{name}.j2",
            command=words,
            root=root,
            others=later if name == SETS_UNIT else _OTHERS,
            after_ipset=ipset_unit,
        )
        for name in UNITS
    }


def init_text(command: Sequence[str], root: str, *, sets: bool = False) -> str:
    """Return an LSB init script for plain sh; with `sets` the one that comes before all others."""
    name = "sipfw-sets.init.j2" if sets else "sipfw.init.j2"
    return render_template(name, command=shlex.join(command), root=shlex.quote(root))
