"""The policy as pydantic models: what an operator may write, in which units, with which defaults.

Defaults here are the built-in layer; switch, profile, file and command line are merged over them
by `sipfw.policy.load`. Checks across fields live in `sipfw.policy.rules`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from sipfw.policy.bans import Bans
from sipfw.policy.feed import Feed
from sipfw.policy.logging import Logging
from sipfw.policy.names import Names
from sipfw.policy.section import Flag, Section, StrictInt
from sipfw.policy.types import (
    AdminAddress,
    Burst,
    CallRate,
    Count,
    Duration,
    Identifier,
    InterfaceName,
    InterfacePattern,
    NetworkField,
    PeerAddress,
    PeerName,
    Port,
    PortRangeField,
    ProtocolName,
    RateField,
    SignatureText,
    TableSize,
)
from sipfw.ruleset.match import PortRange, Rate, TimeUnit


class Transport(StrEnum):
    """SIP transports (RFC 3261, RFC 7118)."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    WS = "ws"
    WSS = "wss"


class Tier(StrEnum):
    """Size of a customer or carrier, see `tiers`."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"
    PREMIUM = "premium"


class UnknownSources(StrEnum):
    """What happens to sources that are neither trusted nor learned."""

    LIMITED = "limited"
    DENIED = "denied"


class MediaFrom(StrEnum):
    """Who may send RTP to the media ports."""

    ANYWHERE = "anywhere"
    PEERS = "peers"
    EXPECTED = "expected"


class Admin(Section):
    """Who may manage the host."""

    networks: tuple[AdminAddress, ...] = Field(
        (),
        description="Networks that may reach ssh and the web interface, or host names of lines "
        "whose address changes. Without any, sipfw guards only the SIP ports and leaves the rest "
        "of the host alone.",
    )
    ssh_port: Port = Field(22, description="TCP port of sshd.")
    web_ports: tuple[PortRangeField, ...] = Field(
        (PortRange(80, 80), PortRange(8080, 8080)),
        description="TCP ports of the web interface, open to admin networks only.",
    )


class Signalling(Section):
    """Ports of the softswitch, per transport: single ones and ranges.

    TLS, WS and WSS get no string rules: ciphertext and masked frames cannot be searched.
    """

    udp: tuple[PortRangeField, ...] = Field((PortRange(5060, 5060),), description="SIP over UDP.")
    tcp: tuple[PortRangeField, ...] = Field((PortRange(5060, 5060),), description="SIP over TCP.")
    tls: tuple[PortRangeField, ...] = Field((), description="SIP over TLS.")
    ws: tuple[PortRangeField, ...] = Field((), description="SIP over WebSocket.")
    wss: tuple[PortRangeField, ...] = Field((), description="SIP over secure WebSocket.")
    behind: tuple[InterfacePattern, ...] = Field(
        (),
        max_length=16,
        description="Interfaces behind which the switch itself runs: the bridge of its container "
        "(docker0, br-*), or the way to a PBX that this host leads the ports on to. What comes "
        "from there is never limited, and its answers teach.",
    )


class Media(Section):
    """RTP."""

    ports: tuple[PortRangeField, ...] = Field(
        (PortRange(10000, 20000),), description="UDP port ranges that carry RTP and RTCP."
    )
    sources: MediaFrom = Field(
        MediaFrom.ANYWHERE,
        description="`anywhere`; `peers`: only the media and signalling networks of trusted "
        "peers and learned sources; `expected`: also whom the switch itself sends RTP.",
    )
    expected_for: Duration = Field(
        60,
        description="With `media.sources: expected`, how long a source is expected after the "
        "switch has last sent it RTP or RTCP, 10s to 1h.",
    )
    notrack: Flag = Field(
        default=False,
        description="Keep RTP out of connection tracking: cheaper, but NAT of media stops.",
    )


class Peer(Section):
    """A carrier or customer whose packets are never limited, never banned, never inspected."""

    name: PeerName = Field(description="Lower-case name, unique; shown beside counters.")
    signalling: tuple[PeerAddress, ...] = Field(
        min_length=1,
        description="Addresses, networks or host names that send SIP. A name is followed by "
        "NAPTR and SRV (RFC 3263), with a port (sip.carrier.example:5060) by its addresses only.",
    )
    media: tuple[NetworkField, ...] = Field(
        (), description="Networks that send RTP, used with `media.sources: peers` and `expected`."
    )
    transports: tuple[Transport, ...] = Field(
        (), description="Trust only these transports; all when empty."
    )
    source_ports: tuple[PortRangeField, ...] = Field(
        (),
        max_length=16,
        description="Trust only these source ports (the switch's IP+Port), 64 in all.",
    )
    tier: Tier | None = Field(
        None, description="What the peer is sold; `tiers.enforce` caps its new INVITEs at it."
    )
    allow_any: Flag = Field(
        default=False, description="Permit a network that covers the whole Internet."
    )


class UserAgents(Section):
    """Changes to the shipped list of scanner signatures."""

    add: tuple[SignatureText, ...] = Field((), description="Further texts to drop.")
    remove: tuple[SignatureText, ...] = Field((), description="Shipped ids or texts to leave out.")
    optional: tuple[SignatureText, ...] = Field(
        (), description="Shipped ids of tier `optional` to switch on."
    )


class Scanners(Section):
    """What an unknown source may not send."""

    block_options: Flag = Field(
        default=True, description="Drop OPTIONS: the usual first packet of a scan."
    )
    block_unknown_methods: Flag = Field(
        default=True, description="Drop what starts with no SIP method and no SIP response."
    )
    signatures: Flag = Field(default=True, description="Search for the scanner signatures.")
    user_agents: UserAgents = UserAgents()


class ConnLimit(Section):
    """TCP connections held at once by unknown sources."""

    per_source: Count | None = Field(10, description="Per address (IPv6: per /64).")
    per_subnet: Count | None = Field(30, description="Per IPv4 /24 (IPv6: per /48).")


class StreamVolume(Section):
    """Bytes a minute that unknown sources may send over TCP, TLS and WebSocket, headers included.

    What comes over TLS cannot be read, so this bounds the guesses there: one has 250 bytes or more.
    Above it the connection ends with a reset.
    """

    per_connection: Count | None = Field(
        49152, description="Bytes a minute of one connection: a phone with 24 lamp keys registers."
    )
    per_source: Count | None = Field(
        393216, description="Bytes a minute of one source, all its connections together."
    )


class Recent(Section):
    """A window: at most `hits` requests of one unknown source in `seconds`."""

    hits: Count = Field(20, description="Packets remembered per address.")
    seconds: Duration = Field(60, description="Window.")


class Bucket(Section):
    """A token bucket."""

    rate: RateField = Field(description="Sustained rate.")
    burst: Burst = Field(description="Packets that may come at once.")


class HashLimit(Bucket):
    """Per (source, source port): fair to many phones behind one address."""

    rate: RateField = Rate(10, TimeUnit.SECOND)
    burst: Burst = 20
    expire: Duration = Field(30, description="Idle time after which a source is forgotten.")


class PerSource(Bucket):
    """Ceiling per address (IPv6: per /64), whatever the source port. Above it: a ban."""

    rate: RateField = Rate(20, TimeUnit.SECOND)
    burst: Burst = 150


class PerSubnet(Bucket):
    """Ceiling per IPv4 /24 and IPv6 /48, against scans spread over neighbours."""

    rate: RateField = Rate(100, TimeUnit.SECOND)
    burst: Burst = 500


class Methods(Section):
    """Per unknown source and SIP method, UDP; unset methods share the other limits only."""

    register_: Bucket | None = Field(None, alias="register", description="REGISTER requests.")
    invite: Bucket | None = Field(None, description="INVITE requests.")
    options: Bucket | None = Field(
        None, description="OPTIONS requests, where `scanners.block_options` is off."
    )
    other: Bucket | None = Field(None, description="All other requests together.")


class Limits(Section):
    """What unknown sources may do. Trusted peers never meet any of this."""

    unknown_sources: UnknownSources = Field(
        UnknownSources.LIMITED, description="`limited`, or `denied`: only trusted peers."
    )
    connlimit: ConnLimit | None = ConnLimit()
    stream: StreamVolume | None = StreamVolume()
    recent: Recent | None = Recent()
    hashlimit: HashLimit | None = HashLimit()
    per_source: PerSource | None = PerSource()
    per_subnet: PerSubnet | None = PerSubnet()
    methods: Methods = Methods()
    aggregate: RateField | None = Field(
        Rate(1000, TimeUnit.SECOND),
        description="All unknown sources together, before the costly tests; burst is one "
        "second's. Above it a first packet of a source and port is noted and dropped, and its "
        "repetition comes in.",
    )
    ipv6_prefix: Annotated[StrictInt, Field(ge=32, le=128)] = Field(
        64,
        description="How many bits of an IPv6 address are one source, as one address is in IPv4: "
        "a customer holds a /64 or more and may use any address in it.",
    )


class Learning(Section):
    """The switch's own replies as judge: success teaches, refused logins ban."""

    enabled: Flag = True
    registered_ttl: Duration = Field(3600, description="How long a success is remembered.")
    remembered_ttl: Duration = Field(
        1_814_400,
        description="How long a source that has logged in stays exempt from `limits.aggregate`, "
        "the cap on all unknown sources together, and from nothing else.",
    )
    failures: Annotated[StrictInt, Field(ge=1, le=255)] = Field(
        10,
        description="Refused logins in the window that shut one address and port, and ban a source "
        "that is not learned; five times as many ban a learned one.",
    )
    window: Duration = Field(60, description="Window of the failures.")
    pending: Duration = Field(
        32, description="How long a REGISTER or a login may wait for its answer."
    )
    ringing: Duration = Field(
        200, description="How long an INVITE may wait for its answer (RFC 3261, timer C: 180 s)."
    )
    rate: RateField = Field(
        Rate(100, TimeUnit.SECOND), description="Limit of a learned source, all ports together."
    )
    burst: Burst = 400


