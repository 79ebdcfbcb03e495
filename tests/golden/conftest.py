"""`pytest tests/golden --update-golden` rewrites the expected files instead of comparing.

The folder must be named: pytest reads options from this file only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")
