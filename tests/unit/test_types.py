from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.policy.quantities import parse_burst, parse_count, parse_duration, parse_rate, shown
from sipfw.policy.types import (
    Hostname,
    parse_admin_address,
    parse_identifier,
    parse_interface,
    parse_network,
    parse_peer_address,
    parse_port,
    parse_port_range,
    parse_text,
)
from sipfw.ruleset.match import PortRange, Rate, TimeUnit

if TYPE_CHECKING:
    from collections.abc import Callable

PARSERS = [
    parse_identifier,
    parse_interface,
    parse_network,
    parse_peer_address,
    parse_port,
    parse_port_range,
    parse_rate,
    parse_duration,
    parse_count,
    parse_burst,
    parse_text,
]

# Text fields whose value later stands in a script, a rule or a listing.
TEXT_PARSERS = [parse_identifier, parse_interface, parse_network, parse_peer_address]

INJECTIONS = [
    "$(reboot)", "`reboot`", "a;reboot", "a&b", "a|b", "a>b", "a b", "a\tb", "a\nb", "a\rb", "a\0b",
    'a"b', "a'b", "a\\b", "a$b", "a*b", "a?b", "a[b", "a{b", "a#b", "a!b", "a~b", "a(b",
    "a\u00a0b", "a\u2028b", "é", "a\u202eb", "../x", "a/b",
]  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("parse", TEXT_PARSERS)
def test_nothing_with_a_meaning_to_a_shell_gets_in(
    parse: Callable[[object], object], text: str
) -> None:
    for value in (text, f"eth0{text}", f"{text}eth0", f"192.0.2.1{text}", f"sip.example.com{text}"):
        with pytest.raises(ValueError, match=r"is not|is neither|host bits"):
            parse(value)


@pytest.mark.parametrize("text", ["-j", "--jump"])
@pytest.mark.parametrize("parse", TEXT_PARSERS)
def test_no_value_looks_like_an_option(parse: Callable[[object], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|is neither"):
        parse(text)


@pytest.mark.parametrize("parse", [*TEXT_PARSERS, parse_rate, parse_duration])
@pytest.mark.parametrize("good", ["a", "eth0", "192.0.2.1", "sip.example.com", "10/s", "1h"])
def test_a_line_break_at_the_end_is_no_part_of_a_value(
    parse: Callable[[object], object], good: str
) -> None:
    """`$` in a regular expression would let it through."""
    with pytest.raises(ValueError, match=r"is not|is neither"):
        parse(f"{good}\n")


@pytest.mark.parametrize(
    "text", ["fe80::1%eth0", "fe80::1%$(reboot)", "fe80::1%a\nadd x 0.0.0.0/1"]
)
def test_an_ipv6_scope_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        parse_network(text)


@pytest.mark.parametrize("name", ["cafe.de", "abc.ae", "fab.bed.be"])
def test_a_host_name_of_hex_letters_is_a_host_name(name: str) -> None:
    assert parse_peer_address(name) == Hostname(name)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_rate, "9" * 5000 + "/s"),
        (parse_duration, "9" * 5000),
        (parse_port_range, "9" * 5000 + "-1"),
        (parse_network, "9" * 5000 + ".0.2.1"),
    ],
)
def test_thousands_of_digits_get_our_own_message(
    parse: Callable[[object], object], text: str
) -> None:
    with pytest.raises(ValueError, match=r"write"):
        parse(text)


_ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
)


@given(value=_ANYTHING)
@pytest.mark.parametrize("parse", PARSERS)
def test_a_parser_answers_or_raises_value_error(
    parse: Callable[[object], object], value: object
) -> None:
    try:
        said = str(parse(value))
    except ValueError as error:
        said = str(error)
    assert said.isprintable()


