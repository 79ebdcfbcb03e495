"""`sipfw panic`: the firewall in force with the posture of the worst hour, and the way back.

Both are an apply like any other: journal, watchdog, read back; with a time it is one that waits to
be confirmed, so it ends by itself whatever happens to sipfw or to the host.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.compiler.context import Context
from sipfw.compiler.manual import ByHand, with_by_hand
from sipfw.compiler.panic import in_panic, panicked
from sipfw.deploy.activate import stored
from sipfw.deploy.applied import read_applied
from sipfw.deploy.apply import apply
from sipfw.deploy.generations import Content, Damaged, read_generation
from sipfw.deploy.manual_list import by_hand
from sipfw.deploy.repair import unfinished
from sipfw.deploy.rollback import rollback
from sipfw.errors import BackendError
from sipfw.host.sessions import ssh_sessions
from sipfw.manual.change import in_force, of_today
from sipfw.policy.merge import Origins

if TYPE_CHECKING:
    from sipfw.deploy.activate import Firewall
    from sipfw.deploy.apply import ApplyOutcome
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.manual.change import InForce


@dataclass(frozen=True, slots=True)
class Panic:
    """What a panic cuts. `host` tells whether the host's other ports are shut, too."""

    peers: int
    admins: int
    host: bool


def foresee(layout: Layout) -> Panic:
    """Say what a panic would leave. Raises BackendError where it may not be."""
    now = in_force(layout)
    if in_panic(now.ruleset):
        raise BackendError("the panic is on already", hint="end it: sipfw panic off")
    policy = now.policy
    if not policy.trusted_peers:
        raise BackendError(
            "there is no trusted peer, so nobody at all could call",
            hint="sipfw peer add NAME ADDRESS, and sipfw apply",
        )
    admins = len(policy.admin.networks)
    return Panic(len(policy.trusted_peers), admins, bool(admins and policy.host.default_drop))


def panic_on(layout: Layout, options: Options, seconds: int | None = None) -> ApplyOutcome:
    """Let nobody in but trusted peers and admins; with `seconds` for so long.

    Raises BackendError, with the firewall as it was.
    """
    foresee(layout)
    now = in_force(layout)
    # Bans and trusts that come during the panic must find their rules, then and behind its end.
    ruleset = with_by_hand(
        replace(now.ruleset, sets=tuple(of_today(layout, now))),
        Context(now.policy, Origins()),
        ByHand(blocked=True, guests=True),
    )
    sessions = {(item.client, item.port) for item in ssh_sessions()}
    wanted = panicked(ruleset, now.policy, sessions)
    if not in_panic(wanted):
        raise BackendError("the live policy has no SIP port to guard", hint="nothing was changed")
    if seconds is not None and ruleset.chains != now.ruleset.chains:
        apply(_content(now, replace(now.firewall, ruleset=ruleset)), layout, options)
    content = _content(now, replace(now.firewall, ruleset=wanted))
    return apply(content, layout, options, confirm=seconds)


def panic_off(layout: Layout, options: Options) -> ApplyOutcome | None:
    """Bring back what was before; None where there is no panic. Raises BackendError."""
    waiting = unfinished(layout)
    if not panic_is_on(layout):
        return None
    if waiting is not None and waiting.open:
        return rollback(layout, None, options)
    now = in_force(layout)
    before = _before(layout, now.firewall)
    found = replace(now, firewall=before)
    ruleset = with_by_hand(
        replace(before.ruleset, sets=tuple(of_today(layout, found))),
        Context(now.policy, Origins()),
        by_hand(layout),
    )
    return apply(_content(now, replace(before, ruleset=ruleset)), layout, options)


def panic_is_on(layout: Layout) -> bool:
    """Tell whether the firewall on record has the posture."""
    applied = read_applied(layout)
    if applied is None or applied.generation is None:
        return False
    found = stored(layout, applied.generation, lists=False)
    return not isinstance(found, Damaged) and in_panic(found.ruleset)


def require_no_panic(layout: Layout) -> None:
    """Raise BackendError where an apply would end the panic without a word."""
    if panic_is_on(layout):
        raise BackendError(
            "the panic is on, and an apply would end it",
            hint="sipfw panic off first, or sipfw apply --force",
        )


def _before(layout: Layout, live: Firewall) -> Firewall:
    """Return the last firewall that had not the posture."""
    found: Firewall | Damaged = live
    while not isinstance(found, Damaged) and in_panic(found.ruleset):
        made = read_generation(layout, found.generation)
        if isinstance(made, Damaged) or made.before is None:
            raise BackendError("what was before the panic is not known", hint="apply the policy")
        found = stored(layout, made.before)
    if isinstance(found, Damaged):
        raise BackendError(
            f"generation {found.number}, from before the panic, is damaged: {found.reason}",
            hint="apply the policy: sipfw apply --force",
        )
    return found


def _content(now: InForce, firewall: Firewall) -> Content:
    return Content(
        firewall.ruleset,
        firewall.backend,
        ipset=firewall.ipset,
        source=firewall.source,
        policy=json.dumps(now.policy.model_dump(mode="json", by_alias=True), indent=1),
    )
