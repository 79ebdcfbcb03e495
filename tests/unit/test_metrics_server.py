"""The exporter's HTTP: what it answers, and that no client can hold it up."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import BackendError
from sipfw.monitor.metrics.address import ListenAddress, parse_address
from sipfw.monitor.metrics.http import HttpRequest, HttpResponse, best_format, parse
from sipfw.monitor.metrics.scrape import Cached, Scrape
from sipfw.monitor.metrics.server import MOST_CONNECTIONS, Exporter, serve
from sipfw.monitor.metrics.text import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What Prometheus 2.42 and 3.0 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Server:
    """An exporter on a free port, and what it told the operator."""

    def __init__(self, page: Callable[[Format], str]) -> None:
        self.said: list[str] = []
        self.exporter = Exporter(ListenAddress("127.0.0.1", 0), page, self.said.append)
        self.port: int = self.exporter.server_address[1]
        self.told = threading.Event()
        self._thread = threading.Thread(target=serve, args=(self.exporter, self.told))
        self._thread.start()

    def ask(
        self, path: str = "/metrics", method: str = "GET", accept: str | None = None
    ) -> tuple[int, str, dict[str, str]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers={"Accept": accept} if accept else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.getheaders())
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            client.sendall(data)
            received = b""
            while more := client.recv(65536):
                received += more
            return received

    def stop(self) -> None:
        self.told.set()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(lambda form: f"page in {form}\n")
    yield made
    made.stop()


def test_a_scrape_gets_the_format_that_it_asks_for(server: Server) -> None:
    status, body, headers = server.ask(accept=PROMETHEUS_2)
    assert (status, body) == (200, "page in openmetrics\n")
    assert headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    status, body, headers = server.ask()
    assert (status, body) == (200, "page in prometheus\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS_2, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ('Application/OpenMetrics-Text; version="0.0.1"', Format.OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", Format.PROMETHEUS),
        ("application/openmetrics-text;q=0, text/plain", Format.PROMETHEUS),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.5", Format.PROMETHEUS),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.PROMETHEUS),
        ("", Format.PROMETHEUS),
        (";;;,,q=;q=9,application/openmetrics-text;q=x", Format.OPENMETRICS),
    ],
)
def test_the_format_follows_the_accept_header(accept: str, wanted: Format) -> None:
    assert best_format(accept) is wanted


def test_other_paths_and_methods_are_refused(server: Server) -> None:
    assert server.ask("/metrics?x=1")[:2] == (200, "page in prometheus\n")
    status, body, headers = server.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert 'href="/metrics"' in body
    assert server.ask("/etc/passwd")[0] == 404
    assert server.ask("/metrics/../x")[0] == 404
    status, _, headers = server.ask(method="POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, body, headers = server.ask(method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, "", "19")
    # http.client reads no body after HEAD, so whether one was sent shows on the wire only.
    assert server.raw(b"HEAD /metrics HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"\xff\xfe\x00 / HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\nAccept: x\r\n\r\n",
        b"GET /" + 9000 * b"x",
    ],
)
def test_what_is_no_request_gets_its_answer(server: Server, data: bytes) -> None:
    assert server.raw(data).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_head_may_come_in_pieces() -> None:
    head = b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\naccept: a/b\r\nACCEPT:c/d"
    assert parse(head) == HttpRequest("GET", "/metrics", "a/b,c/d")


def test_an_answer_to_head_has_the_length_of_the_body() -> None:
    whole = HttpResponse(HTTPStatus.OK, "äb").encode(head_only=True)
    assert b"Content-Length: 3\r\n" in whole
    assert whole.endswith(b"\r\n\r\n")


def test_slow_clients_push_out_each_other_only(server: Server) -> None:
    with ExitStack() as stack:
        slow = []
        for _ in range(4 * MOST_CONNECTIONS):
            address = ("127.0.0.1", server.port)
            slow.append(stack.enter_context(socket.create_connection(address, timeout=10)))
            slow[-1].sendall(b"GET /metrics HTTP/1.1\r\n")
            started = time.monotonic()
            assert server.ask()[0] == 200
            assert time.monotonic() - started < 1.5
        # The first one was closed to make room, the last one is waited for still.
        assert slow[0].recv(10) == b""
        slow[-1].sendall(b"\r\n")
        assert slow[-1].recv(12) == b"HTTP/1.1 200"
        threads = [item for item in threading.enumerate() if "process_request" in item.name]
        assert len(threads) <= MOST_CONNECTIONS


def test_a_client_that_drips_is_closed_in_time(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.settimeout(0.3)
        started = time.monotonic()
        while time.monotonic() - started < 8:
            try:
                client.sendall(b"X")
                if client.recv(10) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 2.5 < time.monotonic() - started < 6


def test_who_waits_for_the_page_makes_no_room() -> None:
    go = threading.Event()
    waiting: list[None] = []

    def page(form: Format) -> str:
        del form
        waiting.append(None)
        assert go.wait(10)
        return "late\n"

    server = Server(page)
    answers: list[int] = []
    clients = [
        threading.Thread(target=lambda: answers.append(server.ask()[0]))
        for _ in range(MOST_CONNECTIONS)
    ]
    try:
        for client in clients:
            client.start()
        end = time.monotonic() + 10
        while len(waiting) < MOST_CONNECTIONS and time.monotonic() < end:
            time.sleep(0.01)
        assert server.ask()[0] == 503
    finally:
        go.set()
        for client in clients:
            client.join(10)
        server.stop()
    assert answers == [200] * MOST_CONNECTIONS


def test_a_fault_is_one_line_and_the_next_scrape_is_answered() -> None:
    faults = [ZeroDivisionError("a fault")]

    def page(form: Format) -> str:
        if faults:
            raise faults.pop()
        return f"{form}\n"

    server = Server(page)
    try:
        assert server.ask()[0] == 500
        assert server.ask()[0] == 200
    finally:
        server.stop()
    assert server.said == ["a fault in sipfw itself: ZeroDivisionError: a fault"]


def test_a_client_that_goes_away_is_no_fault(server: Server) -> None:
    for _ in range(5):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    assert server.ask()[0] == 200
    assert server.said == []


def test_a_port_in_use_is_one_line(server: Server) -> None:
    with pytest.raises(BackendError, match=r"cannot listen on 127\.0\.0\.1:\d+: address already"):
        Exporter(ListenAddress("127.0.0.1", server.port), str, str)
    with pytest.raises(BackendError, match=r"cannot listen on 192\.0\.2\.1:8961: cannot assign"):
        Exporter(ListenAddress("192.0.2.1", 8961), str, str)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9000", "127.0.0.1", 9000),
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("localhost:9000", "127.0.0.1", 9000),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("[2001:DB8::1]:80", "2001:db8::1", 80),
        ("0.0.0.0:9000", "0.0.0.0", 9000),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    found = parse_address(text)
    assert found == ListenAddress(host, port)
    assert found.loopback is (host in {"127.0.0.1", "::1"})
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", ":9000", "0", "65536", "-1", "9000 ", "::1:9000", "[::1]", "[127.0.0.1]:9000"),
        *("example.com:9000", "127.0.0.1:", "127.1:80", "192.0.2.1:5:6", "\uff19000"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


def test_looks_are_shared_for_two_seconds() -> None:
    now = 100.0
    looks: list[Scrape] = []

    def look() -> Scrape:
        looks.append(Scrape(None, str(len(looks))))
        return looks[-1]

    cached = Cached(look, 2.0, lambda: now)
    assert [cached.get().problem for _ in range(3)] == ["0", "0", "0"]
    now += 2.0
    assert cached.get().problem == "0"
    now += 0.1
    assert cached.get().problem == "1"


def test_many_who_ask_at_once_cause_one_look() -> None:
    looks: list[None] = []

    def look() -> Scrape:
        looks.append(None)
        time.sleep(0.2)
        return Scrape(None, "x")

    cached = Cached(look)
    threads = [threading.Thread(target=cached.get) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(looks) == 1
