"""What a resolver may say, and how far it is believed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import yaml

from sipfw.deploy.manual_list import Book, ManualEntry, write_page
from sipfw.deploy.names.answers import Answer, Standards, standards
from sipfw.deploy.names.resolve import ADMINS, PEERS
from sipfw.host.files import Layout
from sipfw.policy.model import Policy
from sipfw.policy.names import Names
from sipfw.resolver.records import FoundAddress, Located

if TYPE_CHECKING:
    from pathlib import Path

NAME = "sip.a.example"
GOOD = "198.51.100.9"
ANYBODY = Standards()


def _judge(
    *texts: str,
    bounds: Standards = ANYBODY,
    key: str = NAME,
    use: str = PEERS,
    local: bool = False,
) -> Answer | str:
    found = tuple(FoundAddress(ip_address(text), "A", local) for text in texts)
    return bounds.judge(key, use, Located(found))


def _addresses(answer: Answer | str) -> list[str]:
    assert isinstance(answer, Answer), answer
    return [str(item.network.network_address) for item in answer.listed]


def test_addresses_are_sorted_and_each_stands_once() -> None:
    answer = _judge("198.51.100.2", "192.0.2.1", "2001:db8::1", "192.0.2.1")
    assert _addresses(answer) == ["192.0.2.1", "198.51.100.2", "2001:db8::1"]


@pytest.mark.parametrize(
    "lie",
    ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.255.255.250", "240.0.0.1",
     "255.255.255.255", "169.254.169.254", "::", "::1", "ff02::1", "fe80::1", "fec0::1",
     "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1", "100::1", "4000::1"],
)  # fmt: skip
def test_an_address_that_is_nobodys_is_not_believed(lie: str) -> None:
    said = _judge(lie)
    assert isinstance(said, str)
    assert "is nobody's address" in said
    answer = _judge(lie, GOOD)
    assert _addresses(answer) == [GOOD]
    assert isinstance(answer, Answer)
    [remark] = answer.remarks
    assert "is nobody's address" in remark


PRIVATE = ["10.0.0.7", "172.16.3.4", "192.168.1.1", "100.64.0.9", "fd00::1", "::ffff:10.0.0.7"]


@pytest.mark.parametrize("lie", PRIVATE)
@pytest.mark.parametrize("use", [PEERS, ADMINS])
def test_a_private_address_is_believed_of_own_names_only(lie: str, use: str) -> None:
    said = _judge(lie, use=use)
    assert isinstance(said, str)
    assert said.endswith("is private, and the name is not in names.allow_private")
    assert _addresses(_judge(lie, GOOD, use=use)) == [GOOD]
    allowed = Standards(Names(allow_private=(NAME,)))
    for key in (NAME, f"{NAME} A/AAAA"):
        assert len(_addresses(_judge(lie, bounds=allowed, key=key, use=use))) == 1
    assert isinstance(_judge(lie, bounds=allowed, key="other.example", use=use), str)
    for inner in ("pbx.lan", "pbx.office.internal", "sbc.home.arpa", "x.local"):
        assert len(_addresses(_judge(lie, key=inner, use=use))) == 1
    assert isinstance(_judge(lie, key="pbx.notlan", use=use), str)


def test_what_root_wrote_into_the_hosts_file_may_be_private_but_not_loopback() -> None:
    assert _addresses(_judge("10.0.0.7", local=True)) == ["10.0.0.7"]
    assert isinstance(_judge("127.0.1.1", local=True), str)


def test_a_mapped_address_is_the_ipv4_address() -> None:
    assert _addresses(_judge("::ffff:192.0.2.1", "64:ff9b::c000:201")) == [
        "192.0.2.1",
        "64:ff9b::c000:201",
    ]


@pytest.mark.parametrize("use", [PEERS, ADMINS])
def test_this_host_is_no_peer_of_its_own(use: str) -> None:
    bounds = Standards(own=frozenset({ip_address("203.0.113.1")}))
    assert _judge("203.0.113.1", bounds=bounds, use=use) == "203.0.113.1 is this host itself"


def test_ten_thousand_addresses_are_refused_as_a_whole() -> None:
    many = [f"198.51.{n // 256}.{n % 256}" for n in range(10_000)]
    assert _judge(*many) == "the answer holds 10,000 addresses"
    assert len(_addresses(_judge(*many[:64]))) == 64
    assert _judge(*many[:65]) == "the answer holds 65 addresses"
    assert _judge(*many[:3], bounds=Standards(Names(max_addresses=2))) == (
        "the answer holds 3 addresses"
    )


def test_ten_thousand_lies_are_one_line() -> None:
    lies = [f"10.1.{n // 256}.{n % 256}" for n in range(10_000)]
    for answer in (_judge(*lies), _judge(*lies, GOOD)):
        said = answer if isinstance(answer, str) else "\n".join(answer.remarks)
        assert said.count("\n") == 0
        assert len(said) < 400
        assert said.endswith("and 9,997 more")


def test_whom_an_operator_has_banned_no_name_lets_in(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    entries = {
        ip_address(text): ManualEntry(ip_address(text), 1_000_000, 1_003_600, "", "root")
        for text in ("198.51.100.66", "2001:db8:0:7::")
    }
    entries = {a: replace(k, since=2**35, until=2**35 + 3600) for a, k in entries.items()}
    write_page(layout, Book.BANS, entries)
    bounds = standards(Policy(), layout)
    answer = _judge("198.51.100.66", "2001:db8:0:7::99", GOOD, bounds=bounds)
    assert _addresses(answer) == [GOOD]
    assert isinstance(answer, Answer)
    assert [text.partition(" ")[2] for text in answer.remarks] == [
        "is banned by hand; see sipfw bans"
    ] * 2
    # A ban is about SIP, an administrator's name about ssh.
    assert _addresses(_judge("198.51.100.66", bounds=bounds, use=ADMINS)) == ["198.51.100.66"]


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        ("source_ports: [5060]", True),
        ("transports: [udp]", True),
        ("tier: small", True),
        ("transports: []", False),
        ("allow_any: true, transports: [udp]", False),
    ],
)
def test_a_name_does_not_widen_what_the_file_gives_to_another_peer(
    other: str, refused: bool
) -> None:
    policy = Policy.model_validate(
        yaml.safe_load(f"""
tiers: {{enforce: true}}
trusted_peers:
  - {{name: a, signalling: [{NAME}]}}
  - {{name: b, signalling: [198.51.100.64/28], {other}}}
""")
    )
    bounds = replace(standards(policy), own=frozenset())
    said = _judge("198.51.100.70", bounds=bounds)
    if refused:
        assert said == "198.51.100.70 belongs to b, whom the policy trusts for less"
    else:
        assert _addresses(said) == ["198.51.100.70"]
    assert _addresses(_judge("198.51.100.80", bounds=bounds)) == ["198.51.100.80"]


def test_two_customers_behind_one_address_may_be_told_apart_by_their_ports() -> None:
    policy = Policy(
        trusted_peers=(
            {"name": "a", "signalling": [NAME], "source_ports": [5062]},
            {"name": "b", "signalling": ["198.51.100.70"], "source_ports": [5060]},
        )
    )
    assert _addresses(_judge("198.51.100.70", bounds=standards(policy))) == ["198.51.100.70"]
