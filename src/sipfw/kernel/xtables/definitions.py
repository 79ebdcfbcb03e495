"""How our ipsets are made, for the comparison of two kernels' words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.kernel.xtables.ipset import OUR_PREFIX, Ipsets
from sipfw.kernel.xtables.ipset_text import header_options

if TYPE_CHECKING:
    from sipfw.compare.deep import Definitions
    from sipfw.host.runner import Runner


def definitions(runner: Runner) -> Definitions:
    """Return type and options of each set of our name."""
    found: dict[str, tuple[str, ...]] = {}
    for item in Ipsets(runner).list_if_installed():
        if item.name.startswith(OUR_PREFIX):
            options = header_options(item.header, item.type)
            found[item.name] = tuple(f"{name} {value}".strip() for name, value in options.items())
    return found
