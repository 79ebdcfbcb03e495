"""Who may look at and change the firewall."""

from __future__ import annotations

import os

from sipfw.errors import BackendError


def require_root() -> None:
    """Raise BackendError for anybody but root: netfilter would refuse later and less clearly."""
    if os.geteuid() != 0:
        raise BackendError("only root may see or change the firewall", hint="use sudo")
