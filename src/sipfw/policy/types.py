"""Scalars of the policy file, each with a message that says what to write instead.

Everything that could later stand in a script, a rule or a file name is constrained here, so that
no other module has to quote or escape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from sipfw.policy.quantities import (
    MAX_BURST,
    MAX_CALLS,
    MAX_CONNTRACK,
    MAX_SET,
    parse_burst,
    parse_calls,
    parse_count,
    parse_duration,
    parse_rate,
    parse_set_size,
    parse_table_size,
    shown,
)
from sipfw.policy.signatures import check_text
from sipfw.ruleset.match import IP_PROTOCOLS, PortRange, Rate

Network = IPv4Network | IPv6Network

# Eight groups of four digits, seven colons, a prefix length.
_LONGEST_NETWORK = 43

# What a lookup that follows no SRV has behind its name; no host name holds a blank.
ADDRESSES_ONLY = " A/AAAA"

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"^(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})+\.?\Z")
_HOST_AND_PORT = re.compile(r"^([A-Za-z0-9_.-]{1,254}):([0-9]{1,7})\Z")
_LOOKS_NUMERIC = re.compile(r":|^[0-9.]+(?:/|$)")
_IDENTIFIER = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
_PEER_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,30}\Z")
# IFNAMSIZ is 16 with the final NUL (linux/if.h).
_LONGEST_INTERFACE = 15
_INTERFACE = re.compile(rf"^[A-Za-z0-9][A-Za-z0-9_.@-]{{0,{_LONGEST_INTERFACE - 1}}}\Z")
_PORT_RANGE = re.compile(r"^([0-9]{1,7}) ?- ?([0-9]{1,7})\Z")


@dataclass(frozen=True, slots=True, order=True)
class Hostname:
    """A peer named by DNS; resolved when the ruleset is made, never in the packet path.

    With a port only the name's own addresses count, no NAPTR and no SRV (RFC 3263, 4.1 and 4.2).
    """

    name: str
    port: int | None = None

    def __str__(self) -> str:
        return self.name if self.port is None else f"{self.name}:{self.port}"

    @property
    def key(self) -> str:
        """Say what is asked of DNS for a SIP peer; answers are kept by it."""
        return self.name if self.port is None else self.host_key

    @property
    def host_key(self) -> str:
        """Say the same where the name is that of a host, as an administrator's is."""
        return f"{self.name}{ADDRESSES_ONLY}"


def parse_identifier(value: object, *, longest: int = 31) -> str:
    """Accept a lower-case name that is safe as part of an id, a set name and a file name.

    A `longest` below 31 is for the message; the caller says so itself of a name that is sound.
    """
    if isinstance(value, str) and _IDENTIFIER.match(value):
        return value
    raise ValueError(
        f"{shown(value)} is not a name; write lower-case letters, digits and '-', "
        f"a letter first, at most {longest} characters"
    )


def parse_peer_name(value: object) -> str:
    """Accept a lower-case name; no set and no chain is called after a peer."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'{shown(value)} is a number; write it in quotes: "{value}"')
    if isinstance(value, str) and _PEER_NAME.match(value):
        return value
    raise ValueError(
        f"{shown(value)} is not a name; write lower-case letters, digits and '-', "
        "a letter or digit first, at most 31 characters"
    )


def parse_interface(value: object) -> str:
    """Accept a Linux interface name."""
    if isinstance(value, str) and _INTERFACE.match(value):
        return value
    raise ValueError(f"{shown(value)} is not an interface name; see `ip -br link`")


def parse_interface_pattern(value: object) -> str:
    """Accept an interface name, or the beginning of one with a `*` behind it."""
    if isinstance(value, str) and len(value) <= _LONGEST_INTERFACE:
        start = value.removesuffix("*")
        if _INTERFACE.match(start):
            return value
    raise ValueError(
        f"{shown(value)} is not an interface name; see `ip -br link`, or write the beginning of "
        "a name with a '*' behind it, such as 'br-*'"
    )


def parse_network(value: object) -> Network:
    """Accept an address or a CIDR network without host bits."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not an address; write it as text, like 192.0.2.0/24")
    # ip_network would keep an IPv6 scope (`fe80::1%eth0`), whatever characters it holds.
    if "%" in value or len(value) > _LONGEST_NETWORK:
        raise ValueError(f"{shown(value)} is not an address; write one like 2001:db8::10")
    try:
        network = ip_network(value)
    except ValueError as error:
        raise ValueError(_network_advice(value)) from error
    mapped = network.network_address
    if mapped.version == 6 and mapped.ipv4_mapped is not None:
        raise ValueError(
            f"{shown(value)} is an IPv4 address in IPv6 form, which no packet carries; "
            f"write {mapped.ipv4_mapped}"
        )
    return network


