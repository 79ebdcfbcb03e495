"""Static sets written out: one alternative per element, instead of a lookup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.ruleset.match import Address, InSet, Match, PortRange, Ports, Protocol
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.ruleset.match import Direction
    from sipfw.ruleset.model import AddressSet, Ruleset


def written_out(item: AddressSet, direction: Direction, family: Family) -> list[tuple[Match, ...]]:
    """Return one tuple of matches for each element of a static set in this family."""
    version = 4 if family is Family.IP else 6
    found: list[tuple[Match, ...]] = [
        (Address(network, direction),) for network in item.networks if network.version == version
    ]
    found += [
        (
            Address(endpoint.network, direction),
            Ports(endpoint.proto, (PortRange(endpoint.port, endpoint.port),), direction),
        )
        for endpoint in item.endpoints
        if endpoint.network.version == version
    ]
    return found


def inlined(
    ruleset: Ruleset, match: Match, family: Family, longest: int
) -> list[tuple[Match, ...]] | None:
    """Return the alternatives of a hot match on a short static set; None where a lookup is better.

    A set with host names stays a set: its members change while the rules stand.
    """
    if not isinstance(match, InSet) or not match.hot:
        return None
    item = ruleset.set(match.set)
    if item.dynamic or item.resolved:
        return None
    alternatives = written_out(item, match.direction, family)
    return alternatives if len(alternatives) <= longest else None


def contradicts(alternative: tuple[Match, ...], matches: tuple[Match, ...]) -> bool:
    """Tell whether an element is about another transport than the rule, as UDP in one for TCP."""
    wanted = {match.proto for match in matches if isinstance(match, Ports | Protocol)}
    stated = {part.proto for part in alternative if isinstance(part, Ports)}
    return bool(wanted and stated) and wanted.isdisjoint(stated)
