"""The ordered list of layers: how a policy becomes a ruleset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler.context import Context
from sipfw.compiler.layers.banned import banned_chains
from sipfw.compiler.layers.entry import entry_chains
from sipfw.compiler.layers.host import host_chains, stream_judgement
from sipfw.compiler.layers.known import known_chains
from sipfw.compiler.layers.lanes import crowd_chains
from sipfw.compiler.layers.rates import rate_chains
from sipfw.compiler.layers.replies import reply_chains
from sipfw.compiler.layers.scanners import scanner_chains
from sipfw.compiler.layers.sets import all_sets
from sipfw.compiler.logged import logged
from sipfw.compiler.manual import NOBODY, with_by_hand
from sipfw.compiler.reached import asked, reached
from sipfw.ruleset.model import Ruleset, Sysctl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.compiler.manual import ByHand
    from sipfw.policy.load import LoadedPolicy
    from sipfw.policy.types import Network


def compile_policy(
    loaded: LoadedPolicy,
    resolved: Mapping[str, tuple[Network, ...]] | None = None,
    feeds: Mapping[str, tuple[Network, ...]] | None = None,
    by_hand: ByHand = NOBODY,
) -> Ruleset:
    """Return what the policy means.

    Host names that `resolved` lacks have no addresses, block lists that `feeds` lacks no entries.
    `by_hand` says whether there is anybody whom operators ban or trust.
    """
    context = Context(loaded.policy, loaded.origins, resolved or {}, feeds or {})
    chains = [
        *entry_chains(context),
        *known_chains(context),
        *banned_chains(context),
        *scanner_chains(context),
        *crowd_chains(context),
        *rate_chains(context),
        *stream_judgement(context),
        *reply_chains(context),
        *host_chains(context),
    ]
    used = reached(chains)
    ruleset = Ruleset(
        tuple(logged(context, used)),
        tuple(asked(all_sets(context), used)),
        tuple(_sysctls(context)),
    )
    return with_by_hand(ruleset, context, by_hand)


def _sysctls(context: Context) -> list[Sysctl]:
    conntrack = context.policy.conntrack
    values = {
        "nf_conntrack_max": ("max", conntrack.max),
        "nf_conntrack_udp_timeout": ("udp_timeout", conntrack.udp_timeout),
        "nf_conntrack_udp_timeout_stream": ("udp_timeout_stream", conntrack.udp_timeout_stream),
        "nf_conntrack_tcp_timeout_established": (
            "tcp_timeout_established",
            conntrack.tcp_timeout_established,
        ),
    }
    return [
        Sysctl(f"net.netfilter.{name}", value, context.origin("conntrack", field))
        for name, (field, value) in values.items()
        if value is not None
    ]