class Conntrack(Section):
    """Connection tracking sysctls; unset ones are left as they are."""

    max: TableSize | None = Field(
        None, description="nf_conntrack_max, entries; each takes 320 bytes."
    )
    udp_timeout: Duration | None = Field(None, description="Unanswered UDP, seconds.")
    udp_timeout_stream: Duration | None = Field(None, description="Answered UDP, seconds.")
    tcp_timeout_established: Duration | None = Field(None, description="Idle TCP, seconds.")


class Host(Section):
    """The rest of the host, only with `admin.networks`."""

    default_drop: Flag = Field(
        default=True,
        description="With admin networks: drop what no rule admits. Off: only SIP is guarded.",
    )
    tcp_ports: tuple[PortRangeField, ...] = Field((), description="TCP ports open to everybody.")
    udp_ports: tuple[PortRangeField, ...] = Field((), description="UDP ports open to everybody.")
    interfaces: tuple[InterfaceName, ...] = Field(
        (), description="Interfaces of an inner network, open entirely."
    )
    protocols: tuple[ProtocolName, ...] = Field(
        (),
        description="IP protocols open to everybody, such as vrrp, esp, gre or ospf.",
    )


class TierLimits(Section):
    """What one tier of peers is sold."""

    calls_per_second: CallRate = Field(description="New INVITEs per second and address.")
    concurrent: Count = Field(description="Concurrent calls, for the switch's own limits.")
    longest_call: Duration = Field(description="Longest call, for the switch's own limits.")


