from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sipfw.deploy.names.resolve import host_names, name_of, resolve
from sipfw.policy.model import Peer, Policy
from sipfw.policy.types import Hostname
from sipfw.resolver import together
from sipfw.resolver.records import DnsQuestion, FoundAddress, Located, Unanswered

if TYPE_CHECKING:
    import pytest

GOOD = Located((FoundAddress(ip_address("192.0.2.1"), "A"),))


async def _good(_: DnsQuestion) -> Located:
    return GOOD


def test_a_name_that_does_not_exist_fails_alone() -> None:
    async def lookup(question: DnsQuestion) -> Located:
        if question.name == "bad.example":
            raise Unanswered("no such name")
        return GOOD

    assert resolve(["good.example", "bad.example"], lookup=lookup) == {
        "good.example": GOOD,
        "bad.example": "no such name",
    }


def test_an_answer_that_breaks_its_reader_fails_alone() -> None:
    async def lookup(question: DnsQuestion) -> Located:
        if question.name == "bad.example":
            raise IndexError("hostile text")
        return GOOD

    found = resolve(["good.example", "bad.example"], lookup=lookup)
    assert found == {
        "good.example": GOOD,
        "bad.example": "the answer cannot be read: IndexError",
    }


def test_a_slow_name_costs_the_deadline_and_no_more() -> None:
    async def lookup(question: DnsQuestion) -> Located:
        if question.name.startswith("slow"):
            await asyncio.sleep(60)
        return GOOD

    started = time.monotonic()
    found = resolve(["slow-1.example", "quick.example", "slow-2.example"], 0.1, lookup)
    assert time.monotonic() - started < 30
    assert found == {
        "slow-1.example": "no answer in time",
        "quick.example": GOOD,
        "slow-2.example": "no answer in time",
    }


def test_names_are_looked_up_at_the_same_time() -> None:
    everybody = asyncio.Barrier(100)

    async def lookup(_: DnsQuestion) -> Located:
        await everybody.wait()
        return GOOD

    found = resolve([f"n{n}.example" for n in range(100)], lookup=lookup)
    assert set(map(str, found.values())) == {str(GOOD)}


def test_no_names_need_no_time() -> None:
    assert resolve([], lookup=_good) == {}


def test_a_resolver_that_cannot_be_set_up_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("nameserver x is not an address")

    monkeypatch.setattr(together, "_Dns", broken)
    [reason] = resolve(["a.example"]).values()
    assert reason == "/etc/resolv.conf cannot be used: nameserver x is not an address"


def test_what_a_policy_asks_of_dns() -> None:
    peers = (
        Peer(name="a", signalling=("sip.b.example", "192.0.2.1", "sip.a.example")),
        Peer(name="b", signalling=("SIP.B.example.", "sip.c.example:5080")),
    )
    policy = Policy(trusted_peers=peers, admin={"networks": ["office.example", "sip.a.example"]})
    assert peers[1].signalling == (Hostname("sip.b.example"), Hostname("sip.c.example", 5080))
    names = host_names(policy)
    assert names == {
        "office.example A/AAAA": "admin.networks",
        "sip.a.example": "trusted_peers",
        "sip.a.example A/AAAA": "admin.networks",
        "sip.b.example": "trusted_peers",
        "sip.c.example A/AAAA": "trusted_peers",
    }
    assert list(names) == sorted(names)
    assert Policy.model_validate(policy.model_dump(mode="json", by_alias=True)) == policy


def test_a_name_with_a_port_and_an_administrators_are_no_sip_services() -> None:
    asked: list[DnsQuestion] = []

    async def lookup(question: DnsQuestion) -> Located:
        asked.append(question)
        return GOOD

    keys = [Hostname("a.example").key, Hostname("b.example", 5060).key]
    resolve([*keys, Hostname("c.example").host_key], lookup=lookup)
    assert asked == [
        DnsQuestion("a.example", sip=True),
        DnsQuestion("b.example", sip=False),
        DnsQuestion("c.example", sip=False),
    ]
    assert [name_of(key) for key in keys] == ["a.example", "b.example"]
