"""A firewall goes into another backend where its own cannot work any more.

After a boot from a file of `nft list ruleset` the tables of iptables-nft hold rules that nft has
made (`ct state new`), which iptables-nft 1.8.9 can neither show nor change ("incompatible, use
'nft' tool"). Refusing would leave SIP unguarded from then on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.deploy.activate import NOTHING
from sipfw.deploy.apply import outcome_of
from sipfw.deploy.generations import Content, write_generation
from sipfw.deploy.journal import Journal
from sipfw.deploy.left_behind import drop_left_sets
from sipfw.deploy.lists.sets import without_lists
from sipfw.deploy.transaction import carry_out
from sipfw.host.files import read_private
from sipfw.kernel.backend import backend_of
from sipfw.kernel.detect import look

if TYPE_CHECKING:
    from sipfw.deploy.activate import Firewall
    from sipfw.deploy.apply import ApplyOutcome
    from sipfw.errors import BackendError
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options


def move_to_refuge(
    layout: Layout, firewall: Firewall, options: Options, reason: BackendError
) -> ApplyOutcome:
    """Make the same rules live in the backend's refuge, as a new generation; needs the state lock.

    Raises `reason` where there is none, or where rules of ours are live elsewhere still: they would
    judge twice.
    """
    refuge = backend_of(firewall.backend).facts.refuge
    if refuge is None or look().ours - {refuge}:
        raise reason
    path = layout.generations / str(firewall.generation) / "policy.json"
    try:
        policy = read_private(path)
    except (OSError, ValueError):
        raise reason from None
    kept = without_lists(firewall.ruleset)
    content = Content(
        kept,
        refuge,
        ipset=firewall.ipset,
        source=firewall.source,
        policy=policy,
        listing=backend_of(refuge, ipset=firewall.ipset).listing(kept),
    )
    made = write_generation(layout, content, firewall.generation)
    moved = replace(firewall, backend=refuge, generation=made.number)
    result, _ = carry_out(
        layout,
        Journal("apply", firewall.generation, made.number, (refuge,)),
        moved,
        options,
        looked_for=NOTHING,
    )
    note = f"generation {made.number} is the same firewall in {refuge}: {reason.message}"
    return outcome_of(result, made.number, notes=(note, *drop_left_sets(moved)))
