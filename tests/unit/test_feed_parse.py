"""A list's bytes to networks: what is taken, what is left out and said, what is not a list."""

from __future__ import annotations

import gzip
import time
from contextlib import suppress
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipfw.feeds.errors import FeedError
from sipfw.feeds.parse import SPECIAL, TOO_WIDE, UNREADABLE, Parsed, parse
from sipfw.feeds.ranges import distinct, networks_of, span_of, touched, without
from sipfw.policy.feed import Feed


def read(text: str | bytes, **fields: Any) -> Parsed:
    data = text.encode("utf-8") if isinstance(text, str) else text
    return parse(data, Feed(name="x", file="/x", **fields))


def texts(found: Parsed) -> list[str]:
    return [str(network) for network in found.networks]


def counts(found: Parsed) -> dict[str, int]:
    return {item.reason: item.count for item in found.left_out}


def test_addresses_networks_comments_and_blank_lines() -> None:
    found = read(
        "\ufeff# head\r\n\r\n203.0.113.9\r\n198.51.100.0/24 ; SBL1\n  192.0.2.1/32  # x\n"
        "; note\n2001:DB8:0::5\n2001:db8:66::/48\n203.0.113.9\n"
    )
    assert texts(found) == [
        "192.0.2.1/32",
        "198.51.100.0/24",
        "203.0.113.9/32",
        "2001:db8::5/128",
        "2001:db8:66::/48",
    ]
    assert found.left_out == ()


def test_neighbours_stay_single_and_nothing_overlaps() -> None:
    found = read("203.0.113.0\n203.0.113.1\n198.51.100.0/24\n198.51.100.128/25\n198.51.100.7\n")
    assert texts(found) == ["198.51.100.0/24", "203.0.113.0/32", "203.0.113.1/32"]


def test_a_host_part_is_cut_off() -> None:
    assert texts(read("203.0.113.9/24\n2001:db8::9/64\n")) == ["203.0.113.0/24", "2001:db8::/64"]


@pytest.mark.parametrize(
    "line",
    [
        "203.0.113.010",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.9/33",
        "203.0.113.9/",
        "203.0.113.9/+8",
        "203.0.113.9/255.255.255.0",
        "203.0.113.9 timeout 0",
        "203.0.113.9,203.0.113.10",
        "203.0.113.9-203.0.113.12",
        "203.0.113.9 } ; delete table inet sipfw".replace(";", ","),
        "203.0.113.9\x00",
        "\uff12\uff10\uff13.0.113.9",
        "0xcb007109",
        "3405803785",
        "2001:db8::1%eth0",
        "2001:db8::1/129",
        ":::",
        "add sipfw-x 203.0.113.9",
        "$(reboot)",
        "x" * 600,
    ],
)
def test_what_is_not_exactly_an_address_is_left_out(line: str) -> None:
    found = read(f"203.0.113.77\n{line}\n")
    assert texts(found) == ["203.0.113.77/32"]
    assert [(item.reason, item.count, item.first) for item in found.left_out] == [
        (UNREADABLE, 1, 2)
    ]


def test_what_follows_a_comment_sign_is_a_comment() -> None:
    assert texts(read("203.0.113.9; flush ruleset\n203.0.113.10 # $(reboot)\n")) == [
        "203.0.113.9/32",
        "203.0.113.10/32",
    ]


@pytest.mark.parametrize(
    "network",
    [
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "172.31.0.0/16",
        "192.0.0.8",
        "192.168.1.0/24",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::ffff:203.0.113.9",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "64:ff9b::1",
    ],
)
def test_private_and_nobodys_addresses_are_left_out(network: str) -> None:
    found = read(f"203.0.113.77\n{network}\n")
    assert texts(found) == ["203.0.113.77/32"]
    assert counts(found) == {SPECIAL: 1}


@pytest.mark.parametrize("network", ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "2000::/3"])
def test_large_parts_of_the_internet_are_left_out(network: str) -> None:
    assert counts(read(f"203.0.113.77\n{network}\n")) == {TOO_WIDE: 1}


def test_the_policy_says_how_wide_a_network_may_be() -> None:
    found = read(
        "203.0.113.0/24\n203.0.113.0/23\n2001:db8::/32\n", min_prefix={"ip": 24, "ip6": 48}
    )
    assert texts(found) == ["203.0.113.0/24"]
    assert counts(found) == {TOO_WIDE: 2}


def test_private_networks_are_cut_out_of_wider_ones() -> None:
    found = read("172.0.0.0/8\n")
    for text in ("172.15.255.255", "172.32.0.0", "172.255.0.1"):
        assert any(ip_address(text) in network for network in found.networks)
    assert not any(network.overlaps(ip_network("172.16.0.0/12")) for network in found.networks)
    assert sum(network.num_addresses for network in found.networks) == 2**24 - 2**20


def test_a_login_page_and_garbage_are_no_lists() -> None:
    page = "<html>\n<head></head>\n<body>\n203.0.113.9\n</body>\n"
    for data in (page.encode(), bytes(range(256)) * 50, b"\x1f\x8b" + bytes(999), b"x" * 9999):
        with pytest.raises(FeedError, match="is not a list of addresses"):
            read(data)


