"""What host names meant when they were last resolved: the stand-in for a DNS that is down.

One file of root's. A name in it without addresses was asked for and never had one; a name that is
not in it may be in force all the same, because the file was lost.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from sipfw.deploy.files import read_private, write_atomically
from sipfw.deploy.resolve import DEADLINE, Resolution, Stale, ask_dns, may_be_a_peer, resolve
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.words import span_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from sipfw.deploy.files import Layout
    from sipfw.deploy.resolve import Address

FORMAT = 1
_FILE = "names.json"
# A name that no policy has asked for in so long is forgotten.
_KEPT = 90 * 86400

_UNTRUSTED = "the peer is not trusted until it has"
_LOST = "what is live stays, because what the name had before is not on file"


@dataclass(frozen=True, slots=True)
class Known:
    """The last good answer, and when it came, in seconds since 1970."""

    addresses: tuple[Address, ...]
    time: float


def names_file(layout: Layout) -> Path:
    """Return where the answers are kept."""
    return layout.state / _FILE


def read_names(layout: Layout) -> dict[str, Known]:
    """Return the last good answers. A file that cannot be trusted is as good as none."""
    try:
        data = json.loads(read_private(names_file(layout)))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return {}
    names = data.get("names")
    found = names.items() if isinstance(names, dict) else ()
    known = {name: _known(item) for name, item in found}
    return {name: item for name, item in known.items() if item is not None}


def remember(layout: Layout, resolution: Resolution, *, now: float | None = None) -> None:
    """Keep what was resolved, and that a name never was. Raises BackendError on a full disk."""
    if not (resolution.addresses or resolution.failures):
        return
    moment = time.time() if now is None else now
    stale = {item.name for item in resolution.stale}
    known = read_names(layout)
    asked = {*resolution.addresses, *(name for name, _ in resolution.failures)}
    kept = {
        name: item
        for name, item in known.items()
        if name in asked or abs(moment - item.time) < _KEPT
    }
    kept |= {name: Known((), moment) for name, _ in resolution.failures if name not in kept}
    kept |= {
        name: Known(addresses, moment)
        for name, addresses in resolution.addresses.items()
        if name not in stale
    }
    data = {name: {"addresses": _texts(item), "time": item.time} for name, item in kept.items()}
    text = json.dumps({"format": FORMAT, "names": data}, indent=1, sort_keys=True)
    write_atomically(names_file(layout), text + "\n")


def resolve_or_recall(
    names: Iterable[str],
    known: Mapping[str, Known],
    *,
    lookup: Callable[[str], list[str]] = ask_dns,
    deadline: float = DEADLINE,
    now: float | None = None,
) -> Resolution:
    """Look names up; one without a usable answer keeps its last good addresses."""
    answer = resolve(names, lookup=lookup, deadline=deadline)
    moment = time.time() if now is None else now
    addresses = dict(answer.addresses)
    failures: list[tuple[str, str]] = []
    stale: list[Stale] = []
    for name, reason in answer.failures:
        item = known.get(name)
        if item is None or not item.addresses:
            failures.append((name, reason))
            continue
        addresses[name] = item.addresses
        age = moment - item.time
        stale.append(Stale(name, reason, age if age >= 0 else None))
    return Resolution(addresses, tuple(failures), tuple(stale))


def recalled(names: Iterable[str], known: Mapping[str, Known]) -> Resolution:
    """Return the last good addresses without asking anybody."""

    def nobody(_: str) -> list[str]:
        raise OSError("DNS was not asked")

    return resolve_or_recall(names, known, lookup=nobody)


def resolution_warnings(resolution: Resolution, lost: Collection[str] = ()) -> list[Diagnostic]:
    """Warn of every name that has no answer now. What `lost` names had is live, but not on file."""
    messages = [
        f"'{name}' has no address now ({reason}); {_LOST if name in lost else _UNTRUSTED}"
        for name, reason in resolution.failures
    ]
    messages += [_stale_text(item, resolution.addresses[item.name]) for item in resolution.stale]
    return [Diagnostic(text, "trusted_peers", severity=Severity.WARNING) for text in messages]


def _stale_text(item: Stale, addresses: Iterable[Address]) -> str:
    shown = ", ".join(str(address.network_address) for address in addresses)
    return (
        f"'{item.name}' has no address now ({item.reason}); its last good ones stay trusted: "
        f"{shown}, {age_text(item.age)}"
    )


def age_text(seconds: float | None) -> str:
    """Say how old something is."""
    if seconds is None:
        return "of unknown age, because the clock has gone back"
    return f"{span_text(seconds)} old"


def _known(item: Any) -> Known | None:
    """Return an entry; None for one that this module did not write."""
    if not isinstance(item, dict) or set(item) != {"addresses", "time"}:
        return None
    texts, moment = item["addresses"], item["time"]
    if not isinstance(texts, list) or type(moment) not in {int, float}:
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    try:
        addresses = tuple(ip_network(text) for text in texts)
    except ValueError:
        return None
    # What may not be named in a policy must not come in by this file either.
    fit = all(
        network.num_addresses == 1 and may_be_a_peer(network.network_address)
        for network in addresses
    )
    return Known(addresses, float(moment)) if fit else None


def _texts(item: Known) -> list[str]:
    return [str(address.network_address) for address in item.addresses]
