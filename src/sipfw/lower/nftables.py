"""Ruleset to nftables statements: the one place that knows nft's syntax for a match.

One chain per family, because counters are read per family and because a rule then needs no family
test of its own. nft has no substring match: `PayloadContains` rules go into text chains, which a
backend fills with xt string matches (see `sipfw.kernel.netlink.rules`).

Syntax is that of nft 1.0.6; `@ih` needs kernel 5.16.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Literal, assert_never

from sipfw.lower.inline_small_sets import contradicts, inlined
from sipfw.lower.naming import nft_comment, text_chain_name
from sipfw.lower.nftables_hooks import base_line, base_name, family_match, hook_id
from sipfw.lower.nftables_lean import leads_on, port_match, without_protocol
from sipfw.lower.nftables_match import (
    SUFFIX,
    address,
    address_type,
    end,
    in_set,
    masked,
    parts,
    payload_at,
    plain,
    set_key,
    set_type,
)
from sipfw.lower.nftables_plan import (
    NftChain,
    NftPlan,
    NftRule,
    NftSet,
    NftTextChain,
    NftTextRule,
)
from sipfw.ruleset.match import (
    Address,
    ConnectionsAbove,
    CountAbove,
    Direction,
    InSet,
    Match,
    OpenedTo,
    PayloadAt,
    PayloadContains,
    RateAbove,
    SeenAtLeast,
    VolumeAbove,
)
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.rule import (
    Accept,
    Action,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Family,
    Goto,
    Jump,
    Log,
    NoTrack,
    Record,
    Reset,
    Return,
    Rule,
    UpdateSet,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network, IPv6Network

    from sipfw.ruleset.model import AddressSet, Chain, Ruleset

_IP_HEADER = {Family.IP: 20, Family.IP6: 40}
_UDP_HEADER = 8

# Comparing an address costs some 8 ns, a lookup 80 to 150 (docs/performance.md).
_SHORT_LIST = 8

# A bucket that never refills within the life of its element counts events of one window.
_NO_REFILL = "1/day"


# The check, the plan and the record of one command lower the same ruleset.
@lru_cache(maxsize=2)
def lower(ruleset: Ruleset) -> NftPlan:
    """Return the nftables form of a ruleset."""
    return _Lowering(ruleset).plan()


class _Lowering:
    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._buckets: dict[str, NftSet] = {}
        self._texts: list[NftTextChain] = []

    def plan(self) -> NftPlan:
        chains = [
            NftChain(
                chain.name + SUFFIX[family],
                chain.summary,
                tuple(self._rules(chain, family)),
            )
            for chain in self._ruleset.chains
            for family in Family
        ]
        hooks = [_hook(chain) for chain in self._ruleset.chains if chain.base is not None]
        sets = [
            lowered
            for item in self._ruleset.sets
            for family in Family
            for lowered in _address_sets(item, self._ruleset, family)
        ]
        return NftPlan((*sets, *self._buckets.values()), (*hooks, *chains), tuple(self._texts))

    def _rules(self, chain: Chain, family: Family) -> Iterator[NftRule]:
        mine = [rule for rule in chain.rules if rule.family in (None, family)]
        for is_text, group in groupby(mine, key=_is_text):
            if is_text:
                yield from self._text_chain(chain, list(group), family)
                continue
            for rule in group:
                yield from self._rule(chain, rule, family)

    def _text_chain(self, chain: Chain, rules: list[Rule], family: Family) -> Iterator[NftRule]:
        texts = tuple(_text_rule(rule, family) for rule in rules)
        name = text_chain_name(chain.name + SUFFIX[family], texts)
        self._texts.append(NftTextChain(name, texts))
        lead = f"text.{chain.name.lower().replace('_', '-')}"
        yield _commented(NftRule("", "", f"jump {name}", counted=False), lead)

    def _rule(self, chain: Chain, rule: Rule, family: Family) -> list[NftRule]:
        alternatives: list[list[str]] = [[]]
        for match in rule.matches:
            options = without_protocol(chain, rule) or self._options(rule, match, family)
            alternatives = [[*words, option] for words in alternatives for option in options]
        action = self._action(rule.action, family)
        counted = not leads_on(rule)
        finished = [NftRule("", " ".join(words), action, counted) for words in alternatives]
        if len(finished) == 1:
            return [_commented(finished[0], rule.id)]
        return [
            _commented(item, f"{rule.id}/{number}") for number, item in enumerate(finished, start=1)
        ]

    def _options(self, rule: Rule, match: Match, family: Family) -> list[str]:
        short = inlined(self._ruleset, match, family, _SHORT_LIST)
        if short is None:
            return self._match(match, family)
        return [
            " ".join(word for part in each for word in self._match(part, family))
            for each in short
            if not contradicts(each, rule.matches)
        ]

    def _match(self, match: Match, family: Family) -> list[str]:
        """Return the alternatives that together say the match; none if it never holds."""
        match match:
            case PayloadAt():
                return payload_at(match)
            case InSet():
                return in_set(match, self._ruleset, family)
            case Address():
                return address(match, family)
            case OpenedTo():
                # nft 1.0.6 lists a set of such ports as "invalid type".
                return [f"ct original proto-dst {item}" for item in match.ranges]
            case CountAbove() | VolumeAbove():
                return [self._counted(match, family)]
            case RateAbove() | SeenAtLeast() | ConnectionsAbove():
                return [self._bucket(match, family)]
            case _:
                return [plain(match, family)]

    def _counted(self, match: CountAbove | VolumeAbove, family: Family) -> str:
        """As in ipset: the element's window runs from the first packet that it has counted."""
        key = set_key(self._ruleset.set(match.set), match.direction, family)
        if isinstance(match, CountAbove):
            limit = f"limit rate over {_NO_REFILL} burst {match.count} packets"
        else:
            limit = f"quota over {match.size} bytes"
        return f"add @{match.set}{SUFFIX[family]} {{ {key} {limit} }}"

    def _bucket(self, match: RateAbove | SeenAtLeast | ConnectionsAbove, family: Family) -> str:
        address = end(Direction.SOURCE, family)
        match match:
            case RateAbove():
                key = masked(address, match.prefix, family)
                limit = f"limit rate over {match.rate} burst {match.burst} packets"
                kind = [address_type(family)]
                if match.with_port:
                    key, kind = f"{key} . th sport", [*kind, "inet_service"]
                name = self._bucket_set(
                    match.name,
                    f"{key} {limit}",
                    family,
                    kind,
                    timeout=match.lifetime,
                    size=match.table_size,
                )
                return f"update @{name} {{ {key} {limit} }}"
            case SeenAtLeast():
                key = masked(address, match.prefix, family)
                limit = f"limit rate over {_NO_REFILL} burst {match.hits} packets"
                kind = [address_type(family)]
                name = self._bucket_set(
                    match.list,
                    limit if key == address else f"{key} {limit}",
                    family,
                    kind,
                    timeout=match.seconds,
                    size=match.table_size,
                )
                return f"add @{name} {{ {key} {limit} }}"
            case ConnectionsAbove():
                key = masked(address, match.prefix, family)
                kind = [address_type(family)]
                name = self._bucket_set(f"conn{match.prefix.ip}", key, family, kind, timeout=None)
                return f"add @{name} {{ {key} ct count over {match.count} }}"
            case _:
                assert_never(match)

    def _bucket_set(
        self,
        name: str,
        parameters: str,
        family: Family,
        kind: list[str],
        *,
        timeout: int | None,
        size: int = 65536,
    ) -> str:
        """Name a bucket set by its parameters: an element keeps the limit it was made with."""
        digest = hashlib.sha256(f"{name} {parameters} {timeout}".encode()).hexdigest()[:6]
        full = f"{name}-{digest}-{SUFFIX[family]}"
        flags = ("dynamic",) if timeout is None else ("dynamic", "timeout")
        self._buckets[full] = NftSet(
            full,
            f"buckets of {name}",
            " . ".join(kind),
            flags,
            timeout=timeout,
            size=size,
            metered=True,
        )
        return full

    def _action(self, action: Action, family: Family) -> str:
        match action:
            case Accept() | Done():
                # Other tables and other priorities still judge: accept ends this base chain only.
                return "accept"
            case Drop():
                return "drop"
            case Reset():
                return "reject with tcp reset"
            case Return():
                return "return"
            case Jump():
                return f"jump {action.chain}{SUFFIX[family]}"
            case Goto():
                return f"goto {action.chain}{SUFFIX[family]}"
            case UpdateSet():
                return f"update {self._element(action, family)}"
            case AddOnce(counting=True):
                return f"add {self._element(action, family, ' counter')}"
            case AddOnce() | Record():
                # Made by the count that follows, or counted by the SeenAtLeast before.
                return ""
            case DeleteFromSet():
                return f"delete {self._element(action, family)}"
            case NoTrack():
                return "notrack"
            case Log():
                group = "" if action.group is None else f" group {action.group}"
                return f'log prefix "{action.prefix}"{group}'
            case _:
                assert_never(action)

    def _element(
        self, action: UpdateSet | AddOnce | DeleteFromSet, family: Family, more: str = ""
    ) -> str:
        key = set_key(self._ruleset.set(action.set), action.direction, family)
        return f"@{action.set}{SUFFIX[family]} {{ {key}{more} }}"


