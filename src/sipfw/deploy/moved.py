"""A firewall of iptables-nft goes into nftables where iptables-nft cannot work any more.

After a boot from a file of `nft list ruleset` the tables of iptables-nft hold rules that nft has
made (`ct state new`), which iptables-nft 1.8.9 can neither show nor change ("incompatible, use
'nft' tool"). Refusing would leave SIP unguarded from then on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.backends.detect import look
from sipfw.deploy.apply import outcome_of
from sipfw.deploy.feed_sets import without_lists
from sipfw.deploy.files import read_private
from sipfw.deploy.generations import Content, write_generation
from sipfw.deploy.journal import Journal
from sipfw.deploy.left_behind import drop_left_sets
from sipfw.deploy.listing import listing_text
from sipfw.deploy.live import NOTHING
from sipfw.deploy.transaction import carry_out

if TYPE_CHECKING:
    from sipfw.deploy.apply import Outcome
    from sipfw.deploy.files import Layout
    from sipfw.deploy.live import Firewall
    from sipfw.deploy.targets import Options
    from sipfw.errors import BackendError

_NFTABLES = "nftables"


def move_to_nftables(
    layout: Layout, firewall: Firewall, options: Options, reason: BackendError
) -> Outcome:
    """Make the same rules live in a table of their own, as a new generation; needs the state lock.

    Raises `reason` where rules of ours are live in iptables-nft still: they would judge twice.
    """
    if look().ours - {_NFTABLES}:
        raise reason
    path = layout.generations / str(firewall.generation) / "policy.json"
    try:
        policy = read_private(path)
    except (OSError, ValueError):
        raise reason from None
    kept = without_lists(firewall.ruleset)
    content = Content(
        kept,
        _NFTABLES,
        ipset=firewall.ipset,
        source=firewall.source,
        policy=policy,
        listing=listing_text(kept, _NFTABLES, ipset=firewall.ipset),
    )
    made = write_generation(layout, content, firewall.generation)
    moved = replace(firewall, backend=_NFTABLES, generation=made.number)
    result, _ = carry_out(
        layout,
        Journal("apply", firewall.generation, made.number, (_NFTABLES,)),
        moved,
        options,
        looked_for=NOTHING,
    )
    note = f"generation {made.number} is the same firewall in nftables: {reason.message}"
    return outcome_of(result, made.number, notes=(note, *drop_left_sets(moved)))
