from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from sipfw.deploy.resolve import host_names, resolve
from sipfw.policy.model import Peer, Policy
from sipfw.policy.types import Hostname

if TYPE_CHECKING:
    from collections.abc import Callable


def _answering(**answers: list[str]) -> Callable[[str], list[str]]:
    return lambda name: answers[name]


def _addresses(*answer: str) -> list[str]:
    result = resolve(["a"], lookup=_answering(a=list(answer)))
    return [str(network) for network in result.addresses.get("a", ())]


def _failure(*answer: str) -> str:
    result = resolve(["a"], lookup=_answering(a=list(answer)))
    assert result.addresses == {}
    [(name, reason)] = result.failures
    assert name == "a"
    return reason


def test_addresses_are_sorted_and_each_stands_once() -> None:
    assert _addresses("198.51.100.2", "192.0.2.1", "2001:db8::1", "192.0.2.1") == [
        "192.0.2.1/32",
        "198.51.100.2/32",
        "2001:db8::1/128",
    ]


@pytest.mark.parametrize(
    "parked", ["0.0.0.0", "::", "127.0.0.1", "127.9.9.9", "::1", "224.0.0.1", "ff02::1"]
)
def test_an_address_that_is_nobody_is_not_trusted(parked: str) -> None:
    assert _failure(parked) == "the answer holds no usable address"
    assert _addresses(parked, "192.0.2.1") == ["192.0.2.1/32"]


def test_a_scope_is_dropped() -> None:
    assert _addresses("fe80::1%eth0") == ["fe80::1/128"]


def test_an_empty_answer_is_a_failure() -> None:
    assert _failure() == "the answer holds no usable address"


def test_a_thousand_addresses_are_no_carrier() -> None:
    many = [f"198.51.{n // 256}.{n % 256}" for n in range(1000)]
    assert _failure(*many) == "the answer holds 1000 addresses"
    assert len(_addresses(*many[:64])) == 64
    assert _failure(*many[:65]) == "the answer holds 65 addresses"


def test_a_name_that_does_not_exist_fails_alone() -> None:
    def lookup(name: str) -> list[str]:
        if name == "bad":
            raise OSError(-2, "Name or service not known")
        return ["192.0.2.1"]

    result = resolve(["good", "bad"], lookup=lookup)
    assert list(result.addresses) == ["good"]
    assert result.failures == (("bad", "Name or service not known"),)


def test_a_name_that_cannot_be_encoded_fails_alone() -> None:
    def lookup(name: str) -> list[str]:
        name.encode("ascii")
        return ["192.0.2.1"]

    result = resolve(["good", "b\xe4d"], lookup=lookup)
    assert list(result.addresses) == ["good"]
    assert [name for name, _ in result.failures] == ["b\xe4d"]


def test_a_slow_name_costs_the_deadline_and_no_more() -> None:
    release = threading.Event()

    def lookup(name: str) -> list[str]:
        if name.startswith("slow"):
            release.wait(5)
        return ["192.0.2.1"]

    started = time.monotonic()
    result = resolve(["slow-1", "quick", "slow-2"], deadline=0.1, lookup=lookup)
    release.set()
    assert time.monotonic() - started < 1
    assert list(result.addresses) == ["quick"]
    assert result.failures == (
        ("slow-1", "no answer in time"),
        ("slow-2", "no answer in time"),
    )


def test_names_are_looked_up_at_the_same_time() -> None:
    everybody = threading.Barrier(10)

    def lookup(_: str) -> list[str]:
        everybody.wait(5)
        return ["192.0.2.1"]

    assert len(resolve([f"n{n}" for n in range(10)], deadline=4, lookup=lookup).addresses) == 10


def test_no_names_need_no_time() -> None:
    result = resolve([], lookup=_answering())
    assert (result.addresses, result.failures) == ({}, ())


def test_each_host_name_of_a_policy_is_asked_once() -> None:
    peers = (
        Peer(name="a", signalling=("sip.b.example", "192.0.2.1", "sip.a.example")),
        Peer(name="b", signalling=("SIP.B.example.",)),
    )
    assert isinstance(peers[1].signalling[0], Hostname)
    assert host_names(Policy(trusted_peers=peers)) == ["sip.a.example", "sip.b.example"]


def test_a_mapped_address_is_the_ipv4_address() -> None:
    assert _addresses("::ffff:192.0.2.1") == ["192.0.2.1/32"]