@pytest.mark.parametrize("name", ["a", "carrier-a", "a1", "a" * 31])
def test_identifiers(name: str) -> None:
    assert parse_identifier(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a_b", "a.b", "a" * 32, None, 5])
def test_no_identifiers(name: object) -> None:
    with pytest.raises(ValueError, match=r"is not a name"):
        parse_identifier(name)


@pytest.mark.parametrize("name", ["lo", "eth0", "eth0.100", "veth@x", "br-lan", "a" * 15])
def test_interfaces(name: str) -> None:
    assert parse_interface(name) == name


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_networks(text: str, network: str) -> None:
    assert parse_network(text) == parse_peer_address(text) == ip_network(network)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("192.0.2.1/24", "has host bits set; write 192.0.2.0/24 for the network or 192.0.2.1"),
        ("2001:db8::1/64", "write 2001:db8::/64 for the network or 2001:db8::1 for one host"),
        ("192.0.2.500", "write 192.0.2.50 or a CIDR"),
        ("192.0.2.010", "write 192.0.2.10 or a CIDR"),
        ("192.0.2", "write one like 192.0.2.10 or 2001:db8::10"),
        ("192.0.2.1/33", "is not an address; write 192.0.2.1 or a CIDR"),
        ("", "is not an address"),
        (3221225985, "write it as text"),
    ],
)
def test_no_networks(text: object, advice: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address|has host bits set") as raised:
        parse_network(text)
    assert advice in str(raised.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sip.carrier.example", "sip.carrier.example"),
        ("SIP.Carrier.Example.", "sip.carrier.example"),
        ("_sip._udp.example.com", "_sip._udp.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1st.example", "1st.example"),
    ],
)
def test_host_names(text: str, name: str) -> None:
    assert parse_peer_address(text) == Hostname(name)


@pytest.mark.parametrize(
    "text", ["localhost", "a..b", ".a.b", "-a.example", "a-.example", "x" * 64 + ".example",
             "a." * 127 + "toolong", "1.2.3.4.5", "999.1.1.1", "bücher.example"]
)  # fmt: skip
def test_no_host_names(text: str) -> None:
    with pytest.raises(ValueError, match=r"is neither|is not an address"):
        parse_peer_address(text)


@pytest.mark.parametrize("value", [0, 65536, -1, True, "5060", 5060.0, None])
def test_no_ports(value: object) -> None:
    with pytest.raises(ValueError, match=r"write a number from 1 to 65535"):
        parse_port(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5060, PortRange(5060, 5060)),
        ("10000-20000", PortRange(10000, 20000)),
        ("1-65535", PortRange(1, 65535)),
        ("7-7", PortRange(7, 7)),
        ("1 - 2", PortRange(1, 2)),
    ],
)
def test_port_ranges(value: object, expected: PortRange) -> None:
    assert parse_port_range(value) == expected


@pytest.mark.parametrize(
    "value", ["2-1", "0-5", "1-65536", "-", "1-", "-5", "a-b", "1:2", "5060", ""]
)
def test_no_port_ranges(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not a port|is reversed"):
        parse_port_range(value)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/second", Rate(10, TimeUnit.SECOND)),
        ("10/s", Rate(10, TimeUnit.SECOND)),
        ("60 / min", Rate(60, TimeUnit.MINUTE)),
        ("1/h", Rate(1, TimeUnit.HOUR)),
        ("10000/second", Rate(10_000, TimeUnit.SECOND)),
        ("600000/minute", Rate(600_000, TimeUnit.MINUTE)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["10", 10, "0/s", "10001/s", "600001/minute", "10/day", "-1/s", "1.5/s", "/s", "10/S", ""],
)
def test_no_rates(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a rate|would block everything|faster than"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (60, 60),
        ("60", 60),
        ("30s", 30),
        ("10m", 600),
        ("1h", 3600),
        ("7d", 604_800),
        ("49d", 4_233_600),
    ],
)
def test_durations(value: object, seconds: int) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value", [0, -1, "0s", "1.5h", "50d", "1w", "1H", "h", "", True, None, 4_294_968]
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|is out of range"):
        parse_duration(value)


def test_counts_and_bursts() -> None:
    assert (parse_count(1), parse_count(0x7FFFFFFF), parse_burst(10_000)) == (1, 0x7FFFFFFF, 10_000)
    for value in (0, -1, True, "5", 1.0, 0x80000000):
        with pytest.raises(ValueError, match=r"is not a limit|is too large"):
            parse_count(value)
    with pytest.raises(ValueError, match=r"write at most 10000"):
        parse_burst(10_001)


def test_a_shown_value_is_short_and_harmless() -> None:
    assert shown("a\x1b[31m\nb") == r"'a\x1b[31m\x0ab'"
    assert shown("x" * 61) == f"'{'x' * 60}…'"
    assert shown("right\u202eleft") == r"'right\x202eleft'"


def test_a_host_name_may_have_a_port_and_an_administrators_may_not() -> None:
    assert parse_peer_address("SIP.a.example.:5080") == Hostname("sip.a.example", 5080)
    assert str(Hostname("sip.a.example", 5080)) == "sip.a.example:5080"
    assert Hostname("sip.a.example").key != Hostname("sip.a.example", 5080).key
    assert parse_admin_address("Office.example") == Hostname("office.example")
    for wrong in ("office.example:22", "office", "office.example;x", "", None, 5):
        with pytest.raises(ValueError, match=r"write |has a port"):
            parse_admin_address(wrong)
