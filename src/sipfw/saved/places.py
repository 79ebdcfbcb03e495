"""Where other programs keep the rules that they load at boot, and whether they do so here.

The paths are those of the packages: netfilter-persistent(8) and ipset-persistent of Debian,
iptables-services, ipset-service and nftables of RHEL, iptables and ipset of Arch, Alpine and
Gentoo, shorewall(8), ufw-framework(8), ferm(1), firewalld.direct(5), and what guides write into
/etc/network/interfaces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Form(StrEnum):
    """The language of a file."""

    IPTABLES = "iptables-restore"
    IP6TABLES = "ip6tables-restore"
    NFT = "nft"
    IPSET = "ipset restore"
    OTHER = "of its own"


@dataclass(frozen=True, slots=True)
class SavedPlace:
    """A file or glob below the root folder, and the service that loads it.

    `needs` is a program of that service without which it does not look at the file.
    """

    path: str
    form: Form
    service: str
    needs: str | None = None


_IPSET_PLUGIN = "usr/share/netfilter-persistent/plugins.d/10-ipset"

PLACES = (
    SavedPlace("etc/iptables/rules.v4", Form.IPTABLES, "netfilter-persistent"),
    SavedPlace("etc/iptables/rules.v6", Form.IP6TABLES, "netfilter-persistent"),
    SavedPlace("etc/iptables/ipsets", Form.IPSET, "netfilter-persistent", _IPSET_PLUGIN),
    SavedPlace("etc/sysconfig/iptables", Form.IPTABLES, "iptables"),
    SavedPlace("etc/sysconfig/ip6tables", Form.IP6TABLES, "ip6tables"),
    SavedPlace("etc/sysconfig/ipset", Form.IPSET, "ipset"),
    SavedPlace("etc/sysconfig/ipset.d/*.set", Form.IPSET, "ipset"),
    SavedPlace("etc/sysconfig/nftables.conf", Form.NFT, "nftables"),
    SavedPlace("etc/nftables.conf", Form.NFT, "nftables"),
    SavedPlace("etc/nftables.nft", Form.NFT, "nftables"),
    SavedPlace("var/lib/nftables/rules-save", Form.NFT, "nftables"),
    SavedPlace("etc/iptables/iptables.rules", Form.IPTABLES, "iptables"),
    SavedPlace("etc/iptables/ip6tables.rules", Form.IP6TABLES, "ip6tables"),
    SavedPlace("etc/ipset.conf", Form.IPSET, "ipset"),
    SavedPlace("etc/iptables/rules-save", Form.IPTABLES, "iptables"),
    SavedPlace("etc/iptables/rules6-save", Form.IP6TABLES, "ip6tables"),
    SavedPlace("var/lib/iptables/rules-save", Form.IPTABLES, "iptables"),
    SavedPlace("var/lib/ip6tables/rules-save", Form.IP6TABLES, "ip6tables"),
    SavedPlace("var/lib/ipset/rules-save", Form.IPSET, "ipset"),
    SavedPlace("var/lib/shorewall/restore-iptables", Form.IPTABLES, "shorewall"),
    SavedPlace("var/lib/shorewall6/restore-iptables", Form.IP6TABLES, "shorewall6"),
    SavedPlace("etc/ufw/*.rules", Form.IPTABLES, "ufw"),
    SavedPlace("etc/iptables.rules", Form.IPTABLES, "networking"),
    SavedPlace("etc/ip6tables.rules", Form.IP6TABLES, "networking"),
    SavedPlace("etc/iptables.up.rules", Form.IPTABLES, "networking"),
    SavedPlace("etc/ip6tables.up.rules", Form.IP6TABLES, "networking"),
    SavedPlace("etc/iptables.conf", Form.IPTABLES, "networking"),
    SavedPlace("etc/ferm/ferm.conf", Form.OTHER, "ferm"),
    SavedPlace("etc/firewalld/direct.xml", Form.OTHER, "firewalld"),
)

# A folder may hold anything that somebody has put there.
_MOST_FILES = 64


def files_of(root: Path, place: SavedPlace) -> Iterator[Path]:
    """Yield the files of a place that are there, links included; never more than 64."""
    if place.needs is not None and not (root / place.needs).exists():
        return
    if "*" not in place.path:
        if (root / place.path).exists() or (root / place.path).is_symlink():
            yield root / place.path
        return
    folder, _, pattern = place.path.rpartition("/")
    try:
        yield from sorted(islice((root / folder).glob(pattern), _MOST_FILES))
    except OSError:
        return


def starts_at_boot(root: Path, service: str) -> bool:
    """Tell whether systemd or an init script of this root folder starts a service.

    Read from the links that `systemctl enable` and `update-rc.d` make (systemctl(1)).
    """
    units = root / "etc/systemd/system"
    name = re.escape(service)
    try:
        linked = any(
            (folder / f"{service}.service").is_symlink()
            for kind in ("wants", "requires")
            for folder in islice(units.glob(f"*.{kind}"), _MOST_FILES)
        )
        return linked or any(
            re.fullmatch(rf"S\d\d{name}", link.name)
            for pattern in ("etc/rc[S2345].d", "etc/rc.d/rc[S2345].d")
            for folder in root.glob(pattern)
            for link in islice(folder.iterdir(), 1000)
        )
    except OSError:
        return False
