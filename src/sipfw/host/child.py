"""Command lines of processes of our own: a fresh interpreter that runs one function of sipfw."""

from __future__ import annotations

import sys

from sipfw.resources import import_root

_START = (
    "import sys; root, module, function = sys.argv[1:4]; del sys.argv[1:4]; "
    "root in sys.path or sys.path.insert(0, root); "
    "from importlib import import_module; getattr(import_module(module), function)()"
)


def child_command(module: str, function: str, *arguments: str) -> list[str]:
    """Return the command that calls `function` of `module`, with its `arguments` in `sys.argv`.

    `-I` keeps the caller's directory and every PYTHON* variable out of it. The folder of this
    package is handed over, since a checkout is not on the isolated path.
    """
    return [sys.executable, "-I", "-c", _START, import_root(), module, function, *arguments]
