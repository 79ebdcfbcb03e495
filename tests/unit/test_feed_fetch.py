"""Fetching a block list from a server that means harm: one clear reason, in bounded time."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipfw.feeds.errors import FeedError
from sipfw.feeds.fetch import NOTHING_SEEN, FeedResponse, Seen, fetch, read_file

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
from feed_server import MODES, FeedServer, running

if TYPE_CHECKING:
    from collections.abc import Iterator

LIST = b"203.0.113.9\n203.0.113.10\n"

REFUSED = {
    "404": "answered 404",
    "500": "answered 500",
    "401": "answered 401",
    "304-unasked": "answered 304",
    "hang": "no answer within 1 s",
    "slow-body": "no answer within 1 s",
    "endless": "holds more than 1 MB",
    "bomb": "holds more than 1 MB",
    "bad-gzip": "cannot be unpacked",
    "half-gzip": "was cut off on its way, or more follows",
    "brotli": "is packed in a way that sipfw did not ask for",
    "redirect-loop": "more than 3 redirects",
    "redirect-file": "is redirected to something else than http or https",
    "redirect-ftp": "is redirected to something else than http or https",
    "redirect-user": "is redirected to an address that sipfw does not ask",
    "redirect-nowhere": "answered 302 without saying where to",
    "redirect-broken": "the answer is no HTTP",
    "no-http": "the answer is no HTTP",
    "cut": "cut off",
    "cut-chunk": "the answer is no HTTP, or it was cut off",
    "cut-line": "was cut off on its way, or its last line has no end",
    "wrong-length": "was cut off on its way, or its last line has no end",
    "many-headers": "the answer is no HTTP",
    "rude": "",
}
# What comes as an honest answer and is judged by its content.
DELIVERED = {
    "empty",
    "comments-only",
    "shrunk",
    "garbage",
    "login",
    "injection",
    "everybody",
    "private",
    "many-lines",
}
# Only a thread that is left behind ends this one, see test_feed_lists.
LEFT_BEHIND = {"slow-head"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeedServer]:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "list").write_bytes(LIST)
    (folder / "misbehave").touch()
    with running(folder) as made:
        yield made


def ask(server: FeedServer, path: str, seen: Seen = NOTHING_SEEN) -> FeedResponse:
    url = f"http://127.0.0.1:{server.port}/{path}"
    # Who answers has time on a busy machine, too; who does not is left after a second.
    deadline = 1.0 if "no answer within 1 s" in REFUSED.get(path, "") else 9.0
    return fetch(url, seen, deadline=deadline, largest=1 << 20)


def test_every_way_to_misbehave_has_a_test() -> None:
    assert set(REFUSED) | DELIVERED | LEFT_BEHIND == set(MODES)


@pytest.mark.parametrize("mode", sorted(REFUSED))
def test_a_bad_answer_has_one_reason_and_an_end(server: FeedServer, mode: str) -> None:
    started = time.monotonic()
    with pytest.raises(FeedError) as error:
        ask(server, mode)
    assert time.monotonic() - started < 10
    said = str(error.value)
    assert REFUSED[mode] in said
    assert "\n" not in said
    assert "secret" not in said


def test_a_good_answer_comes_with_what_to_ask_next_time(server: FeedServer) -> None:
    first = ask(server, "list")
    assert first.data == LIST
    assert first.seen.etag is not None
    again = ask(server, "list", first.seen)
    assert again == FeedResponse(None, first.seen)
    assert f"If-None-Match: {first.seen.etag}" in server.asked[-1]


def test_nothing_of_the_environment_has_a_say(
    server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(server, "list").data == LIST
    assert "Cookie" not in server.asked[-1]
    assert "Authorization" not in server.asked[-1]


def test_a_host_that_is_not_there_is_named_by_the_reason() -> None:
    with pytest.raises(FeedError, match="refused"):
        fetch("http://127.0.0.1:1/", NOTHING_SEEN, deadline=2.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    return key, made


@pytest.fixture
def tls_server(certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[FeedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    (tmp_path / "list").write_bytes(LIST)
    (tmp_path / "misbehave").touch()
    with running(tmp_path, context) as made:
        yield made


def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[1]))


def test_an_unknown_certificate_is_refused(tls_server: FeedServer) -> None:
    with pytest.raises(FeedError, match="certificate is not trusted"):
        fetch(f"https://127.0.0.1:{tls_server.port}/list", NOTHING_SEEN, deadline=5.0)


def test_https_works_and_never_leads_to_http(
    tls_server: FeedServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, context = f"https://127.0.0.1:{tls_server.port}", trusting(certificate)
    assert fetch(f"{base}/list", NOTHING_SEEN, tls=context).data == LIST
    downgrade = b"http://127.0.0.1:1/list"
    monkeypatch.setitem(MODES, "redirect-http", lambda it: it.location(downgrade))
    with pytest.raises(FeedError, match="from https to http"):
        fetch(f"{base}/redirect-http", NOTHING_SEEN, tls=context)


def test_redirects_to_the_right_place_are_followed(
    server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODES, "moved", lambda it: it.location(b"/elsewhere/list"))
    assert ask(server, "moved").data == LIST


def test_a_file_is_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(LIST)
    assert read_file(str(path)) == LIST
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("pipe", "is not a file"),
        ("nothing", "no such file"),
        (".", "directory|is not a file"),
    ):
        with pytest.raises(FeedError, match=reason):
            read_file(str(tmp_path / name))
    with pytest.raises(FeedError, match="holds more than 0 MB"):
        read_file(str(path), largest=5)
