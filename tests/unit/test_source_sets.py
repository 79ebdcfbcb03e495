"""One source in the kernel's sets: by its prefix, by its ports, with the entry's own counters."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.host.runner import Completed, SubprocessRunner
from sipfw.kernel.netlink import elements as nft_elements
from sipfw.kernel.netlink.socket import attribute, nested
from sipfw.kernel.state.members import IpsetMembers, Member, NftMembers, SetEntry, SetRemoval
from sipfw.kernel.state.sources import Held, IpsetSets, NftSets, RecentSets
from sipfw.ruleset.match import L4Proto, PrefixLengths
from sipfw.ruleset.model import AddressSet, SetKind
from sipfw.ruleset.rule import Origin
from sipfw.ruleset.source import Door

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sipfw.ruleset.addresses import IpAddress

ORIGIN = Origin("learning", "policy.yaml")
SOURCES = AddressSet(
    "stream-sources",
    SetKind.HOST,
    "",
    ORIGIN,
    timeout=60,
    counted=True,
    prefix=PrefixLengths(32, 64),
)
ENDPOINTS = AddressSet("streams", SetKind.ENDPOINT, "", ORIGIN, timeout=60, counted=True)
UDP, TCP = Door(L4Proto.UDP, 5060), Door(L4Proto.TCP, 49152)
FOUR, SIX = ip_address("192.0.2.2"), ip_address("2001:db8::77")


class Programs(SubprocessRunner):
    """`ipset` and `nft` with these sets; keeps what it was told to change."""

    def __init__(self, sets: dict[str, str]) -> None:
        self._sets = sets
        self.asked: list[str] = []
        self.changes = ""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        assert timeout > 0
        assert env is None
        self.asked.append(" ".join(argv))
        if stdin:
            self.changes += stdin
            return Completed(0, "", "")
        if list(argv[:2]) == ["ipset", "test"]:
            found = any(line.split()[0] == argv[3] for line in self._sets[argv[2]].splitlines())
            return Completed(0, "", "") if found else Completed(1, "", f"{argv[3]} is NOT in set")
        name = argv[-1]
        if name not in self._sets:
            gone = "does not exist" if argv[0] == "ipset" else "No such file or directory"
            return Completed(1, "", gone)
        if argv[0] == "nft":
            return Completed(0, self._sets[name], "")
        lines = self._sets[name].splitlines()
        return Completed(0, "".join(f"add {name} {line}\n" for line in lines), "")


def test_ipset_tells_of_a_source_by_its_prefix() -> None:
    programs = Programs({"sipfw-stream-sources6": "2001:db8:: timeout 31 packets 9 bytes 4800"})
    held = IpsetSets(programs).held(SOURCES, SIX)
    assert held == Held(present=True, left=31, packets=9, bytes=4800)
    assert programs.asked[0] == "ipset test sipfw-stream-sources6 2001:db8::"


def test_ipset_tells_of_one_port_or_of_all() -> None:
    lines = [
        "192.0.2.2,udp:5060 timeout 31 packets 1 bytes 400",
        "192.0.2.2,tcp:49152 timeout 0 packets 2 bytes 90",
        "192.0.2.22,udp:5060 timeout 9 packets 1 bytes 1",
    ]
    sets = IpsetSets(Programs({"sipfw-streams4": "\n".join(lines)}))
    assert sets.held(ENDPOINTS, FOUR, UDP) == Held(present=True, left=31, packets=1, bytes=400)
    assert sets.held(ENDPOINTS, FOUR, Door(L4Proto.TCP, 5060)) == Held(present=False)
    found = sets.doors(ENDPOINTS, FOUR)
    assert found is not None
    assert {door: held.left for door, held in found.items()} == {UDP: 31, TCP: None}


def test_nftables_is_asked_for_the_masked_key(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bytes]] = []

    def element(name: str, key: bytes) -> nft_elements.Element:
        asked.append((name, key))
        return nft_elements.Element(key, 12.5)

    monkeypatch.setattr(nft_elements, "element", element)
    assert NftSets().held(SOURCES, SIX) == Held(present=True, left=12.5)
    assert NftSets().held(ENDPOINTS, FOUR, UDP).present
    assert asked == [
        ("stream-sources6", ip_address("2001:db8::").packed),
        ("streams4", FOUR.packed + b"\x11\0\0\0\x13\xc4\0\0"),
    ]


@pytest.mark.parametrize("most", [3, 20_000])
def test_nftables_tells_of_all_ports_unless_the_set_is_too_long(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("sipfw.kernel.state.sources._MOST", most)
    keys = [
        FOUR.packed + b"\x11\0\0\0\x13\xc4\0\0",
        FOUR.packed + b"\x06\0\0\0\xc0\0\0\0",
        ip_address("192.0.2.3").packed + b"\x11\0\0\0\x13\xc4\0\0",
    ]
    every = [nft_elements.Element(key, 9.0) for key in keys]
    monkeypatch.setattr(nft_elements, "elements", lambda *_: every)
    found = NftSets().doors(ENDPOINTS, FOUR)
    assert (None if found is None else set(found)) == (None if most == 3 else {UDP, TCP})


def test_all_of_a_set_of_targets() -> None:
    sets = {
        "sipfw-lost4": "192.0.2.2,udp:9000 timeout 86000 packets 600 bytes 110400",
        "sipfw-lost6": "2001:db8::77,tcp:8088 timeout 9 packets 3 bytes 180",
    }
    assert IpsetSets(Programs(sets)).targets("lost") == {
        (FOUR, Door(L4Proto.UDP, 9000)): Held(present=True, left=86000, packets=600, bytes=110400),
        (SIX, Door(L4Proto.TCP, 8088)): Held(present=True, left=9, packets=3, bytes=180),
    }
    assert IpsetSets(Programs({})).targets("lost") == {}
    assert RecentSets().targets("lost") == {}


def test_nftables_tells_what_each_target_has_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {
        "lost4": [nft_elements.Element(FOUR.packed + b"\x11\0\0\0\x23\x28\0\0", 5.0, 600)],
        "lost6": [nft_elements.Element(SIX.packed + b"\x06\0\0\0\x1f\x98\0\0", 6.0)],
    }
    monkeypatch.setattr(nft_elements, "elements", lambda name, _: held[name])
    assert NftSets().targets("lost") == {
        (FOUR, Door(L4Proto.UDP, 9000)): Held(present=True, left=5.0, packets=600),
        (SIX, Door(L4Proto.TCP, 8088)): Held(present=True, left=6.0),
    }


@pytest.mark.parametrize(("name", "packets"), [(b"counter\0", 600), (b"limit\0", None)])
def test_an_element_tells_its_own_counter(name: bytes, packets: int | None) -> None:
    counter = attribute(1, (110_400).to_bytes(8, "big")) + attribute(2, (600).to_bytes(8, "big"))
    expression = attribute(1, name) + nested(2, counter)
    left = attribute(5, (1500).to_bytes(8, "big"))
    data = nested(1, attribute(1, FOUR.packed)) + left + nested(7, expression)
    assert nft_elements._element(data) == nft_elements.Element(FOUR.packed, 1.5, packets)


def test_lists_know_no_ports() -> None:
    with pytest.raises(LookupError):
        RecentSets().doors(ENDPOINTS, FOUR)


def test_members_of_endpoint_sets_have_a_door(monkeypatch: pytest.MonkeyPatch) -> None:
    ipset = Programs({"sipfw-shut4": "192.0.2.2,udp:5060 timeout 31"})
    assert IpsetMembers(ipset).read(["shut"]) == {"shut": (Member(FOUR, 31, None, UDP),)}
    _nft_set(monkeypatch, "shut4", (FOUR, UDP, 31.0), (FOUR, TCP, None))
    members = (Member(FOUR, 31, None, UDP), Member(FOUR, None, None, TCP))
    assert NftMembers(Programs({})).read(["shut"]) == {"shut": members}


def _nft_set(
    monkeypatch: pytest.MonkeyPatch, name: str, *held: tuple[IpAddress, Door, float | None]
) -> None:
    """Have the kernel hold these endpoints in a set of our table, and nothing in all others."""
    numbers = {L4Proto.UDP: 17, L4Proto.TCP: 6}
    found = [
        nft_elements.Element(
            address.packed
            + bytes([numbers[door.proto], 0, 0, 0])
            + door.port.to_bytes(2, "big")
            + b"\0\0",
            left,
        )
        for address, door, left in held
    ]
    monkeypatch.setattr(nft_elements, "elements", lambda asked, _: found if asked == name else [])


def test_an_endpoint_is_taken_out_with_its_door(monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [
        SetRemoval("shut", FOUR, UDP),
        SetRemoval("banned", FOUR),
        SetEntry("blocked", FOUR, 60),
    ]
    ipset = Programs({})
    IpsetMembers(ipset).edit(edits)
    assert ipset.changes.splitlines() == [
        "del sipfw-shut4 192.0.2.2,udp:5060",
        "del sipfw-banned4 192.0.2.2",
        "add sipfw-blocked4 192.0.2.2 timeout 60",
    ]
    _nft_set(monkeypatch, "shut4", (FOUR, UDP, 31.0))
    nft = Programs({})
    NftMembers(nft).edit(edits)
    assert nft.changes.splitlines() == [
        "add element inet sipfw shut4 { 192.0.2.2 . udp . 5060 }",
        "delete element inet sipfw shut4 { 192.0.2.2 . udp . 5060 }",
        "add element inet sipfw blocked4 { 192.0.2.2 timeout 60s }",
    ]
