"""One IR match to iptables match options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, assert_never

from sipfw.lower.hex_string import hex_string
from sipfw.lower.naming import hashlimit_name, set_name
from sipfw.lower.payload import IP_HEADER, TCP_HEADER_MAX, TCP_HEADER_MIN, UDP_HEADER
from sipfw.lower.payload_u32 import U32Payload
from sipfw.lower.xtables import Family, XMatch, XParam, XRule, XTarget
from sipfw.ruleset.match import (
    Address,
    ConnectionsAbove,
    ConntrackState,
    CountAbove,
    Direction,
    HasPayload,
    Icmp,
    InSet,
    Interface,
    IpProtocol,
    L4Proto,
    Match,
    MovedPayload,
    OpenedTo,
    PayloadAt,
    PayloadContains,
    PortRange,
    Ports,
    PrefixLengths,
    Protocol,
    Rate,
    RateAbove,
    RateWithin,
    SeenAtLeast,
    ShorterThan,
    StartsWithOneOf,
    TcpSyn,
    VolumeAbove,
)
from sipfw.ruleset.model import SetKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sipfw.lower.payload import PayloadForm
    from sipfw.lower.without_ipset import WithoutIpset

# XT_MULTI_PORTS is 15; a range takes two.
_MULTIPORT_SLOTS = 15

_LONGEST_HEX_STRING = 127

_NO_KINDS: Mapping[str, SetKind] = MappingProxyType({})

# XT_LIMIT_SCALE: what xt_limit can count in a second.
_FASTEST = 10_000

# Shorter than a word, which is what the matches for fixed places compare.
_WORD = 4


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule in the making. `l4` are options of the protocol's own match (`-m udp --dport`)."""

    protocol: str | None = None
    source: str | None = None
    destination: str | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    l4: tuple[XParam, ...] = ()
    matches: tuple[XMatch, ...] = ()

    def with_match(self, name: str, *params: XParam) -> Draft:
        """Append a match extension."""
        return replace(self, matches=(*self.matches, XMatch(name, params)))

    def with_protocol(self, protocol: str, *l4: XParam) -> Draft:
        """Set the protocol and append options of its match."""
        if self.protocol not in (None, protocol):
            raise AssertionError(f"a rule for {self.protocol} cannot match {protocol}")
        return replace(self, protocol=protocol, l4=(*self.l4, *l4))

    def rule(self, extra: tuple[XMatch, ...], target: XTarget | None) -> XRule:
        """Finish the rule; the comment is added by the caller."""
        own = (XMatch(_module(self.protocol), self.l4),) if self.l4 and self.protocol else ()
        return XRule(
            comment="",
            protocol=self.protocol,
            source=self.source,
            destination=self.destination,
            in_interface=self.in_interface,
            out_interface=self.out_interface,
            matches=(*own, *self.matches, *extra),
            target=target,
        )


def _module(protocol: str) -> str:
    return "icmp6" if protocol == "icmpv6" else protocol


def add_alternatives(
    draft: Draft, alternatives: list[tuple[Match, ...]], family: Family
) -> list[Draft]:
    """Add conditions of which one has to hold: a draft for each."""
    return [following for each in alternatives for following in _all(draft, each, family)]


def add_match(
    draft: Draft,
    match: Match,
    family: Family,
    without_ipset: WithoutIpset | None,
    kinds: Mapping[str, SetKind] = _NO_KINDS,
    *,
    payload: PayloadForm | None = None,
) -> list[Draft]:
    """Add one condition. Several drafts come back where iptables needs several rules for it.

    `kinds` says what the elements of each set are; `payload` compares bytes, u32 if not given.
    """
    form = payload or U32Payload()
    match match:
        case InSet() | CountAbove() | VolumeAbove() if without_ipset is not None:
            return _add_without_ipset(draft, match, family, without_ipset)
        case SeenAtLeast() if without_ipset is not None:
            return [draft.with_match("recent", *without_ipset.window(match, family))]
        case Ports():
            return list(_ports(draft, match))
        case Address():
            return _address(draft, match, family)
        case StartsWithOneOf():
            asked = draft.with_protocol(match.proto.value)
            words = form.first_word_is_one_of(match.proto, family, match.words)
            return [_with(asked, item) for item in words]
        case OpenedTo():
            ports = (XParam("ctorigdstport", (_colon(item),)) for item in match.ranges)
            return [draft.with_match("conntrack", port) for port in ports]
        case RateWithin():
            return list(_within(draft, match))
        case InSet() | CountAbove() | VolumeAbove():
            return [_asked(draft, match, family, kinds)]
        case _:
            return [_add_single(draft, match, family, form)]


