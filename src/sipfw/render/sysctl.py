"""Kernel settings as a file for /etc/sysctl.d. Decides no value and writes no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.render.environment import render_template

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sipfw.ruleset.model import Sysctl


def sysctl_text(sysctls: Sequence[Sysctl], template_dir: Path | None = None) -> str:
    """Return a sysctl.d file."""
    return render_template("sysctl.conf.j2", template_dir, sysctls=sysctls)
