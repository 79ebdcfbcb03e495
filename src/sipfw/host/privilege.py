"""Who asks, and whether he may."""

from __future__ import annotations

import os
import re

from sipfw.errors import BackendError

# What `who` gives, and what may stand in a file as its answer.
WHO = re.compile(r"[A-Za-z0-9_.@-]{1,64}|uid [0-9]{1,10}")


def require_root() -> None:
    """Raise BackendError for anybody but root: netfilter would refuse later and less clearly."""
    if os.geteuid() != 0:
        raise BackendError("only root may see or change the firewall", hint="use sudo")


def who() -> str:
    """Name who asks: sudo's user, for what it is worth, or the user id."""
    user = os.environ.get("SUDO_USER", "")
    return user if WHO.fullmatch(user) else f"uid {os.getuid()}"
