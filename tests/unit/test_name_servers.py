"""Questions to a real name server on loopback that answers well, badly, or not at all."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from lab.name_server import NameServer
from sipfw.resolver import name_servers
from sipfw.resolver.name_servers import NameServers
from sipfw.resolver.records import Naptr, RecordType, Reply, Srv, Unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    monkeypatch.setattr(name_servers, "_SECONDS", 0.5)
    monkeypatch.setattr(name_servers, "_TRY_SECONDS", 0.2)
    with NameServer({}) as found:
        yield found


def _ask(server: NameServer, name: str, kind: RecordType) -> Reply | str:
    async def one() -> Reply | str:
        try:
            return await NameServers(["127.0.0.1"], server.port).ask(name, kind)
        except Unanswered as error:
            return str(error)

    return asyncio.run(one())


def _addresses(reply: Reply | str) -> list[str]:
    assert isinstance(reply, Reply), reply
    return [str(record) for record in reply.records]


def test_records_come_back_as_plain_values(server: NameServer) -> None:
    server.zone |= {
        ("a.example", "A"): ["198.51.100.1", "198.51.100.2"],
        ("a.example", "AAAA"): ["2001:db8::1"],
        ("_sip._udp.a.example", "SRV"): ["10 20 5070 SBC.a.example.", "0 0 0 ."],
        ("a.example", "NAPTR"): ['10 10 "s" "SIP+D2U" "" _sip._udp.A.example.'],
    }
    assert set(_addresses(_ask(server, "a.example", RecordType.A))) == {
        "198.51.100.1",
        "198.51.100.2",
    }
    assert _addresses(_ask(server, "a.example", RecordType.AAAA)) == ["2001:db8::1"]
    srv = _ask(server, "_sip._udp.a.example", RecordType.SRV)
    assert isinstance(srv, Reply)
    assert set(srv.records) == {Srv("SBC.a.example.", 5070), Srv(".", 0)}
    assert srv.ttl == 300
    naptr = _ask(server, "a.example", RecordType.NAPTR)
    assert naptr == Reply((Naptr("s", "SIP+D2U", "_sip._udp.a.example"),), 300)


def test_no_record_and_no_name_are_told_apart(server: NameServer) -> None:
    server.zone |= {("a.example", "A"): ["198.51.100.1"]}
    assert _ask(server, "a.example", RecordType.SRV) == Reply()
    assert _ask(server, "b.example", RecordType.A) == Reply(exists=False)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("hang", "no answer in time"),
        ("servfail", "no name server can be asked: SERVFAIL"),
        ("refused", "no name server can be asked: REFUSED"),
        ("other-id", "no answer in time"),
    ],
)
def test_a_server_that_does_not_answer_says_why_in_time(
    server: NameServer, how: str, said: str
) -> None:
    server.zone["a.example", "A"] = how
    started = time.monotonic()
    assert _ask(server, "a.example", RecordType.A) == said
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("how", ["garbage", "other-name"])
def test_an_answer_that_is_none_is_none(server: NameServer, how: str) -> None:
    server.zone["a.example", "A"] = how
    assert isinstance(_ask(server, "a.example", RecordType.A), str)


def test_a_chain_of_aliases_is_followed_and_a_ring_is_not(server: NameServer) -> None:
    server.zone |= {
        ("a.example", "CNAME"): ["b.example."],
        ("b.example", "CNAME"): ["c.example."],
        ("c.example", "A"): ["198.51.100.3"],
        ("ring.example", "CNAME"): ["gnir.example."],
        ("gnir.example", "CNAME"): ["ring.example."],
    }
    server.zone |= {(f"n{n}.example", "CNAME"): [f"n{n + 1}.example."] for n in range(40)}
    assert _addresses(_ask(server, "a.example", RecordType.A)) == ["198.51.100.3"]
    for name in ("ring.example", "n0.example"):
        assert isinstance(_ask(server, name, RecordType.A), str)


def test_a_large_answer_comes_over_tcp(server: NameServer) -> None:
    many = [f"198.51.100.{n}" for n in range(250)]
    server.zone["a.example", "A"] = "truncated"
    server.truncated = {("a.example", "A"): many}
    assert sorted(_addresses(_ask(server, "a.example", RecordType.A))) == sorted(many)


def test_a_name_is_never_completed_by_a_search_list(server: NameServer) -> None:
    _ask(server, "a.example", RecordType.A)
    assert set(server.asked) == {("a.example", "A")}
