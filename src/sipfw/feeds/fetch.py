"""Gets a block list by HTTP or from a file, from somebody who may mean harm.

One deadline over everything, one cap on the bytes, before and after unpacking. Three redirects,
to http and https only, never from https to http, and never inwards (`places`). No proxy, no
cookies, no password: nothing of the environment has a say but the certificates that the host
trusts.
"""

from __future__ import annotations

import os
import ssl
import stat
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from sipfw import __version__
from sipfw.feeds.errors import FeedError
from sipfw.feeds.places import AddressScope, connect
from sipfw.policy.file_safety import why_unsafe

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 30.0
LARGEST = 32 << 20

_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 16
_LONGEST_TAG = 256


@dataclass(frozen=True, slots=True)
class Seen:
    """What the source said of the copy that is there, for it to say whether that is still right."""

    etag: str | None = None
    modified: str | None = None


NOTHING_SEEN = Seen()


@dataclass(frozen=True, slots=True)
class FeedResponse:
    """The bytes, None where the copy is still right; and what to say the next time."""

    data: bytes | None
    seen: Seen = NOTHING_SEEN


def fetch(
    url: str,
    seen: Seen,
    *,
    deadline: float = DEADLINE,
    largest: int = LARGEST,
    tls: ssl.SSLContext | None = None,
) -> FeedResponse:
    """Return what the source sends. Raises FeedError; the deadline is kept between two reads.

    A source that never ends a line of its head is the caller's to abandon.
    """
    end = time.monotonic() + deadline
    home = None
    try:
        for _ in range(_MOST_REDIRECTS + 1):
            with _connected(urlsplit(url), end, home, tls) as (connection, place):
                answer = _ask(connection, url, seen, end, largest)
            if isinstance(answer, FeedResponse):
                return answer
            url, home = _next(url, answer), home or place
    except TimeoutError as error:
        raise FeedError(f"no answer within {deadline:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise FeedError(f"its certificate is not trusted: {error.verify_message}") from error
    except OSError as error:
        raise FeedError((error.strerror or str(error) or "no answer").lower()) from error
    except (HTTPException, ValueError) as error:
        raise FeedError("the answer is no HTTP, or it was cut off") from error
    raise FeedError(f"more than {_MOST_REDIRECTS} redirects")


def read_file(path: str, largest: int = LARGEST) -> bytes:
    """Return a file of this host. Raises FeedError, also where everybody may write it.

    It may belong to the user of a program that keeps it: a list can only block.
    """
    try:
        # A pipe in its place must not hang.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise FeedError(f"{path} is not a file")
            unsafe = why_unsafe(Path(path), handle, writers=stat.S_IWOTH)
            if unsafe is not None:
                raise FeedError(f"{path} {unsafe}")
            data = file.read(largest + 1)
    except OSError as error:
        raise FeedError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if len(data) > largest:
        raise _too_large(largest)
    return data


def _too_large(largest: int) -> FeedError:
    return FeedError(f"holds more than {largest >> 20} MB; use a shorter list")


def _next(url: str, location: str) -> str:
    target = urljoin(url, location)
    parts = urlsplit(target)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise FeedError("is redirected to something else than http or https")
    if parts.scheme == "http" and urlsplit(url).scheme == "https":
        raise FeedError("is redirected from https to http, where anybody could change it")
    if parts.username is not None or not target.isascii() or not target.isprintable():
        raise FeedError("is redirected to an address that sipfw does not ask")
    return target


def _ask(
    connection: HTTPConnection, url: str, seen: Seen, end: float, largest: int
) -> FeedResponse | str:
    """Return the answer of one request, or where it redirects to."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", path, headers=_headers(seen))
    # The answer owns the socket when the connection is to be closed after it.
    with connection.getresponse() as response:
        return _read_answer(response, seen, end, largest)


def _read_answer(
    response: HTTPResponse, seen: Seen, end: float, largest: int
) -> FeedResponse | str:
    if response.status in _REDIRECTS:
        location = response.getheader("Location")
        if not location:
            raise FeedError(f"answered {response.status} without saying where to")
        return location
    if response.status == 304 and seen != NOTHING_SEEN:
        return FeedResponse(None, seen)
    if response.status != 200:
        raise FeedError(f"answered {response.status}")
    kept = Seen(_tag(response, "ETag"), _tag(response, "Last-Modified"))
    return FeedResponse(_body(response, end, largest), kept)


@contextmanager
def _connected(
    parts: SplitResult, end: float, home: AddressScope | None, tls: ssl.SSLContext | None
) -> Iterator[tuple[HTTPConnection, AddressScope]]:
    """Connect to an address that was judged before; http.client asks the resolver no more."""
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    opened, place = connect(host, port, end, home)
    try:
        if secure:
            context = tls or ssl.create_default_context()
            opened = context.wrap_socket(opened, server_hostname=host)
        connection = (HTTPSConnection if secure else HTTPConnection)(host, port)
        connection.sock = opened
        yield connection, place
    finally:
        opened.close()


def _headers(seen: Seen) -> dict[str, str]:
    headers = {
        "User-Agent": f"sipfw/{__version__}",
        "Accept-Encoding": "gzip",
        "Connection": "close",
    }
    if seen.etag is not None:
        headers["If-None-Match"] = seen.etag
    if seen.modified is not None:
        headers["If-Modified-Since"] = seen.modified
    return headers


def _tag(response: HTTPResponse, name: str) -> str | None:
    """Return a header that can be sent back; it goes into a file and a request of ours."""
    value = response.getheader(name)
    fit = value is not None and len(value) <= _LONGEST_TAG and value.isascii()
    return value if fit and value is not None and value.isprintable() else None


def _body(response: HTTPResponse, end: float, largest: int) -> bytes:
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip"}:
        raise FeedError("is packed in a way that sipfw did not ask for")
    wanted = response.length
    parts = list(_read(response, end, largest))
    if wanted is not None and sum(map(len, parts)) != wanted:
        raise FeedError("was cut off on its way")
    data = b"".join(parts)
    # Without a length the end of the connection is the end: then only whole lines count.
    if wanted is None and not response.chunked and encoding == "identity" and data[-1:] != b"\n":
        raise FeedError("was cut off on its way, or its last line has no end")
    return data if encoding == "identity" else _unpacked(data, largest)


def _read(response: HTTPResponse, end: float, largest: int) -> Iterator[bytes]:
    size = 0
    while data := response.read1(_CHUNK):
        size += len(data)
        if size > largest:
            raise _too_large(largest)
        if time.monotonic() > end:
            raise TimeoutError
        yield data


def _unpacked(data: bytes, largest: int) -> bytes:
    """Unpack one gzip member, never more than is allowed: a bomb is a few bytes."""
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = inflate.decompress(data, largest + 1)
    except zlib.error as error:
        raise FeedError("cannot be unpacked") from error
    if len(plain) > largest:
        raise _too_large(largest)
    if not inflate.eof or inflate.unused_data:
        raise FeedError("was cut off on its way, or more follows the packed list")
    return plain
