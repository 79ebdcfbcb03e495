"""The bundle: one section after the other, each bounded; one that fails is a line in it."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw import __version__
from sipfw.deploy.applied import read_applied
from sipfw.deploy.lists.sets import read_policy
from sipfw.deploy.made_from import policy_file_in_force
from sipfw.deploy.names.resolve import host_names, name_of
from sipfw.errors import BackendError
from sipfw.host.files import Layout, cannot_write
from sipfw.host.privilege import require_root
from sipfw.host.survey import survey
from sipfw.monitor.support.anonymous import Anonymous
from sipfw.monitor.support.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sipfw.host.runner import Runner

MOST_OF_SECTION = 2 << 20
_SECONDS = 60.0
_FOLDER = "sipfw-support"

# Read only. A set of a hundred thousand bans is its head alone (-t).
_PROGRAMS: dict[str, tuple[str, ...]] = {
    "host/uname": ("uname", "-a"),
    "host/iptables": ("iptables", "--version"),
    "host/nft": ("nft", "--version"),
    "host/ipset": ("ipset", "--version"),
    "host/addresses": ("ip", "-br", "address"),
    "host/routes": ("ip", "route", "show", "table", "all"),
    "host/rules": ("ip", "rule"),
    "host/timers": ("systemctl", "list-timers", "--all", "--no-pager", "sipfw*"),
    "host/sysctls": ("sysctl", "-a", "--pattern", r"^net\.(netfilter|ipv[46]\.conf\.all|core)\."),
    "rules/nft": ("nft", "-t", "list", "ruleset"),
    "rules/iptables-nft": ("iptables-nft-save", "-c"),
    "rules/ip6tables-nft": ("ip6tables-nft-save", "-c"),
    "rules/iptables-legacy": ("iptables-legacy-save", "-c"),
    "rules/ip6tables-legacy": ("ip6tables-legacy-save", "-c"),
    "rules/ipset": ("ipset", "list", "-t"),
}
# The legacy programs make the tables that they list (x_tables: iptable_filter_table_init).
_ONLY_WITH = {
    "rules/iptables-legacy": Path("/proc/net/ip_tables_names"),
    "rules/ip6tables-legacy": Path("/proc/net/ip6_tables_names"),
}


@dataclass(frozen=True, slots=True)
class Section:
    """One file of the bundle; `fault` says why it holds less than it should."""

    name: str
    text: str
    fault: str | None = None


def sections(
    layout: Layout, runner: Runner, own: Iterable[tuple[str, Sequence[str]]]
) -> Iterator[Section]:
    """Yield what there is to tell; `own` are commands of sipfw itself, by the name of the file.

    Raises BackendError where root is needed.
    """
    require_root()
    yield Section("versions", _versions())
    for name, path in _files(layout):
        yield _file(name, path)
    for name, argv in own:
        yield _program(runner, f"sipfw/{name}", argv)
    for name, words in _PROGRAMS.items():
        known = _ONLY_WITH.get(name)
        if known is None or (known.exists() and known.read_text("utf-8").strip()):
            yield _program(runner, name, words)


def cleaned(found: Iterable[Section], anonymous: Anonymous | None) -> list[Section]:
    """Return the sections without secrets, and without addresses and names where that is wanted."""
    clean = []
    for item in found:
        text = without_secrets(item.text)
        fault = item.fault
        if anonymous is not None:
            text = anonymous.text(text)
            fault = None if fault is None else anonymous.text(fault)
        clean.append(Section(item.name, text, fault))
    return clean


def names_of(layout: Layout) -> Anonymous:
    """Return what replaces the names that the policy in force has, and this host's own."""
    peers: list[str] = []
    hosts = [os.uname().nodename]
    applied = read_applied(layout)
    if applied is not None and applied.generation is not None:
        policy = read_policy(layout, applied.generation)
        peers = [peer.name for peer in policy.trusted_peers]
        hosts += [name_of(key) for key in host_names(policy)]
    return Anonymous(peers, hosts)


def write_bundle(target: Path, found: Sequence[Section]) -> None:
    """Write the bundle for root alone. Raises BackendError, also where something is there."""
    try:
        # Neither a link nor a file that is there is followed or replaced (open(2)).
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise BackendError(f"{target} exists", hint="name another file with -o") from error
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for item in (*found, _index(found)):
                data = item.text.encode("utf-8", "replace")
                entry = tarfile.TarInfo(f"{_FOLDER}/{item.name}.txt")
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                tar.addfile(entry, io.BytesIO(data))
    except OSError as error:
        target.unlink(missing_ok=True)
        raise cannot_write(target, error) from error


def _index(found: Sequence[Section]) -> Section:
    lines = [
        f"{item.name}: {len(item.text):,} characters{f'; {item.fault}' if item.fault else ''}"
        for item in found
    ]
    return Section("index", "\n".join(lines) + "\n")


def _versions() -> str:
    release = Path("/etc/os-release")
    try:
        lines = release.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    system = next((line for line in lines if line.startswith("PRETTY_NAME=")), "unknown system")
    switch = survey().switch or "none seen"
    return f"sipfw {__version__}\npython {sys.version}\n{system}\nswitch: {switch}\n"


def _files(layout: Layout) -> Iterator[tuple[str, Path]]:
    policy = policy_file_in_force(layout)
    if policy is not None:
        yield "policy/as-written", Path(policy)
    applied = read_applied(layout)
    if applied is not None and applied.generation is not None:
        folder = layout.generations / str(applied.generation)
        yield "policy/in-force", folder / "policy.json"
        yield "policy/listing", folder / "listing.txt"
    if layout.pending.exists():
        yield "policy/change-under-way", layout.pending


def _file(name: str, path: Path) -> Section:
    try:
        # A pipe would never end.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            data = file.read(MOST_OF_SECTION + 1)
    except OSError as error:
        return Section(name, "", f"{path}: {error.strerror}")
    return _bounded(name, data.decode("utf-8", "replace"))


def _program(runner: Runner, name: str, argv: Sequence[str]) -> Section:
    try:
        done = runner.run(list(argv), timeout=_SECONDS)
    except BackendError as error:
        return Section(name, "", str(error))
    text = done.stdout + (f"\n--- stderr\n{done.stderr}" if done.stderr else "")
    found = _bounded(name, text)
    if done.returncode and found.fault is None:
        return Section(name, found.text, f"exit code {done.returncode}")
    return found


def _bounded(name: str, text: str) -> Section:
    if len(text) <= MOST_OF_SECTION:
        return Section(name, text)
    return Section(name, text[:MOST_OF_SECTION], "cut: it is longer than 2 MB")