class Tiers(Section):
    """The four tiers."""

    enforce: Flag = Field(
        default=False,
        description="Drop a peer's INVITEs above its tier's figure, by address and port, over UDP. "
        "Off by default: who forges a peer's address and port uses up its figure.",
    )
    small: TierLimits = TierLimits(calls_per_second=10, concurrent=50, longest_call=1800)
    medium: TierLimits = TierLimits(calls_per_second=30, concurrent=200, longest_call=3600)
    large: TierLimits = TierLimits(calls_per_second=100, concurrent=500, longest_call=3600)
    premium: TierLimits = TierLimits(calls_per_second=200, concurrent=2000, longest_call=7200)


class Target(Section):
    """Facts about the host that will run the rules, where they matter for what can be said."""

    recent_hits: Annotated[StrictInt, Field(ge=1, le=65535)] = Field(
        20,
        description="Largest hit count of xt_recent: 20 on kernel 3.10 (CentOS 7), 255 on "
        "kernels 4 to 6, 65535 on newer ones.",
    )


class Policy(Section):
    """A whole policy, merged and checked."""

    profile: Identifier = Field("default", description="Shipped profile below this file.")
    switch: str | None = Field(None, description="Softswitch whose ports are meant.")
    admin: Admin = Admin()
    signalling: Signalling = Signalling()
    media: Media = Media()
    trusted_peers: tuple[Peer, ...] = ()
    scanners: Scanners = Scanners()
    limits: Limits = Limits()
    bans: Bans = Bans()
    learning: Learning = Learning()
    names: Names = Names()
    feeds: tuple[Feed, ...] = Field((), description="Block lists that others keep.")
    conntrack: Conntrack = Conntrack()
    host: Host = Host()
    tiers: Tiers = Tiers()
    logging: Logging = Logging()
    target: Target = Target()
