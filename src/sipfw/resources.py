"""Finds the shipped templates and profiles, in an installed wheel or in a checkout.

A wheel carries the top-level `templates/` and `profiles/` as `sipfw/_data/...`; an editable
install has no such folder, so the checkout's own folders are the fallback.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(name: str) -> Path:
    """Return the folder of shipped `templates` or `profiles`.

    Raises FileNotFoundError when the installation is broken.
    """
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent.parent / name):
        if folder.is_dir():
            return folder
    message = f"sipfw's own {name}/ folder is missing; the installation is incomplete"
    raise FileNotFoundError(message)


def import_root() -> str:
    """Return the folder from which this package is imported."""
    return str(_PACKAGE.parent)


def package_folder() -> Path:
    """Return the folder of this package's own code."""
    return _PACKAGE
