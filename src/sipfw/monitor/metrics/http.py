"""As much of HTTP/1.1 as a scrape needs: one request is read, one answer written, then closed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

from sipfw.monitor.metrics.text import Format

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http import HTTPStatus

LONGEST_HEAD = 8192

_REQUEST = re.compile(r"(?P<method>[A-Z]{1,20}) (?P<target>/\S*) HTTP/1\.[01]")
_QUALITY = re.compile(r"q=(?P<value>[01](?:\.\d{0,3})?)")
_OPENMETRICS = "application/openmetrics-text"
_VERSIONS = {"1.0.0", "0.0.1"}
# What a reader of the older format may call it.
_PLAIN = {"text/plain", "text/*", "*/*"}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a client asks for."""

    method: str
    path: str
    accept: str = ""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What it gets."""

    status: HTTPStatus
    body: str
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, head_only: bool = False) -> bytes:
        """Return the bytes to send."""
        body = self.body.encode("utf-8")
        fields = {
            "Date": formatdate(usegmt=True),
            "Content-Type": self.content_type,
            "Content-Length": str(len(body)),
            "Connection": "close",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
        return head.encode("latin-1") + (b"" if head_only else body)


def parse(head: bytes) -> HttpRequest | None:
    """Read the head of a request, None when it is none."""
    first, *rest = head.decode("latin-1").split("\r\n")
    found = _REQUEST.fullmatch(first)
    if found is None:
        return None
    fields = [line.partition(":") for line in rest]
    accepts = [value.strip() for name, _, value in fields if name.lower() == "accept"]
    return HttpRequest(found["method"], found["target"].partition("?")[0], ",".join(accepts))


def best_format(accept: str) -> Format:
    """Choose by an Accept header; a client that asks for nothing gets the older format."""
    new = old = 0.0
    for item in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in item.split(";"))
        quality = _quality(parameters)
        if kind == _OPENMETRICS and _known_version(parameters):
            new = max(new, quality)
        elif kind in _PLAIN:
            old = max(old, quality)
    return Format.OPENMETRICS if new > 0 and new >= old else Format.PROMETHEUS


def _quality(parameters: list[str]) -> float:
    for word in parameters:
        found = _QUALITY.fullmatch(word)
        if found is not None:
            return float(found["value"])
    return 1.0


def _known_version(parameters: list[str]) -> bool:
    named = [word.removeprefix("version=") for word in parameters if word.startswith("version=")]
    return not named or named[0].strip('"') in _VERSIONS
