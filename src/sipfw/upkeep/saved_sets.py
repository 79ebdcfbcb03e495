"""Makes the sets that saved rules of other programs name, empty, before those are loaded.

`iptables-restore` loads all of a file or nothing, and a rule for a set that does not exist is a
fault. `iptables-save` has saved our rules with the host's own, and no set with them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from sipfw.deploy.activate import Firewall, standing, stored
from sipfw.deploy.generations import Generation, list_generations
from sipfw.errors import BackendError
from sipfw.host.privilege import require_root
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.xtables.ipset import Ipsets
from sipfw.lower import iptables
from sipfw.lower.naming import set_family
from sipfw.lower.xtables import Family, XSet
from sipfw.saved.find import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.host.files import Layout
    from sipfw.host.runner import Runner
    from sipfw.saved.xtables_dump import NamedSet

# A file was saved under one of the last firewalls; reading each takes a moment of the boot.
_GENERATIONS = 5
# No firewall of ours has half as many; a file may name any number.
_MOST = 512
_TYPES = {1: "hash:net", 2: "hash:ip,port", 3: "hash:ip,port,ip"}


def make_sets(layout: Layout, runner: Runner | None = None) -> tuple[str, ...]:
    """Make the missing sets and return their names; what is there stays as it is.

    Raises BackendError.
    """
    require_root()
    found = find(layout.root)
    wanted = {item.name: item for saved in found.saved for item in saved.sets}
    # What a file of `ipset save` makes must be made by it: with other options it would fail.
    for name in found.made:
        wanted.pop(name, None)
    if not wanted:
        return ()
    sets = Ipsets(runner or SubprocessRunner())
    for item in sets.list_sets():
        wanted.pop(item.name, None)
    made = list(_sets(layout, islice(wanted.values(), _MOST)))
    sets.load(made)
    return tuple(item.name for item in made)


def _sets(layout: Layout, wanted: Iterable[NamedSet]) -> Iterator[XSet]:
    """Yield each set as a stored firewall has it, else as the rule that names it needs it."""
    missing = {item.name: item for item in wanted}
    for known in _stored(layout):
        for name in [name for name in missing if name in known]:
            del missing[name]
            yield known[name]
        if not missing:
            return
    for item in missing.values():
        family = "inet6" if set_family(item.name) is Family.IP6 else "inet"
        kind = _TYPES.get(item.dimension, _TYPES[1])
        # A rule that adds to it may give a timeout, which only a set with timeouts takes.
        yield XSet(item.name, kind, ("family", family, "timeout", "3600"), (), static=False)


def _stored(layout: Layout) -> Iterator[dict[str, XSet]]:
    """Yield the sets of the firewall that comes, then of the newest; without their elements."""
    if not layout.state.exists():
        return
    readable = [i.number for i in list_generations(layout) if isinstance(i, Generation)]
    try:
        coming = standing(layout)
    except BackendError:
        coming = None
    numbers = dict.fromkeys([coming, *reversed(readable[-_GENERATIONS:])])
    for number in filter(None, numbers):
        try:
            found = stored(layout, number, lists=False)
        except BackendError:
            continue
        if isinstance(found, Firewall) and found.ipset:
            plan = iptables.lower(found.ruleset, ipset=True)
            yield {item.name: replace(item, elements=()) for item in plan.sets}
