"""Which policy file the firewall in force was made from, so that no command forgets it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sipfw.deploy.activate import current
from sipfw.deploy.applied import read_record
from sipfw.deploy.generations import Damaged, read_generation
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.host.files import Layout

# A source names what was merged, lowest first: `switch x, profile y, FILE, command line`. What the
# names of shipped files may be made of is known; a path may hold anything.
_SHIPPED = re.compile(r"\A(?:switch [a-z0-9-]+(?:, |\Z))?(?:profile [a-z0-9-]+(?:, |\Z))?")
_OPTIONS = re.compile(r"(?:\A|, )command line\Z")


def policy_file(source: str) -> str | None:
    """Return the file in the source of a generation, as it was named; None for shipped values."""
    return _OPTIONS.sub("", _SHIPPED.sub("", source)) or None


def policy_file_in_force(layout: Layout) -> str | None:
    """Return the file that the firewall in force was made from.

    None where nothing is in force, where it has shipped values, or where only root may look.
    """
    try:
        source = read_record(layout, lambda data: str(data["source"]))
    except BackendError:
        source = _source_of_generation(layout)
    return None if source is None else policy_file(source)


def _source_of_generation(layout: Layout) -> str | None:
    """Return what the generation says where the record cannot be read."""
    try:
        number = current(layout).generation
        found = None if number is None else read_generation(layout, number)
    except BackendError:
        return None
    return None if found is None or isinstance(found, Damaged) else found.source
