"""What host names meant when they were last resolved: the stand-in for a DNS that is down.

One file of root's. A name in it without addresses was asked for and never had one; a name that is
not in it may be in force all the same, because the file was lost.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from sipfw.deploy.names.answers import Standards
from sipfw.deploy.names.grace import KnownName, NameAddress, followed, is_due, still
from sipfw.deploy.names.resolve import (
    ADMINS,
    DEADLINE,
    PEERS,
    TRUSTS,
    may_be_a_peer,
    name_of,
    resolve,
)
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.host.files import read_private, write_atomically
from sipfw.words import format_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sipfw.deploy.names.resolve import Address, Lookup
    from sipfw.host.files import Layout

FORMAT = 2
# Before SRV was followed: bare addresses, and no word about where they came from.
_FIRST_FORMAT = 1
# A name that no policy has asked for in so long is forgotten.
_KEPT = 90 * 86400
# Two host names, a service and a port.
_LONGEST_VIA = 600

_UNTRUSTED = {
    PEERS: "the peer is not trusted until it has",
    ADMINS: "nobody gets in by it until it has",
    TRUSTS: "nobody is trusted by it until it has",
}
_LOST = "what is live stays, because what the name had before is not on file"


@dataclass(frozen=True, slots=True)
class Stale:
    """A name that has no answer now; what it meant `age` seconds ago stands in for it.

    `age` is None where the clock has gone back since.
    """

    name: str
    reason: str
    age: float | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """Addresses by name, and the names that have none with the reason.

    The addresses of `stale` names are the last good ones. `known` is what is to be kept on file,
    `remarks` what is worth saying of a name, `uses` the field each name stands in.
    """

    addresses: Mapping[str, tuple[Address, ...]]
    failures: tuple[tuple[str, str], ...] = ()
    stale: tuple[Stale, ...] = ()
    known: Mapping[str, KnownName] = field(default_factory=dict)
    remarks: tuple[tuple[str, str], ...] = ()
    uses: Mapping[str, str] = field(default_factory=dict)


def read_names(layout: Layout) -> dict[str, KnownName]:
    """Return the last good answers. A file that cannot be trusted is as good as none."""
    try:
        data = json.loads(read_private(layout.names))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict) or data.get("format") not in {FORMAT, _FIRST_FORMAT}:
        return {}
    read = _known if data["format"] == FORMAT else _known_before
    names = data.get("names")
    found = names.items() if isinstance(names, dict) else ()
    known = {name: read(item) for name, item in found}
    return {name: item for name, item in known.items() if item is not None}


def remember(layout: Layout, resolution: Resolution, *, now: float | None = None) -> None:
    """Keep what was resolved, and that a name never was. Raises BackendError on a full disk."""
    if not (resolution.known or resolution.failures):
        return
    moment = time.time() if now is None else now
    known = read_names(layout)
    asked = {*resolution.known, *(name for name, _ in resolution.failures)}
    kept = {
        name: item
        for name, item in known.items()
        if name in asked or abs(moment - item.time) < _KEPT
    }
    kept |= {name: KnownName((), moment) for name, _ in resolution.failures if name not in kept}
    kept |= resolution.known
    if kept == known:
        return
    data = {"format": FORMAT, "names": {name: _data(item) for name, item in kept.items()}}
    write_atomically(layout.names, json.dumps(data, indent=1, sort_keys=True) + "\n")


def resolve_or_recall(
    names: Mapping[str, str],
    known: Mapping[str, KnownName],
    bounds: Standards | None = None,
    *,
    due_only: bool = False,
    lookup: Lookup | None = None,
    deadline: float = DEADLINE,
    now: float | None = None,
) -> Resolution:
    """Look names up, given with their fields; one without a usable answer keeps its last good one.

    With `due_only` those whose answer still counts are not asked.
    """
    moment = time.time() if now is None else now
    held = bounds or Standards()
    longest = held.names.max_ttl
    asked = [n for n in names if not due_only or is_due(known.get(n), moment, longest)]
    answers = resolve(asked, lookup=lookup, deadline=deadline)
    after: dict[str, KnownName] = {}
    failures: list[tuple[str, str]] = []
    stale: list[Stale] = []
    remarks: list[tuple[str, str]] = []
    for name, use in names.items():
        item, found = known.get(name), answers.get(name)
        answer = found if isinstance(found, str | None) else held.judge(name, use, found)
        if not isinstance(answer, str | None):
            after[name], said = followed(item, answer, moment, held, admin=use == ADMINS)
            remarks += [(name, text) for text in said]
        elif item is not None and item.members:
            after[name] = still(item, moment, held, admin=use == ADMINS)
            if answer is not None:
                age = moment - item.time
                stale.append(Stale(name, answer, age if age >= 0 else None))
        else:
            failures.append((name, answer or "not asked"))
    addresses = {name: item.addresses for name, item in after.items()}
    return Resolution(
        addresses, tuple(sorted(failures)), tuple(stale), after, tuple(remarks), names
    )


def recalled(names: Iterable[str], known: Mapping[str, KnownName]) -> Resolution:
    """Return the last good addresses without asking anybody."""
    found = {name: known[name] for name in names if name in known and known[name].members}
    failures = tuple((name, "DNS was not asked") for name in names if name not in found)
    return Resolution({name: item.addresses for name, item in found.items()}, failures)


def resolution_warnings(resolution: Resolution, lost: Collection[str] = ()) -> list[Diagnostic]:
    """Warn of every name that has no answer now. What `lost` names had is live, but not on file."""
    uses = resolution.uses
    found = []
    for name, reason in resolution.failures:
        effect = _LOST if name in lost else _UNTRUSTED[uses.get(name, PEERS)]
        found.append((name, f"'{name_of(name)}' has no address now ({reason}); {effect}"))
    found += [
        (item.name, _stale_text(item, resolution.addresses[item.name])) for item in resolution.stale
    ]
    found += [(name, f"'{name_of(name)}': {text}") for name, text in resolution.remarks]
    return [
        Diagnostic(text, uses.get(name, PEERS), severity=Severity.WARNING) for name, text in found
    ]


def _stale_text(item: Stale, addresses: Iterable[Address]) -> str:
    shown = ", ".join(str(address.network_address) for address in addresses)
    return (
        f"'{name_of(item.name)}' has no address now ({item.reason}); its last good ones stay "
        f"trusted: {shown}, {age_text(item.age)}"
    )


def age_text(seconds: float | None) -> str:
    """Say how old something is."""
    if seconds is None:
        return "of unknown age, because the clock has gone back"
    return f"{format_duration(seconds)} old"


def _known(item: Any) -> KnownName | None:
    """Return an entry; None for one that this module did not write."""
    if not isinstance(item, dict) or set(item) != {"addresses", "time", "due"}:
        return None
    moments = (item["time"], item["due"])
    members = _members(item["addresses"])
    if members is None or any(type(moment) not in {int, float} for moment in moments):
        return None
    return KnownName(members, *map(float, moments))


def _known_before(item: Any) -> KnownName | None:
    """Read an entry of the first format."""
    if not isinstance(item, dict) or set(item) != {"addresses", "time"}:
        return None
    texts = item["addresses"]
    if not isinstance(texts, list):
        return None
    members = [{"address": text, "via": "", "missing": None} for text in texts]
    return _known({"addresses": members, "time": item["time"], "due": 0})


def _members(items: Any) -> tuple[NameAddress, ...] | None:
    if not isinstance(items, list):
        return None
    found = [_member(item) for item in items]
    return None if None in found else tuple(member for member in found if member is not None)


def _member(item: Any) -> NameAddress | None:
    if not isinstance(item, dict) or set(item) != {"address", "via", "missing"}:
        return None
    text, via, missing = item["address"], item["via"], item["missing"]
    sound = (
        isinstance(text, str)
        and isinstance(via, str)
        and via.isprintable()
        and len(via) <= _LONGEST_VIA
        and type(missing) in {int, float, type(None)}
    )
    if not sound:
        return None
    try:
        network = ip_network(text)
    except ValueError:
        return None
    # What may not be named in a policy must not come in by this file either.
    fit = network.num_addresses == 1 and may_be_a_peer(network.network_address)
    return NameAddress(network, via, missing) if fit else None


def _data(item: KnownName) -> dict[str, Any]:
    members = [
        {"address": str(m.network.network_address), "via": m.via, "missing": m.missing}
        for m in item.members
    ]
    return {"addresses": members, "time": item.time, "due": item.due}