def _network_advice(value: str) -> str:
    try:
        wide = ip_network(value, strict=False)
    except ValueError:
        return f"{shown(value)} is not an address; write {_nearest_address(value)} or a CIDR"
    address = value.split("/", maxsplit=1)[0]
    return (
        f"{shown(value)} has host bits set; write {wide} for the network or {address} for one host"
    )


def _nearest_address(value: str) -> str:
    """Suggest a correction: an octet with a digit too many is the usual slip."""
    octets = value.split("/", maxsplit=1)[0].split(".")
    if len(octets) == 4 and all(part.isascii() and part.isdigit() for part in octets):
        fixed = ".".join(part if int(part) <= 255 else part[:2] for part in octets)
        fixed = ".".join(str(int(part)) for part in fixed.split("."))
        return str(ip_address(fixed))
    return "one like 192.0.2.10 or 2001:db8::10"


def parse_peer_address(value: object) -> Network | Hostname:
    """Accept an address, a network, or a fully qualified host name, which may have a port."""
    if isinstance(value, str):
        with_port = _HOST_AND_PORT.match(value)
        if with_port and is_host_name(with_port[1]):
            return Hostname(_plain(with_port[1]), parse_port(int(with_port[2])))
        if not _LOOKS_NUMERIC.search(value):
            if is_host_name(value):
                return Hostname(_plain(value))
            raise ValueError(
                f"{shown(value)} is neither an address nor a host name; "
                "write 192.0.2.10, 192.0.2.0/24 or sip.carrier.example"
            )
    return parse_network(value)


def parse_admin_address(value: object) -> Network | Hostname:
    """Accept an address, a network, or the host name of an administrator's line."""
    if isinstance(value, str):
        host, colon, _ = value.partition(":")
        if is_host_name(host) and not _LOOKS_NUMERIC.search(host):
            if colon:
                raise ValueError(f"{shown(value)} has a port; write {_plain(host)}")
            return Hostname(_plain(host))
    return parse_network(value)


def parse_host_name(value: object) -> str:
    """Accept a fully qualified host name; gives it in lower case."""
    if isinstance(value, str) and is_host_name(value):
        return _plain(value)
    raise ValueError(f"{shown(value)} is not a host name; write one like pbx.office.example")


def is_host_name(text: str) -> bool:
    """Tell a fully qualified host name; one whose last label is a number is none (RFC 3696, 2)."""
    return bool(_HOSTNAME.match(text)) and not text.rstrip(".").rpartition(".")[2].isdigit()


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


def parse_port(value: object) -> int:
    """Accept 1 to 65535."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise ValueError(f"{shown(value)} is not a port; write a number from 1 to 65535")


def parse_port_range(value: object) -> PortRange:
    """Accept one port or `first-last`."""
    if isinstance(value, str):
        found = _PORT_RANGE.match(value.strip())
        if found is None:
            raise ValueError(
                f"{shown(value)} is not a port; write a number from 1 to 65535, or a range like "
                "10000-20000"
            )
        low, high = parse_port(int(found[1])), parse_port(int(found[2]))
        if low > high:
            raise ValueError(f"{shown(value)} is reversed; write {high}-{low}")
        return PortRange(low, high)
    port = parse_port(value)
    return PortRange(port, port)


def _port_as_written(value: PortRange) -> Any:
    """Give a single port as the number that stands in a file."""
    return value.first if value.first == value.last else str(value)


def parse_text(value: object) -> str:
    """Accept a text that the kernel can search for, see `signatures.check_text`."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a text; write it in quotes")
    problem = check_text(value)
    if problem is not None:
        raise ValueError(f"{shown(value)}: {problem}")
    return value