def _add_without_ipset(
    draft: Draft,
    match: InSet | CountAbove | VolumeAbove,
    family: Family,
    without_ipset: WithoutIpset,
) -> list[Draft]:
    recent = without_ipset.question(match, family)
    if recent is not None:
        return [replace(draft, matches=(*draft.matches, recent))]
    return add_alternatives(draft, without_ipset.alternatives(match, family), family)


def _all(draft: Draft, matches: tuple[Match, ...], family: Family) -> list[Draft]:
    drafts = [draft]
    for match in matches:
        # A UDP endpoint is no alternative in a rule for TCP.
        if isinstance(match, Ports) and draft.protocol not in (None, match.proto.value):
            return []
        drafts = [d for item in drafts for d in add_match(item, match, family, None)]
    return drafts


def _add_single(draft: Draft, match: Match, family: Family, form: PayloadForm) -> Draft:
    match match:
        case Protocol():
            return draft.with_protocol(match.proto.value)
        case Interface():
            name = match.name.replace("*", "+")
            if match.direction is Direction.SOURCE:
                return replace(draft, in_interface=name)
            return replace(draft, out_interface=name)
        case ConntrackState():
            states = ",".join(state.upper() for state in match.states)
            return draft.with_match("conntrack", XParam("ctstate", (states,)))
        case TcpSyn():
            return draft.with_protocol("tcp", XParam("syn"))
        case Icmp():
            return _icmp(draft, match, family)
        case IpProtocol():
            return draft.with_protocol(str(match.number))
        case ShorterThan():
            longest = IP_HEADER[family] + UDP_HEADER + match.payload_bytes - 1
            return draft.with_match("length", XParam("length", (f"0:{longest}",)))
        case PayloadAt() | PayloadContains():
            return _payload(draft, match, family, form)
        case HasPayload():
            return _with(draft.with_protocol("tcp"), form.has_data(family))
        case MovedPayload():
            return _with(draft, form.is_moved(family))
        case RateAbove() | SeenAtLeast() | ConnectionsAbove():
            return _limit(draft, match, family)
        case Ports() | Address() | StartsWithOneOf() | OpenedTo() | RateWithin():
            raise AssertionError("handled by add_match")
        case InSet() | CountAbove() | VolumeAbove():
            raise AssertionError("handled by add_match")
        case _:
            assert_never(match)


def _with(draft: Draft, match: XMatch) -> Draft:
    return replace(draft, matches=(*draft.matches, match))


def set_ends(direction: Direction, kind: SetKind | None) -> str:
    """Return the flags that say which part of a packet is looked up for each part of a key."""
    match kind:
        case SetKind.PEER_ENDPOINT | SetKind.ENDPOINT:
            return f"{direction},{direction}"
        case SetKind.TARGET:
            return f"{direction},{Direction.DESTINATION}"
        case _:
            return direction.value


def _asked(
    draft: Draft,
    match: InSet | CountAbove | VolumeAbove,
    family: Family,
    kinds: Mapping[str, SetKind],
) -> Draft:
    ends = set_ends(match.direction, kinds.get(match.set))
    params = [XParam("match-set", (set_name(match.set, family), ends))]
    if isinstance(match, CountAbove):
        # The entry starts at one packet, and this look adds one before it compares
        # (ip_set_init_counter, ip_set_match_extensions in net/netfilter/ipset).
        params.append(XParam("packets-gt", (str(match.count + 1),)))
    if isinstance(match, VolumeAbove):
        params.append(XParam("bytes-gt", (str(match.size),)))
    return draft.with_match("set", *params)


def _icmp(draft: Draft, match: Icmp, family: Family) -> Draft:
    if family is Family.IP:
        return draft.with_protocol("icmp", XParam("icmp-type", (str(match.type),)))
    return draft.with_protocol("icmpv6", XParam("icmpv6-type", (str(match.type),)))


def _address(draft: Draft, match: Address, family: Family) -> list[Draft]:
    if (match.network.version == 4) != (family is Family.IP):
        return []
    if match.direction is Direction.SOURCE:
        return [replace(draft, source=str(match.network))]
    return [replace(draft, destination=str(match.network))]


def _ports(draft: Draft, match: Ports) -> Iterator[Draft]:
    short, long = (
        ("dport", "dports") if match.direction is Direction.DESTINATION else ("sport", "sports")
    )
    proto = match.proto.value
    if not match.ranges:
        return
    if len(match.ranges) == 1:
        yield draft.with_protocol(proto, XParam(short, (_colon(match.ranges[0]),)))
        return
    for group in _multiport_groups(match.ranges):
        if len(group) == 1:
            yield draft.with_protocol(proto, XParam(short, (_colon(group[0]),)))
        else:
            ports = ",".join(_colon(item) for item in group)
            yield draft.with_protocol(proto).with_match("multiport", XParam(long, (ports,)))


