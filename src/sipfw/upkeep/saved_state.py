"""Judges whether the saved files that hold rules of ours will be loaded at the next boot.

If not, it names the command that mends that. Changes nothing.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.service import boot_parts
from sipfw.diagnostics import Diagnostic, Location, Severity
from sipfw.saved.find import find
from sipfw.saved.places import PLACES, Form, starts_at_boot

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sipfw.host.files import Layout
    from sipfw.saved.find import Saved

INSTALL = "sipfw install-service"


@dataclass(frozen=True, slots=True)
class SavedVerdict:
    """What is true of one file; a warning where something is lost at boot, else a note."""

    diagnostic: Diagnostic
    fix: str | None = None


def judged(layout: Layout) -> tuple[SavedVerdict, ...]:
    """Return a verdict for every file that is about us, and for every one that cannot be read."""
    found = find(layout.root)
    parts = boot_parts(layout)
    verdicts = [_verdict(item, found.made, parts) for item in found.saved]
    verdicts += [
        SavedVerdict(_said(item.reason, None, None, Severity.NOTE)) for item in found.unread
    ]
    return tuple(verdicts)


def warnings(layout: Layout) -> list[Diagnostic]:
    """Return what an apply or a removal should say of saved files, each with its command."""
    return [
        Diagnostic(
            item.diagnostic.message + (f"; fix: {item.fix}" if item.fix else ""),
            location=item.diagnostic.location,
            severity=Severity.WARNING,
        )
        for item in judged(layout)
        if item.diagnostic.severity is Severity.WARNING
    ]


def savers(layout: Layout) -> tuple[str, ...]:
    """Name the services of this host that load saved rules at boot."""
    names = dict.fromkeys(place.service for place in PLACES if place.form is not Form.OTHER)
    shown = (name for name in names if name not in {"networking", "ufw"})
    return tuple(name for name in shown if starts_at_boot(layout.root, name))


def unprepared(layout: Layout) -> list[Diagnostic]:
    """Say, where a service loads saved rules and our units are missing, what they are for."""
    loaders = savers(layout)
    if not loaders or "sets" in boot_parts(layout):
        return []
    message = (
        f"{' and '.join(loaders)} load{'s' if len(loaders) == 1 else ''} saved rules at boot; "
        "rules of sipfw that are saved with them are refused there, and all others with them, "
        f"unless sipfw's units are installed: {INSTALL}"
    )
    return [Diagnostic(message, severity=Severity.NOTE)]


def _verdict(item: Saved, made: frozenset[str], parts: Iterable[str]) -> SavedVerdict:
    clean = f"sipfw saved --clean {shlex.quote(str(item.path))}"
    when = f"{item.service} loads it at boot" if item.at_boot else f"{item.service} may load it"
    if item.form is Form.OTHER:
        text = f"names rules of sipfw, which has its own start; {when}"
        return SavedVerdict(_said(text, item.path, item.line, Severity.NOTE))
    missing = [each.name for each in item.sets if each.name not in made]
    if not missing and not item.unloadable:
        text = f"holds rules of sipfw; {when}, and sipfw replaces them"
        return SavedVerdict(_said(text, item.path, item.line, Severity.NOTE))
    return _lost(item, missing, set(parts), clean, when)


def _lost(item: Saved, missing: list[str], parts: set[str], clean: str, when: str) -> SavedVerdict:
    """Say what becomes of a file that its service cannot load alone."""
    why = (
        "nft cannot read its own listing of sipfw's text searches"
        if item.unloadable
        else f"set {missing[0]} and {len(missing) - 1} more are not there then"
        if len(missing) > 1
        else f"set {missing[0]} is not there then"
    )
    needed = "load" if item.unloadable else "sets"
    if not item.at_boot:
        text = f"cannot be loaded with the rules of sipfw in it: {why}; {when}"
        return SavedVerdict(_said(text, item.path, item.line, Severity.NOTE), clean)
    if needed in parts:
        helped = (
            f"{item.service} fails, and sipfw then loads the rest of the file"
            if item.unloadable
            else "sipfw makes the sets before"
        )
        text = f"holds rules of sipfw; {helped}, and replaces its own rules"
        fix = clean if item.unloadable else None
        return SavedVerdict(_said(text, item.path, item.line, Severity.NOTE), fix)
    text = f"{when}, and nothing of it will be in force, because sipfw's rules are in it: {why}"
    return SavedVerdict(
        _said(text, item.path, item.line, Severity.WARNING),
        INSTALL if "possible" in parts else clean,
    )


def _said(text: str, path: Path | None, line: int | None, severity: Severity) -> Diagnostic:
    location = None if path is None else Location(str(path), line)
    return Diagnostic(text, location=location, severity=severity)
