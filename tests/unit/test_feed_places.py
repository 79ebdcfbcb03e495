"""A list of the Internet never leads its reader into this host or the networks behind it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from sipfw.feeds import places
from sipfw.feeds.errors import FeedError
from sipfw.feeds.fetch import NOTHING_SEEN, fetch
from sipfw.feeds.places import AddressScope, connect, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = {
    "203.0.113.9": AddressScope.PUBLIC,
    "2001:db8::1": AddressScope.PUBLIC,
    "2606:4700::1": AddressScope.PUBLIC,
    "127.0.0.1": AddressScope.LOOPBACK,
    "127.255.0.3": AddressScope.LOOPBACK,
    "0.0.0.0": AddressScope.LOOPBACK,
    "::1": AddressScope.LOOPBACK,
    "::": AddressScope.LOOPBACK,
    "::ffff:127.0.0.1": AddressScope.LOOPBACK,
    "::127.0.0.1": AddressScope.LOOPBACK,
    "169.254.169.254": AddressScope.LINK_LOCAL,
    "::ffff:169.254.169.254": AddressScope.LINK_LOCAL,
    "64:ff9b::a9fe:a9fe": AddressScope.LINK_LOCAL,
    "64:ff9b:1::a9fe:a9fe": AddressScope.LINK_LOCAL,
    "fe80::1": AddressScope.LINK_LOCAL,
    "10.0.0.1": AddressScope.PRIVATE,
    "172.31.0.1": AddressScope.PRIVATE,
    "172.32.0.1": AddressScope.PUBLIC,
    "192.168.1.1": AddressScope.PRIVATE,
    "100.64.0.1": AddressScope.PRIVATE,
    "198.18.0.1": AddressScope.PRIVATE,
    "fd00:ec2::254": AddressScope.PRIVATE,
    "fec0::1": AddressScope.PRIVATE,
    "2002:c0a8:101::1": AddressScope.PRIVATE,
    "2001:0:1::3f57:fefe": AddressScope.PRIVATE,
    "64:ff9b::cb00:7109": AddressScope.PUBLIC,
    "224.0.0.1": AddressScope.NOBODYS,
    "255.255.255.255": AddressScope.NOBODYS,
    "ff02::1": AddressScope.NOBODYS,
}


@pytest.mark.parametrize("text", PLACES)
def test_where_an_address_is(text: str) -> None:
    assert place_of(ip_address(text)) is PLACES[text]


@pytest.fixture
def port() -> Iterator[int]:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "017700000001", "127.1", "localhost", "0.0.0.0"]
)
def test_a_public_list_leads_to_no_spelling_of_this_host(host: str, port: int) -> None:
    with pytest.raises(FeedError, match="leads to a loopback, link-local or private address"):
        connect(host, port, time.monotonic() + 2, AddressScope.PUBLIC)
    opened, place = connect(host, port, time.monotonic() + 2, AddressScope.LOOPBACK)
    opened.close()
    assert place is AddressScope.LOOPBACK


def test_a_list_inside_may_lead_elsewhere_inside_but_not_everywhere(port: int) -> None:
    with pytest.raises(FeedError):
        connect("127.0.0.1", port, time.monotonic() + 2, AddressScope.PRIVATE)
    for address in ("169.254.169.254", "224.0.0.1", "10.0.0.1"):
        with pytest.raises(FeedError):
            connect(address, port, time.monotonic() + 2, AddressScope.LOOPBACK)


def resolving(answers: list[str], port: int) -> Any:
    """Return a resolver that says something else each time."""

    def answer(*_: Any, **__: Any) -> list[Any]:
        text = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))]

    return answer


def test_a_name_that_turns_into_a_metadata_service(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(places.socket, "getaddrinfo", resolving(["169.254.169.254"], port))
    with pytest.raises(FeedError, match="link-local"):
        fetch("http://lists.example/", NOTHING_SEEN, deadline=2.0)


def test_a_redirect_to_a_name_that_turns_inwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer is taken for a public one, so that somebody can redirect."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        where = server.getsockname()[1]
        real = place_of
        monkeypatch.setattr(
            places,
            "place_of",
            lambda it: AddressScope.PUBLIC if str(it) == "127.0.0.1" else real(it),
        )
        answers = ["127.0.0.1", "127.0.0.2"]
        monkeypatch.setattr(places.socket, "getaddrinfo", resolving(answers, where))
        asked = _redirecting(server, b"http://lists.example/again")
        with pytest.raises(FeedError, match="leads to a loopback"):
            fetch("http://lists.example/", NOTHING_SEEN, deadline=2.0)
        asked.join(2)
    assert answers == []


def _redirecting(server: socket.socket, location: bytes) -> Any:
    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(
                b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
            )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread
