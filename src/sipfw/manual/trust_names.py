"""Trust for a time by host name: asked now, and again by every refresh while it lasts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.manual_list import Book
from sipfw.deploy.names.answers import standards
from sipfw.deploy.names.cache import Resolution, read_names, remember, resolve_or_recall
from sipfw.deploy.names.resolve import name_of
from sipfw.host.privilege import who
from sipfw.kernel.state.timeouts import require_fitting
from sipfw.manual.change import carry_out_order, in_force, refuse
from sipfw.manual.trusted_names import (
    MOST_NAMES,
    Followed,
    TrustedName,
    asked_for_trust,
    followed_names,
    read_trusted_names,
    write_trusted_names,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from sipfw.deploy.names.resolve import Lookup
    from sipfw.host.files import Layout
    from sipfw.manual.change import InForce, Obeyed, Order


@dataclass(frozen=True, slots=True)
class Named:
    """What became of an order about names. `strangers` were not trusted."""

    texts: tuple[str, ...]
    done: Obeyed
    resolution: Resolution
    strangers: tuple[str, ...] = ()


def trust_names(
    layout: Layout,
    keys: Collection[str],
    seconds: int,
    reason: str,
    *,
    lookup: Lookup | None = None,
) -> Named:
    """Trust the addresses of these names so long, of all names or none (`Hostname.key`).

    Whom an operator has banned no name lets in: that is his word against a resolver's.
    """
    policy = in_force(layout).policy
    bounds = standards(policy, layout)
    # Without the lock: a name server that hangs must keep nobody else waiting.
    asked = asked_for_trust(keys)
    resolution = resolve_or_recall(asked, read_names(layout), bounds, lookup=lookup)
    refuse(f"'{name_of(key)}' has no address now ({why})" for key, why in resolution.failures)
    done: list[Followed] = []

    def decide(now: InForce) -> Order:
        require_fitting(seconds, now.set_kind)
        since = int(time.time())
        on_file = read_trusted_names(layout)
        new = {
            key: TrustedName(
                key,
                since,
                since + seconds,
                reason,
                who(),
                on_file[key].brought if key in on_file else (),
            )
            for key in asked
        }
        if len({*on_file, *new}) > MOST_NAMES:
            refuse([f"more than {MOST_NAMES} names; put lasting peers into the policy"])
        found = followed_names(now, {**on_file, **new}, resolution.addresses)
        if found.order.books.get(Book.TRUSTS) is None:
            refuse(found.texts)
        refuse(
            f"'{name_of(key)}': all of its addresses are trusted already"
            for key in new
            if not found.after[key].brought
        )
        done.append(found)
        return found.order

    obeyed = carry_out_order(layout, decide)
    remember(layout, resolution)
    write_trusted_names(layout, done[-1].after)
    return Named(done[-1].texts, obeyed, resolution)


def end_names(layout: Layout, keys: Collection[str]) -> Named:
    """End the trust of these names, and of the addresses that no other name has brought."""
    done: list[Followed] = []
    strangers: list[str] = []

    def decide(now: InForce) -> Order:
        on_file = read_trusted_names(layout)
        strangers[:] = [name_of(key) for key in keys if key not in on_file]
        found = followed_names(now, on_file, dict.fromkeys(keys, ()))
        done.append(found)
        return found.order

    obeyed = carry_out_order(layout, decide)
    after = {key: item for key, item in done[-1].after.items() if key not in keys}
    write_trusted_names(layout, after)
    return Named(done[-1].texts, obeyed, Resolution({}), tuple(strangers))