def test_a_list_that_is_too_long_is_refused_as_a_whole() -> None:
    lines = "\n".join(f"203.0.113.{number}" for number in range(6))
    assert len(read(lines, max_entries=6).networks) == 6
    with pytest.raises(FeedError, match="more than 5 entries; raise max_entries"):
        read(lines, max_entries=5)


def test_two_million_lines_end_at_the_cap() -> None:
    started = time.monotonic()
    data = b"".join(b"%d.%d.%d.1\n" % (n >> 16 | 16, n >> 8 & 255, n & 255) for n in range(1 << 21))
    made = time.monotonic()
    with pytest.raises(FeedError, match="more than 65,536 entries"):
        read(data)
    assert time.monotonic() - made < max(5.0, 2 * (made - started))


def test_blank_lines_without_end_are_refused() -> None:
    with pytest.raises(FeedError, match="more than 4,000,000 lines"):
        read(b"\n" * 4_000_001)


def test_an_empty_list_is_empty() -> None:
    assert read(b"") == read(b"# nothing\n\n") == Parsed(())


def test_csv_takes_one_column() -> None:
    text = 'id,"ip",note\n1,"203.0.113.9","a, b"\n2, 203.0.113.10 ,x\n# c\n3,203.0.113.11\n4\n'
    found = read(text, format="csv", column=2)
    assert texts(found) == ["203.0.113.9/32", "203.0.113.10/32", "203.0.113.11/32"]
    assert counts(found) == {UNREADABLE: 2}


def test_an_open_quote_swallows_no_other_line() -> None:
    found = read('"203.0.113.9\n203.0.113.10,x\n203.0.113.11,"\n', format="csv")
    assert "203.0.113.10/32" in texts(found)


def test_json_takes_an_array_of_texts() -> None:
    found = read('[ "203.0.113.9",\n"2001:db8::/64" , "junk"]\n', format="json")
    assert texts(found) == ["203.0.113.9/32", "2001:db8::/64"]
    assert [str(item) for item in found.left_out] == ["1 no address (first: 3)"]
    assert read("[]", format="json") == Parsed(())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"a": ["203.0.113.9"]}',
        '["203.0.113.9"',
        '["203.0.113.9",]',
        '["203.0.113.9"] x',
        "[1, 2]",
        '[["203.0.113.9"]]',
        "[" * 100_000,
        '["203.0.113.\\u0039"]',
    ],
)
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(FeedError, match="is no JSON array"):
        read(text, format="json")


def test_a_compressed_file_is_no_list() -> None:
    with pytest.raises(FeedError, match="is not a list of addresses"):
        read(gzip.compress(b"203.0.113.9\n" * 100))


@settings(max_examples=150)
@given(st.binary(max_size=300), st.sampled_from(["list", "csv", "json"]))
def test_any_bytes_give_networks_or_one_reason(data: bytes, form: str) -> None:
    with suppress(FeedError):
        assert all(network.prefixlen >= 8 for network in read(data, format=form).networks)


_NETWORKS = st.builds(
    lambda start, length: ip_network((start >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1),
    st.integers(8, 32),
)


@settings(max_examples=300)
@given(st.lists(_NETWORKS, max_size=30), st.lists(_NETWORKS, max_size=10))
def test_cutting_takes_exactly_the_holes(networks: list[Any], holes: list[Any]) -> None:
    spans = distinct(map(span_of, networks))
    left = networks_of(without(spans, map(span_of, holes)), 4)
    for one, other in pairwise(left):
        assert one.broadcast_address < other.network_address
    for network in (*networks, *holes, *left):
        for number in (int(network.network_address), int(network.broadcast_address)):
            for address in {number, max(number - 1, 0), min(number + 1, 2**32 - 1)}:
                value = ip_address(address)
                wanted = any(value in n for n in networks) and not any(value in n for n in holes)
                assert any(value in n for n in left) is wanted
    for hole in holes:
        meets = any(hole.overlaps(network) for network in networks)
        assert touched(spans, span_of(hole)) is meets


WIDE = {
    "every /8": "".join(f"{number}.0.0.0/8\n" for number in range(256)),
    "every /16 of four /8s": "".join(f"{20 + n // 256}.{n % 256}.0.0/16\n" for n in range(1024)),
    "IPv6": "".join(
        f"{start}:{number:x}000::/20\n"
        for start in ("2400", "2600", "2a00", "2c00")
        for number in range(16)
    ),
}


@pytest.mark.parametrize("text", WIDE.values(), ids=WIDE)
def test_a_list_of_everybody_is_no_list(text: str) -> None:
    with pytest.raises(FeedError, match=r"covers [\d.]+ % of all IPv\d .* is 1/64; raise"):
        read(text)
    assert read(text, max_coverage="1/1").networks


def test_only_what_somebody_can_have_counts() -> None:
    # 6000::/3 and the like are nobody's (RFC 4291), and 3000::/4 was given to nobody yet.
    assert read("3000::/19\n3001::/19\n" + "10.0.0.0/8\n20.0.0.0/8\n").networks
    nested = "20.0.0.0/8\n" + "".join(f"20.{n}.0.0/16\n" for n in range(256)) * 3
    assert len(read(nested, max_coverage="1/200").networks) == 1
    with pytest.raises(FeedError, match=r"covers 0\.5 %"):
        read(nested, max_coverage="1/250")
