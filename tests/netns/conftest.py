"""Commands of these tests write legacy tables unless they say otherwise.

The tests read what is live with the legacy tools; what `auto` chooses is the subject of
test_backend_choice alone.
"""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _legacy_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIPFW_BACKEND", "iptables-legacy")
