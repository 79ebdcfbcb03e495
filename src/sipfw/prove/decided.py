"""Which rule decided: the one of the right kind whose counter grew most meanwhile."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sipfw.deploy.applied import read_applied
from sipfw.errors import BackendError
from sipfw.kernel.backend import backend_of
from sipfw.lower.naming import base_id
from sipfw.ruleset.model import Layer
from sipfw.ruleset.rule import Accept, Done, Drop, Reset

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.ruleset.model import Ruleset


class Counters:
    """The counters of what was applied below `layout`; read them in the switch's namespace."""

    def __init__(self, ruleset: Ruleset, layout: Layout) -> None:
        applied = read_applied(layout)
        if applied is None:
            raise BackendError("nothing was applied on the stage")
        self._expectation = applied.expectation
        self._backend = backend_of(applied.backend)
        # The way into the rest of the host counts what every other layer let pass.
        self._actions = {
            rule.id: rule.action
            for chain in ruleset.chains
            for rule in chain.rules
            if chain.layer is not Layer.HOST or isinstance(rule.action, Drop)
        }

    def read(self) -> dict[str, int]:
        """Return packets by rule."""
        live = self._backend.live(self._expectation)
        found: Counter[str] = Counter()
        for chain in live.chains:
            for rule in chain.rules:
                if rule.rule_id is not None:
                    found[base_id(rule.rule_id)] += rule.packets
        return dict(found)

    def decider(self, before: dict[str, int], after: dict[str, int], *, dropped: bool) -> str:
        """Return the rule that dropped most meanwhile, or accepted most; empty where none did."""
        kinds = (Drop, Reset) if dropped else (Accept, Done)
        grown = {
            name: packets - before.get(name, 0)
            for name, packets in after.items()
            if isinstance(self._actions.get(name), kinds)
        }
        most = max(grown, key=lambda name: grown[name], default="")
        return most if most and grown[most] > 0 else ""