def _is_text(rule: Rule) -> bool:
    return any(isinstance(match, PayloadContains) for match in rule.matches)


def _text_rule(rule: Rule, family: Family) -> NftTextRule:
    (match,) = rule.matches
    if not isinstance(match, PayloadContains):
        raise AssertionError(f"rule {rule.id} mixes a text search with other matches")
    verdict: Literal["drop"] | Goto
    match rule.action:
        case Drop():
            verdict = "drop"
        case Goto():
            verdict = Goto(f"{rule.action.chain}{SUFFIX[family]}")
        case _:
            raise AssertionError(f"rule {rule.id}: a text search leads to drop or goto")
    offset = _IP_HEADER[family] + _UDP_HEADER
    plain = NftTextRule("", match.pattern, offset, verdict)
    return replace(plain, comment=nft_comment(rule.id, plain))


def _commented(rule: NftRule, rule_id: str) -> NftRule:
    return replace(rule, comment=nft_comment(rule_id, rule))


def _hook(chain: Chain) -> NftChain:
    base = chain.base
    if base is None:
        raise AssertionError(f"{chain.name} is not a base chain")
    ports = port_match(chain)
    rules = [
        _commented(
            NftRule(
                "",
                f"{ports}{family_match(family)}",
                f"goto {chain.name}{SUFFIX[family]}",
                counted=False,
            ),
            hook_id(base, family),
        )
        for family in Family
    ]
    return NftChain(base_name(base), chain.summary, tuple(rules), base_line(base))


def _address_sets(item: AddressSet, ruleset: Ruleset, family: Family) -> list[NftSet]:
    version = 4 if family is Family.IP else 6
    made = NftSet(
        f"{item.name}{SUFFIX[family]}",
        item.summary,
        set_type(item, family),
        (),
        of=item.name,
    )
    if item.dynamic:
        flags = ("dynamic", "timeout")
        timeout, size = item.timeout, item.size
        return [replace(made, flags=flags, timeout=timeout, size=size, metered=item.counted)]
    if item.kind is SetKind.PEER_ENDPOINT:
        elements = tuple(
            f"{_listed(endpoint.network)} . {endpoint.proto} . {endpoint.port}"
            for endpoint in item.endpoints
            if endpoint.network.version == version
        )
        return [replace(made, flags=("interval",), elements=elements, static=True)]
    return [
        replace(
            made,
            name=f"{part.name}{SUFFIX[family]}",
            flags=("interval",) if part.of_networks else (),
            elements=tuple(_listed(network) for network in part.members),
            static=True,
        )
        for part in parts(item, ruleset, family)
    ]


def _listed(network: IPv4Network | IPv6Network) -> str:
    """Write a network as nft lists it: one address bare."""
    whole = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if whole else str(network)
