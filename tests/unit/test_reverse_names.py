"""Reverse names: bounded in time, harmless in a terminal."""

from __future__ import annotations

import threading
import time
from ipaddress import ip_network

from sipfw.monitor.reverse_names import reverse_names

HOST, OTHER, MANY = (
    ip_network(text) for text in ("192.0.2.1/32", "2001:db8::5/128", "192.0.2.0/24")
)


def test_names_are_found_by_network() -> None:
    names = {"192.0.2.1": "host.example", "2001:db8::5": "other.example"}
    found = reverse_names([HOST, OTHER, MANY], names.__getitem__)
    assert found == {"192.0.2.1/32": "host.example", "2001:db8::5/128": "other.example"}


def test_a_name_cannot_steer_a_terminal() -> None:
    found = reverse_names([HOST], lambda _: "\x1b[2Jowned\r\n" + "x" * 200)
    (name,) = found.values()
    assert name.isprintable()
    assert "\x1b" not in name
    assert len(name) <= 80


def test_an_address_without_a_name_is_left_out() -> None:
    def nothing(_: str) -> str:
        raise OSError("no such host")

    assert reverse_names([HOST], nothing) == {}


def test_nobody_waits_for_a_name_server_that_is_silent() -> None:
    ever = threading.Event()

    def slow(_: str) -> str:
        ever.wait(30)
        return "late.example"

    started = time.monotonic()
    assert reverse_names([HOST, OTHER], slow, seconds=0.2) == {}
    assert time.monotonic() - started < 5
    ever.set()
