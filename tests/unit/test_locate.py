from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.resolver.locate import MOST_TARGETS, locate
from sipfw.resolver.records import DnsQuestion, Located, Naptr, RecordType, Reply, Srv, Unanswered

if TYPE_CHECKING:
    from sipfw.ruleset.addresses import IpAddress

A, AAAA, SRV, NAPTR = RecordType.A, RecordType.AAAA, RecordType.SRV, RecordType.NAPTR
Records = dict[tuple[str, RecordType], object]


def _ip(*texts: str) -> tuple[IpAddress, ...]:
    return tuple(ip_address(text) for text in texts)


def _found(
    zone: Records, name: str = "carrier.example", *, sip: bool = True, hosts: str = ""
) -> Located:
    """Ask a dictionary: tuples are records, a text is why there is no answer, rest is NXDOMAIN."""

    async def ask(asked: str, kind: RecordType) -> Reply:
        value = zone.get((asked, kind))
        if isinstance(value, str):
            raise Unanswered(value)
        if isinstance(value, tuple):
            return Reply(value, 60 if kind is SRV else 300)
        return Reply(exists=any(known == asked for known, _ in zone))

    return asyncio.run(locate(DnsQuestion(name, sip), ask, {hosts: _ip("192.0.2.9")}))


def _texts(found: Located) -> dict[str, str]:
    return {str(item.address): item.via for item in found.addresses}


SERVICES: Records = {
    ("_sip._udp.carrier.example", SRV): (
        Srv("sbc1.carrier.example.", 5060),
        Srv("SBC2.carrier.example.", 5070),
    ),
    ("_sips._tcp.carrier.example", SRV): (Srv("sbc1.carrier.example.", 5061),),
    ("sbc1.carrier.example", A): _ip("198.51.100.1"),
    ("sbc1.carrier.example", AAAA): _ip("2001:db8::1"),
    ("sbc2.carrier.example", A): _ip("198.51.100.2"),
    ("carrier.example", A): _ip("203.0.113.80"),
}


def test_all_srv_targets_count_and_the_web_server_of_that_name_does_not() -> None:
    found = _found(SERVICES)
    assert _texts(found) == {
        "198.51.100.1": "SRV _sip._udp.carrier.example, sbc1.carrier.example:5060",
        "2001:db8::1": "SRV _sip._udp.carrier.example, sbc1.carrier.example:5060",
        "198.51.100.2": "SRV _sip._udp.carrier.example, sbc2.carrier.example:5070",
    }
    assert (found.ttl, found.remarks, found.incomplete) == (60, (), None)


def test_a_host_or_a_name_with_a_port_has_its_own_addresses_only() -> None:
    assert _texts(_found(SERVICES, sip=False)) == {"203.0.113.80": "A"}


def test_without_srv_the_own_addresses_count() -> None:
    zone: Records = {("carrier.example", A): _ip("198.51.100.7")}
    assert _texts(_found(zone)) == {"198.51.100.7": "A"}
    assert _found(zone).ttl == 300


def test_naptr_leads_to_services_of_other_names() -> None:
    zone: Records = {
        ("carrier.example", NAPTR): (
            Naptr("s", "SIP+D2U", "_sip._udp.pool.example"),
            Naptr("S", "sips+d2t", "_sips._tcp.pool.example"),
            Naptr("u", "E2U+sip", "ignored.example"),
            Naptr("s", "FTP+D2T", "_ftp._tcp.pool.example"),
            Naptr("s", "SIP+D2T", "\\000\\010;reboot"),
        ),
        ("_sip._udp.pool.example", SRV): (Srv("a.pool.example.", 5060),),
        ("_sips._tcp.pool.example", SRV): (Srv("b.pool.example.", 5061),),
        ("_ftp._tcp.pool.example", SRV): (Srv("ftp.pool.example.", 21),),
        ("a.pool.example", A): _ip("198.51.100.1"),
        ("b.pool.example", A): _ip("198.51.100.2"),
        ("ftp.pool.example", A): _ip("198.51.100.3"),
    }
    assert list(_texts(_found(zone))) == ["198.51.100.1", "198.51.100.2"]


def test_the_name_of_a_service_itself_is_followed() -> None:
    found = _found(SERVICES, "_sip._udp.carrier.example")
    assert list(_texts(found)) == ["198.51.100.1", "2001:db8::1", "198.51.100.2"]


def test_what_root_wrote_into_the_hosts_file_counts_alone() -> None:
    assert _texts(_found(SERVICES, hosts="carrier.example")) == {"192.0.2.9": "/etc/hosts"}
    found = _found(SERVICES, hosts="sbc2.carrier.example")
    assert "198.51.100.2" not in _texts(found)
    assert "192.0.2.9" in _texts(found)
    assert {item.local for item in found.addresses} == {True, False}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("gone.carrier.example.", "its SRV target 'gone.carrier.example' has no address"),
        ("192.0.2.7.", "is not a host name"),
        ("a\\010b.example.", "is not a host name"),
        ("x;reboot.example.", "is not a host name"),
        (r"with\032blank.example.", "is not a host name"),
        ("one-label.", "is not a host name"),
        ("a" * 300 + ".example.", "is not a host name"),
    ],
)
def test_a_target_that_is_none_costs_itself_alone(target: str, said: str) -> None:
    known = SERVICES["_sip._udp.carrier.example", SRV]
    assert isinstance(known, tuple)
    zone = {**SERVICES, ("_sip._udp.carrier.example", SRV): (*known, Srv(target, 5060))}
    found = _found(zone)
    assert list(_texts(found)) == ["198.51.100.1", "2001:db8::1", "198.51.100.2"]
    [remark] = found.remarks
    assert said in remark
    assert remark.isprintable()
    assert len(remark) < 120


@pytest.mark.parametrize(
    "key",
    [
        ("_sip._tcp.carrier.example", SRV),
        ("carrier.example", NAPTR),
        ("sbc2.carrier.example", AAAA),
    ],
)
def test_a_part_that_cannot_be_asked_makes_the_answer_incomplete(
    key: tuple[str, RecordType],
) -> None:
    found = _found({**SERVICES, key: "no answer in time"})
    assert len(found.addresses) == 3
    assert found.incomplete == f"{key[1].value} of {key[0]}: no answer in time"


def test_the_web_server_that_does_not_answer_is_of_no_interest() -> None:
    assert _found({**SERVICES, ("carrier.example", A): "no answer in time"}).incomplete is None


def _refused(zone: Records, name: str = "carrier.example") -> str:
    with pytest.raises(Unanswered) as caught:
        _found(zone, name)
    return str(caught.value)


def test_what_is_no_answer_says_why() -> None:
    assert _refused({}) == "no such name"
    assert _refused({("carrier.example", SRV): ()}) == "the name has no address"
    silent: Records = dict.fromkeys(
        [("carrier.example", k) for k in RecordType], "no answer in time"
    )
    assert _refused(silent) == "no answer in time"
    nowhere: Records = {("_sip._udp.carrier.example", SRV): (Srv(".", 0),)}
    assert _refused(nowhere) == "its SRV records say that there is no SIP here"
    targets = tuple(Srv(f"t{n}.carrier.example.", 5060) for n in range(MOST_TARGETS + 1))
    many: Records = {("_sip._udp.carrier.example", SRV): targets}
    assert _refused(many) == "the answer holds 33 SRV targets"
