"""Kernel settings: set now, made permanent in one file of ours, taken back on remove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.deploy.files import Layout, write_atomically
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.render.sysctl import sysctl_text
from sipfw.verify.host import read_sysctl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.ruleset.model import Sysctl

_PROC = Path("/proc/sys")


def apply_sysctls(sysctls: Sequence[Sysctl], layout: Layout) -> list[Diagnostic]:
    """Set and persist; what this namespace may not set is a warning.

    The values from before the first apply are kept, so that a later apply does not take ours
    for the host's own.
    """
    warnings = []
    before = _read_before(layout)
    for item in sysctls:
        current = read_sysctl(item.name)
        if current is None:
            warnings.append(_warning(item, "this kernel does not have it (yet)"))
            continue
        before.setdefault(item.name, current)
        if current != item.value:
            problem = _write(item.name, item.value)
            if problem is not None:
                warnings.append(_warning(item, problem))
    write_atomically(layout.sysctl_before, json.dumps(before, indent=2) + "\n")
    write_atomically(layout.sysctl_file, sysctl_text(sysctls), mode=0o644)
    return warnings


def remove_sysctls(layout: Layout) -> list[Diagnostic]:
    """Give the host its own values back and delete our file."""
    warnings = []
    for name, value in _read_before(layout).items():
        if read_sysctl(name) in (None, value):
            continue
        problem = _write(name, value)
        if problem is not None:
            warnings.append(
                Diagnostic(
                    f"{name} cannot be set back to {value}: {problem}", severity=Severity.WARNING
                )
            )
    layout.sysctl_file.unlink(missing_ok=True)
    layout.sysctl_before.unlink(missing_ok=True)
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


def _read_before(layout: Layout) -> dict[str, int]:
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
