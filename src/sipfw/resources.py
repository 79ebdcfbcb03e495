"""Finds the shipped templates, profiles and data, in an installed wheel or in a checkout.

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


def data_file(name: str) -> Path:
    """Return the path of a file in `sipfw/data`."""
    return _PACKAGE / "data" / name