def _text_schema(description: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, "examples": [*examples]})


def _mixed_schema(description: str, *examples: Any) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": ["string", "integer"], "description": description, "examples": [*examples]}
    )


_AS_TEXT = PlainSerializer(str, return_type=str)

Identifier = Annotated[str, BeforeValidator(parse_identifier)]
PeerName = Annotated[str, BeforeValidator(parse_peer_name)]


def parse_protocol(value: object) -> str:
    """Accept the name of an IP protocol that has no ports, in any case."""
    name = value.lower() if isinstance(value, str) else ""
    if name in IP_PROTOCOLS:
        return name
    raise ValueError(f"{shown(value)} is not an IP protocol; write {', '.join(IP_PROTOCOLS)}")


ProtocolName = Annotated[str, BeforeValidator(parse_protocol)]
InterfaceName = Annotated[str, BeforeValidator(parse_interface)]
InterfacePattern = Annotated[str, BeforeValidator(parse_interface_pattern)]
NetworkField = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(parse_network),
    _AS_TEXT,
    _text_schema("address or CIDR network", "192.0.2.10", "2001:db8::/32"),
]
PeerAddress = Annotated[
    IPv4Network | IPv6Network | Hostname,
    BeforeValidator(parse_peer_address),
    _AS_TEXT,
    _text_schema("address, CIDR network or host name", "203.0.113.10", "sip.carrier.example"),
]
AdminAddress = Annotated[
    IPv4Network | IPv6Network | Hostname,
    BeforeValidator(parse_admin_address),
    _AS_TEXT,
    _text_schema("address, CIDR network or host name", "192.0.2.0/28", "office.example"),
]
HostnameText = Annotated[
    str,
    BeforeValidator(parse_host_name),
    _text_schema("fully qualified host name", "pbx.office.example"),
]
Port = Annotated[
    int,
    BeforeValidator(parse_port),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535}),
]
PortRangeField = Annotated[
    PortRange,
    BeforeValidator(parse_port_range),
    PlainSerializer(_port_as_written),
    _mixed_schema("port or first-last", 5060, "10000-20000"),
]
RateField = Annotated[
    Rate,
    BeforeValidator(parse_rate),
    _AS_TEXT,
    _text_schema("events per second, minute or hour", "10/second", "60/minute"),
]
Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    _mixed_schema("seconds, or a number with s, m, h or d", "30s", "1h", 3600),
]
Count = Annotated[
    int, BeforeValidator(parse_count), WithJsonSchema({"type": "integer", "minimum": 1})
]
Burst = Annotated[
    int,
    BeforeValidator(parse_burst),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_BURST}),
]
SetSize = Annotated[
    int,
    BeforeValidator(parse_set_size),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_SET}),
]
TableSize = Annotated[
    int,
    BeforeValidator(parse_table_size),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_CONNTRACK}),
]
CallRate = Annotated[
    int,
    BeforeValidator(parse_calls),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_CALLS}),
]
SignatureText = Annotated[
    str,
    BeforeValidator(parse_text),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 128}),
]

__all__ = [
    "ADDRESSES_ONLY",
    "AdminAddress",
    "Burst",
    "CallRate",
    "Count",
    "Duration",
    "Hostname",
    "HostnameText",
    "Identifier",
    "InterfaceName",
    "Network",
    "NetworkField",
    "PeerAddress",
    "PeerName",
    "Port",
    "PortRangeField",
    "ProtocolName",
    "RateField",
    "SetSize",
    "SignatureText",
    "TableSize",
    "shown",
]
