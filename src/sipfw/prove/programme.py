"""What a proof plays, against which rules, and who is on the stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.prove.cast import cast_for
from sipfw.prove.switch import preset_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sipfw.policy.model import Policy
    from sipfw.policy.scenario import Scenarios
    from sipfw.prove.cast import Cast, Network
    from sipfw.ruleset.model import Ruleset

# Networks of strangers: the phone, the office, the provider; attackers get the ones behind them.
PHONE, OFFICE, PROVIDER, FIRST_ATTACKER = range(4)


@dataclass(frozen=True, slots=True)
class Programme:
    """All that a proof needs to know. `settings` are values of policy fields, by dotted name."""

    ruleset: Ruleset
    cast: Cast
    scenarios: Scenarios
    ports: tuple[int, ...]
    media: int
    preset: str
    settings: Mapping[str, object]
    backend: str = ""
    ipset: bool = True

    @property
    def rounds(self) -> int:
        """Return how many results there will be."""
        return sum(1 + each.ipv6 for each in self.scenarios.all())


def programme_for(
    policy: Policy,
    ruleset: Ruleset,
    resolved: Mapping[str, Sequence[Network]],
    scenarios: Scenarios,
    *,
    ipset: bool = True,
) -> Programme:
    """Return the programme of a policy. Raises BackendError where no address is free for it."""
    return Programme(
        ruleset,
        cast_for(policy, ruleset, resolved, FIRST_ATTACKER + len(scenarios.attacks)),
        scenarios,
        tuple(port.first for port in policy.signalling.udp),
        # An even port of the range, or its first one.
        min(policy.media.ports[0].first + 1 & ~1, policy.media.ports[0].last),
        preset_for(policy.switch),
        _flat(policy.model_dump(mode="json", by_alias=True)),
        ipset=ipset,
    )


def _flat(values: Mapping[str, object], above: str = "") -> dict[str, object]:
    """Return values by dotted name; lists are values."""
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= (
            _flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
        )
    return found