def _multiport_groups(ranges: tuple[PortRange, ...]) -> list[list[PortRange]]:
    groups: list[list[PortRange]] = [[]]
    used = 0
    for item in ranges:
        slots = 1 if item.first == item.last else 2
        if used + slots > _MULTIPORT_SLOTS:
            groups.append([])
            used = 0
        groups[-1].append(item)
        used += slots
    return groups


def _colon(item: PortRange) -> str:
    return str(item.first) if item.first == item.last else f"{item.first}:{item.last}"


def _payload(
    draft: Draft, match: PayloadAt | PayloadContains, family: Family, form: PayloadForm
) -> Draft:
    """Search with kmp: bm misses a text across the blocks of a reassembled packet (lib/ts_bm.c)."""
    offset = IP_HEADER[family]
    # libxt_string refuses a hex-string of 128 bytes though a plain --string may have as many.
    pattern = match.pattern[:_LONGEST_HEX_STRING]
    if isinstance(match, PayloadContains):
        window = (XParam("from", (str(offset + UDP_HEADER),)), XParam("icase"))
        return draft.with_match("string", *_kmp(window, pattern))
    draft = draft.with_protocol(match.proto.value)
    if _WORD <= len(pattern) <= form.longest:
        return _with(draft, form.starts_with(match.proto, family, pattern, negate=match.negate))
    if match.proto is L4Proto.UDP:
        first, last = offset + UDP_HEADER, offset + UDP_HEADER + len(pattern)
    else:
        first, last = offset + TCP_HEADER_MIN, offset + TCP_HEADER_MAX + len(pattern)
    # The text must end before `--to`: a window exactly as long as the text is a fixed offset.
    window = (XParam("from", (str(first),)), XParam("to", (str(last),)))
    return draft.with_match("string", *_kmp(window, pattern, negate=match.negate))


def _kmp(window: tuple[XParam, ...], pattern: bytes, *, negate: bool = False) -> tuple[XParam, ...]:
    text = XParam("hex-string", (hex_string(pattern),), negate=negate)
    return (XParam("algo", ("kmp",)), *window, text)


def _within(draft: Draft, match: RateWithin) -> Iterator[Draft]:
    """Share a rate that is too fast for one limit out among several rules."""
    rules = -(-match.rate.amount // (_FASTEST * match.rate.unit.seconds))
    rate = Rate(match.rate.amount // rules, match.rate.unit)
    burst = str(max(1, match.burst // rules))
    for _ in range(rules):
        yield draft.with_match(
            "limit", XParam("limit", (str(rate),)), XParam("limit-burst", (burst,))
        )


def _limit(
    draft: Draft,
    match: RateAbove | SeenAtLeast | ConnectionsAbove,
    family: Family,
) -> Draft:
    match match:
        case RateAbove():
            return draft.with_match("hashlimit", *_hashlimit(match, family))
        case SeenAtLeast():
            name = set_name(match.list, family)
            # This look adds one to the packets of those who are in; see `Record`.
            return draft.with_match(
                "set",
                XParam("match-set", (name, Direction.SOURCE.value)),
                XParam("packets-gt", (str(match.hits),)),
            )
        case ConnectionsAbove():
            return draft.with_match(
                "connlimit",
                XParam("connlimit-above", (str(match.count),)),
                XParam("connlimit-mask", (str(_bits(match.prefix, family)),)),
            )
        case _:
            assert_never(match)


def _bits(prefix: PrefixLengths, family: Family) -> int:
    return prefix.ip if family is Family.IP else prefix.ip6


def _hashlimit(match: RateAbove, family: Family) -> list[XParam]:
    bits = _bits(match.prefix, family)
    mode = "srcip,srcport" if match.with_port else "srcip"
    params = [
        XParam("hashlimit-above", (str(match.rate),)),
        XParam("hashlimit-burst", (str(match.burst),)),
        XParam("hashlimit-mode", (mode,)),
        XParam("hashlimit-htable-size", (str(match.table_size // 4),)),
        XParam("hashlimit-htable-max", (str(match.table_size),)),
        XParam("hashlimit-htable-expire", (str(1000 * match.lifetime),)),
    ]
    if bits != (32 if family is Family.IP else 128):
        params.append(XParam("hashlimit-srcmask", (str(bits),)))
    name = hashlimit_name(match.name, params)
    return [*params[:3], XParam("hashlimit-name", (name,)), *params[3:]]
