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

from sipfw.policy.signatures import check_text
from sipfw.ruleset.match import PortRange, Rate, TimeUnit

Network = IPv4Network | IPv6Network

# hashlimit revision 1 (kernel 3.10, CentOS 7) takes no faster rate and no larger burst.
MAX_RATE_PER_SECOND = 10_000
MAX_BURST = 10_000

# Eight groups of four digits, seven colons, a prefix length.
_LONGEST_NETWORK = 43

# A tier's burst is twice its rate, and hashlimit's burst ends at MAX_BURST.
MAX_CALLS = MAX_BURST // 2

# ipset refuses a larger timeout: UINT_MAX / MSEC_PER_SEC, linux/netfilter/ipset/ip_set_timeout.h.
MAX_DURATION = 4_294_967

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"^(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})+\.?\Z")
_LOOKS_NUMERIC = re.compile(r":|^[0-9.]+(?:/|$)")
_IDENTIFIER = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
# IFNAMSIZ is 16 with the final NUL (linux/if.h).
_LONGEST_INTERFACE = 15
_INTERFACE = re.compile(rf"^[A-Za-z0-9][A-Za-z0-9_.@-]{{0,{_LONGEST_INTERFACE - 1}}}\Z")
_RATE = re.compile(r"^([0-9]{1,12}) */ *(s|sec|second|m|min|minute|h|hour)\Z")
_PORT_RANGE = re.compile(r"^([0-9]{1,7}) ?- ?([0-9]{1,7})\Z")
_DURATION = re.compile(r"^([0-9]{1,12})(s|m|h|d)?\Z")
_DURATION_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE_UNITS = {"s": TimeUnit.SECOND, "m": TimeUnit.MINUTE, "h": TimeUnit.HOUR}


@dataclass(frozen=True, slots=True, order=True)
class Hostname:
    """A peer named by DNS; resolved when the ruleset is made, never in the packet path."""

    name: str

    def __str__(self) -> str:
        return self.name


# How YAML writes what Python calls otherwise.
_YAML_WORDS = {"None": "null", "True": "true", "False": "false"}


def shown(value: object) -> str:
    """Quote an operator's value for a message, shortened and with control characters visible."""
    text = value if isinstance(value, str) else _YAML_WORDS.get(repr(value), repr(value))
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"


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
    """Accept an address, a network, or a fully qualified host name."""
    if isinstance(value, str) and not _LOOKS_NUMERIC.search(value):
        # A name whose last label is a number is an address with a slip (RFC 3696, 2).
        if _HOSTNAME.match(value) and not value.rstrip(".").rpartition(".")[2].isdigit():
            return Hostname(value.rstrip(".").lower())
        raise ValueError(
            f"{shown(value)} is neither an address nor a host name; "
            "write 192.0.2.10, 192.0.2.0/24 or sip.carrier.example"
        )
    return parse_network(value)


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
            raise ValueError(f"{shown(value)} is not a port range; write it like 10000-20000")
        low, high = parse_port(int(found[1])), parse_port(int(found[2]))
        if low > high:
            raise ValueError(f"{shown(value)} is reversed; write {high}-{low}")
        return PortRange(low, high)
    port = parse_port(value)
    return PortRange(port, port)


def parse_rate(value: object) -> Rate:
    """Accept `10/second`, `60/minute`, `100/hour`."""
    found = _RATE.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{shown(value)} is not a rate; write it like 10/second or 60/minute")
    rate = Rate(int(found[1]), _RATE_UNITS[found[2][0]])
    if rate.amount == 0:
        raise ValueError(f"{shown(value)} would block everything; write at least 1/hour")
    if rate.amount > MAX_RATE_PER_SECOND * rate.unit.seconds:
        raise ValueError(
            f"{shown(value)} is faster than the kernel's hashlimit counts; "
            f"write at most {MAX_RATE_PER_SECOND}/second"
        )
    return rate


def parse_duration(value: object) -> int:
    """Accept seconds as a number, or `30s`, `10m`, `1h`, `7d`; gives seconds."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = _DURATION.match(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{shown(value)} is not a duration; write it like 3600s, 60m, 1h or 7d")
    seconds = int(found[1]) * _DURATION_SECONDS[found[2] or "s"]
    if not 1 <= seconds <= MAX_DURATION:
        raise ValueError(f"{shown(value)} is out of range; write 1s to 49d")
    return seconds


def parse_count(value: object) -> int:
    """Accept a whole number of at least 1."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        if value > 0x7FFFFFFF:
            raise ValueError(f"{shown(value)} is too large; write at most {0x7FFFFFFF}")
        return value
    raise ValueError(f"{shown(value)} is not a limit; write a whole number of at least 1")


def parse_burst(value: object) -> int:
    """Accept a bucket size in packets."""
    if parse_count(value) > MAX_BURST:
        raise ValueError(f"{shown(value)} is more than the kernel takes; write at most {MAX_BURST}")
    return parse_count(value)


def parse_calls(value: object) -> int:
    """Accept new calls per second of one peer."""
    if parse_count(value) > MAX_CALLS:
        raise ValueError(
            f"{shown(value)} is more than the kernel counts; write at most {MAX_CALLS}"
        )
    return parse_count(value)


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
Port = Annotated[
    int,
    BeforeValidator(parse_port),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535}),
]
PortRangeField = Annotated[
    PortRange,
    BeforeValidator(parse_port_range),
    _AS_TEXT,
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
    "Burst",
    "CallRate",
    "Count",
    "Duration",
    "Hostname",
    "Identifier",
    "InterfaceName",
    "Network",
    "NetworkField",
    "PeerAddress",
    "Port",
    "PortRangeField",
    "RateField",
    "SignatureText",
    "shown",
]
