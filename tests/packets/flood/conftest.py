"""A registrar and people around the switch, for each test anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.flood.town import Town

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Family, Lab


@pytest.fixture
def town(lab: Lab, family: Family) -> Iterator[Town]:
    with Town(lab, family) as built:
        yield built
