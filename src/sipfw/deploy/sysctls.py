"""Kernel settings: set now, made permanent in one file of ours, taken back on remove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.host.files import Layout, write_atomically
from sipfw.host.settings import read_sysctl
from sipfw.render.sysctl import sysctl_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.ruleset.model import Sysctl

_PROC = Path("/proc/sys")


def apply_sysctls(sysctls: Sequence[Sysctl], layout: Layout) -> list[Diagnostic]:
    """Set and persist; what this namespace may not set is a warning.

    The values from before the first apply are kept, so that a later apply does not take ours
    for the host's own. A setting that the policy no longer makes gets its own value back.
    """
    warnings = []
    before = own_values(layout)
    current = {item.name: read_sysctl(item.name) for item in sysctls}
    own = {name: value for name, value in current.items() if value is not None} | before
    dropped = {name: value for name, value in before.items() if name not in current}
    # First the record: a kill between the two must not make our value the host's own.
    _remember(layout, before, own)
    for item in sysctls:
        if current[item.name] is None:
            warnings.append(_warning(item, "this kernel does not have it (yet)"))
        elif current[item.name] != item.value:
            problem = _write(item.name, item.value)
            if problem is not None:
                warnings.append(_warning(item, problem))
    warnings += _give_back(dropped)
    write_atomically(layout.sysctl_file, sysctl_text(sysctls), mode=0o644)
    _remember(layout, own, {name: value for name, value in own.items() if name not in dropped})
    return warnings


def _remember(layout: Layout, known: dict[str, int], own: dict[str, int]) -> None:
    if own != known or not layout.sysctl_before.exists():
        write_atomically(layout.sysctl_before, json.dumps(own, indent=2) + "\n")


def remove_sysctls(layout: Layout) -> list[Diagnostic]:
    """Give the host its own values back and delete our file."""
    warnings = _give_back(own_values(layout))
    layout.sysctl_file.unlink(missing_ok=True)
    layout.sysctl_before.unlink(missing_ok=True)
    return warnings


def _give_back(own: dict[str, int]) -> list[Diagnostic]:
    warnings = []
    for name, value in own.items():
        if read_sysctl(name) in (None, value):
            continue
        problem = _write(name, value)
        if problem is not None:
            message = f"{name} cannot be set back to {value}: {problem}"
            warnings.append(Diagnostic(message, severity=Severity.WARNING))
    return warnings


def _write(name: str, value: int) -> str | None:
    try:
        (_PROC / name.replace(".", "/")).write_text(f"{value}\n", encoding="ascii")
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None if read_sysctl(name) == value else "the kernel keeps its own value"


def _warning(item: Sysctl, reason: str) -> Diagnostic:
    message = f"{item.name} = {item.value} not set: {reason}"
    return Diagnostic(message, item.origin.field, severity=Severity.WARNING)


def own_values(layout: Layout) -> dict[str, int]:
    """Return the host's values from before the first apply. Raises BackendError."""
    try:
        data = json.loads(layout.sysctl_before.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BackendError(
            f"{layout.sysctl_before}: cannot be read: {error}",
            hint="it holds the host's own values; mend or delete it",
        ) from error
    if not isinstance(data, dict):
        raise BackendError(
            f"{layout.sysctl_before}: cannot be read: not a record of settings",
            hint="it holds the host's own values; mend or delete it",
        )
    # Only settings of connection tracking are ever ours: a damaged file must not set others.
    return {
        name: value
        for name, value in data.items()
        if isinstance(name, str)
        and name.startswith("net.netfilter.nf_conntrack_")
        and isinstance(value, int)
    }
