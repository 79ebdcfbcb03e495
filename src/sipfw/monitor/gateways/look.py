"""Looks through the files of switches and firewalls below one root, within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Severity
from sipfw.host.bounded_files import OddFileError
from sipfw.kernel.state.connections import sip_talkers
from sipfw.monitor.doctor.findings import AbsentError, CannotTellError
from sipfw.monitor.doctor.host import entries, read_bounded
from sipfw.monitor.gateways.entry import Entry, read_place
from sipfw.monitor.gateways.freeswitch import freeswitch
from sipfw.monitor.gateways.ini_files import asterisk, fail2ban
from sipfw.monitor.gateways.proxies import dispatcher, permissions
from sipfw.saved.accepted_sources import accepted_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from sipfw.host.runner import Runner
    from sipfw.policy.types import Hostname, Network
    from sipfw.ruleset.match import PortRange

    _Reader = Callable[[str], Iterable[Entry]]

_LARGEST = 1 << 20
_MOST_FILES = 64
_MOST = 2000
# Enough to look through; a switch with more has its carriers in its configuration.
_TALKERS = 50
_NETWORKS = (IPv4Network, IPv6Network)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Somebody whom a file of this host names: `where` is `file:line`, `name` as it is written."""

    where: str
    name: str
    places: tuple[Network | Hostname, ...]


def _pasted(text: str) -> Iterator[Entry]:
    for line, name, places in accepted_sources(text):
        yield Entry(line, name, places)


# Folder, names in it, and who reads them. Includes are not followed: what they name is here.
_FILES: tuple[tuple[str, str, _Reader], ...] = (
    ("etc/asterisk", "pjsip*.conf", asterisk),
    ("etc/asterisk", "sip*.conf", asterisk),
    *(
        (f"{folder}/{inner}", "*.xml", freeswitch)
        for folder in ("etc/freeswitch", "usr/local/freeswitch/conf")
        for inner in ("sip_profiles", "sip_profiles/external", "sip_profiles/internal")
    ),
    ("etc/freeswitch/autoload_configs", "acl.conf.xml", freeswitch),
    ("usr/local/freeswitch/conf/autoload_configs", "acl.conf.xml", freeswitch),
    *(
        (folder, name, reader)
        for folder in ("etc/kamailio", "usr/local/etc/kamailio", "etc/opensips")
        for name, reader in (("dispatcher*.list", dispatcher), ("address*.list", permissions))
    ),
    ("etc/fail2ban", "jail.conf", fail2ban),
    ("etc/fail2ban", "jail.local", fail2ban),
    ("etc/fail2ban/jail.d", "*.conf", fail2ban),
    ("etc/fail2ban/jail.d", "*.local", fail2ban),
    ("etc/sysconfig", "ip*tables", _pasted),
    ("etc/iptables", "rules.v[46]", _pasted),
    ("etc", "rc.local", _pasted),
    ("etc/rc.d", "rc.local", _pasted),
    ("root", "*.sh", _pasted),
)


def look_for_gateways(
    root: Path, own: frozenset[Network] = frozenset()
) -> tuple[list[Gateway], list[Diagnostic]]:
    """Return who is named, and a note for each file that cannot be read. Never fails.

    `own` are addresses of this host, which are nobody's gateway.
    """
    found: dict[Gateway, None] = {}
    notes: list[Diagnostic] = []
    left = _MOST
    for path, reader in _files(root, notes):
        for item in _read(path, reader, own, notes):
            left -= len(item.places)
            if left < 0:
                text = f"{item.where}: more than {_MOST:,} addresses are named; no more is read"
                return list(found), [*notes, _note(text)]
            found[item] = None
    return list(found), notes


def _files(root: Path, notes: list[Diagnostic]) -> Iterator[tuple[Path, _Reader]]:
    """Yield the files that are there, at most 64 of a kind."""
    closed = set()
    for folder, pattern, reader in _FILES:
        try:
            names = [name for name in entries(root / folder) if fnmatchcase(name, pattern)]
        except CannotTellError as error:
            if folder not in closed:
                notes.append(_note(f"{error}; its gateways are not known"))
            closed.add(folder)
            continue
        for name in names[:_MOST_FILES]:
            yield root / folder / name, reader


def _read(
    path: Path, reader: _Reader, own: frozenset[Network], notes: list[Diagnostic]
) -> list[Gateway]:
    """Return whom a file names, nobody where it cannot be read."""
    try:
        return [
            Gateway(f"{path}:{entry.line}", entry.name, places)
            for entry in reader(read_bounded(path, _LARGEST))
            if (places := _places(entry, own))
        ]
    except AbsentError:
        pass
    except CannotTellError as error:
        notes.append(_note(f"{error}; its gateways are not known"))
    except OddFileError as error:
        notes.append(_note(f"{path}: {error}; its gateways are not known"))
    return []


def _places(entry: Entry, own: frozenset[Network]) -> tuple[Network | Hostname, ...]:
    read = (read_place(place) for place in entry.places)
    return tuple(dict.fromkeys(place for place in read if place is not None and place not in own))


def look_for_talkers(
    own: Collection[IPv4Address | IPv6Address], ports: Collection[PortRange], runner: Runner
) -> list[Gateway]:
    """Return who has an answered SIP conversation with this host now; none where nobody tells."""
    talking = sip_talkers(own, ports, runner) or []
    networks = (read_place(str(address)) for address in talking)
    return [
        Gateway("the table of connections", f"talks-sip-{place.network_address}", (place,))
        for place in islice((item for item in networks if isinstance(item, _NETWORKS)), _TALKERS)
    ]


def _note(message: str) -> Diagnostic:
    return Diagnostic(message, severity=Severity.NOTE)
