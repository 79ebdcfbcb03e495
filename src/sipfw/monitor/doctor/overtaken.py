"""What takes out the rules of others that let packets past a jump of ours.

An apply leaves them where they are (docs/decisions/0006), so that it would mend nothing.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from sipfw.compare.drift import PASSED, DriftKind
from sipfw.kernel.xtables.foreign import deletion
from sipfw.monitor.doctor.findings import CannotTellError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.compare.drift import Drift
    from sipfw.monitor.doctor.host import HostView
    from sipfw.monitor.doctor.rules import XtablesListing


def is_overtaken(item: Drift) -> bool:
    """Tell whether a difference is a rule before a jump of ours."""
    return item.kind is DriftKind.MOVED and item.what == "jump" and item.detail.startswith(PASSED)


def removals(host: HostView, found: Sequence[Drift]) -> list[str]:
    """Return the commands; none for a rule that is not there any more."""
    try:
        listings = host.rules.xtables
    except CannotTellError:
        return []
    wanted = [item for item in found if is_overtaken(item)]
    return list(dict.fromkeys(word for item in wanted for word in _removals(item, listings)))


def _removals(item: Drift, listings: Sequence[XtablesListing]) -> Iterator[str]:
    """Look the named rule up, or the inner one that it leads to: its words are somebody else's."""
    version, _, place = item.where.partition(" ")
    text = item.detail.removeprefix(PASSED)
    for listing in listings:
        family = "IPv6" if listing.program.startswith("ip6") else "IPv4"
        if (family, listing.table) != (version, place.split()[0]):
            continue
        lines = {rule.line for chain in listing.chains if not chain.ours for rule in chain.rules}
        line = text if text in lines else text.rpartition(" and there ")[2]
        if line in lines:
            words = shlex.join([listing.program, "-t", listing.table, *deletion(line)])
            if words.isprintable():
                yield words
