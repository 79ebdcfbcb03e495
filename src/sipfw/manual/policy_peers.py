"""Peers in the policy file: a change is made as text, checked as a policy, and then written."""

from __future__ import annotations

import difflib
import tempfile
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Location
from sipfw.errors import PolicyError
from sipfw.host.owned_files import read_owned, replace_owned
from sipfw.policy.edit import add_to_peer, remove_from_peer
from sipfw.policy.load import Request, load
from sipfw.policy.types import Hostname, parse_identifier, parse_peer_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sipfw.policy.model import Peer, Policy
    from sipfw.policy.types import Network
    from sipfw.ruleset.addresses import IpAddress


@dataclass(frozen=True, slots=True)
class Edit:
    """A checked change of a policy file; `diff` is for people."""

    file: Path
    before: bytes
    after: str
    remarks: tuple[Diagnostic, ...]

    @property
    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff, without what a terminal could obey."""
        old = self.before.decode("utf-8").splitlines()
        lines = difflib.unified_diff(
            old, self.after.splitlines(), str(self.file), str(self.file), lineterm=""
        )
        for line in lines:
            yield "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)

    def write(self) -> None:
        """Write it. Raises BackendError where somebody has changed the file since it was read."""
        replace_owned(self.file, self.before, self.after)


def adding(file: Path, name: str, addresses: Sequence[str]) -> Edit:
    """Prepare to add addresses, networks or host names to a peer, new or known.

    Raises PolicyError for what is none, and for a policy that would not be sound.
    """
    return _edit(file, name, addresses, add_to_peer)


def removing(file: Path, name: str, addresses: Sequence[str]) -> Edit:
    """Prepare to take these out of a peer, or the whole peer. Raises PolicyError."""
    return _edit(file, name, addresses, remove_from_peer)


def whose(
    policy: Policy, address: IpAddress, names: Mapping[str, Sequence[Network]]
) -> tuple[Peer, ...]:
    """Return the peers that send SIP from an address; `names` are the answers of DNS by key."""
    return tuple(peer for peer in policy.trusted_peers if _covers(peer, address, names))


def _covers(peer: Peer, address: IpAddress, names: Mapping[str, Sequence[Network]]) -> bool:
    networks: list[Network] = []
    for entry in peer.signalling:
        networks += names.get(entry.key, ()) if isinstance(entry, Hostname) else [entry]
    wanted = ip_network(address)
    return any(n.version == wanted.version and address in n for n in networks)


def _edit(
    file: Path,
    name: str,
    addresses: Sequence[str],
    change: Callable[[str, str, Sequence[str], str], str],
) -> Edit:
    _require_sound(name, addresses)
    before = read_owned(file)
    try:
        text = before.decode("utf-8")
    except UnicodeDecodeError as error:
        fault = Diagnostic("not UTF-8 text; save the policy as plain text", "", Location(str(file)))
        raise PolicyError([fault]) from error
    after = change(text, name, list(dict.fromkeys(addresses)), str(file))
    return Edit(file, before, after, _checked(file, after))


def _require_sound(name: str, addresses: Sequence[str]) -> None:
    said = [_fault(parse_identifier, name), *(_fault(parse_peer_address, a) for a in addresses)]
    faults = [fault for fault in said if fault is not None]
    if faults:
        raise PolicyError(faults)


def _fault(read: Callable[[str], object], text: str) -> Diagnostic | None:
    try:
        read(text)
    except ValueError as error:
        return Diagnostic(str(error), location=Location("command line"))
    return None


def _checked(file: Path, text: str) -> tuple[Diagnostic, ...]:
    """Load the new text as the policy that it would be; the messages name the file itself."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "policy.yaml"
        copy.write_text(text, encoding="utf-8", newline="")
        copy.chmod(0o600)
        try:
            loaded = load(Request(copy))
        except PolicyError as error:
            faults = [_moved(item, copy, file) for item in error.diagnostics]
            raise PolicyError(faults) from error
        return tuple(_moved(item, copy, file) for item in loaded.remarks)


def _moved(item: Diagnostic, copy: Path, file: Path) -> Diagnostic:
    message = item.message.replace(str(copy), str(file))
    place = item.location
    if place is not None and place.file == str(copy):
        place = Location(str(file), place.line)
    return replace(item, message=message, location=place)
