"""The bundle for a ticket: what is hidden, what stays together, what a failure leaves."""

from __future__ import annotations

import stat
import tarfile
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.errors import BackendError
from sipfw.monitor.support.anonymous import Anonymous
from sipfw.monitor.support.bundle import Section, cleaned, write_bundle
from sipfw.monitor.support.secrets import REPLACED, without_secrets

if TYPE_CHECKING:
    from pathlib import Path


def test_the_same_address_is_the_same_everywhere_and_stays_in_its_network() -> None:
    hide = Anonymous()
    first = hide.text("203.0.113.10 203.0.113.0/24 198.51.100.10, 203.0.113.10:5060")
    one, network, other, again = first.split()
    assert ip_address(one) in ip_network(network)
    assert ip_address(other.rstrip(",")) not in ip_network(network)
    assert again == f"{one}:5060"
    assert "203.0.113" not in first
    assert "198.51.100" not in first


def test_ipv6_keeps_its_network_and_loses_its_maker() -> None:
    hide = Anonymous()
    found = hide.text("2001:db8:5:1::/64 2001:db8:5:1::7 2001:db8:5:1:211:22ff:fe33:4455")
    network, chosen, made = found.split()
    assert ip_address(chosen) in ip_network(network)
    assert ip_address(made) in ip_network(network)
    assert "22ff:fe33" not in found
    assert "2001:db8:5:1:" not in found


@pytest.mark.parametrize(
    "text",
    [
        "iptables v1.8.9 (nf_tables)",
        "sipfw:rate.per-source#0a1b2c3d",
        "127.0.0.1 ::1 0.0.0.0/0 255.255.255.255 224.0.0.18 ff02::1 fe80::1",
        "2026-12-01 10:27:39+00:00",
        "2.1.9.07 10:20:30 1.2.3 999.1.1.1 1.2.3.4.5",
        "5060:5091 --dport 10000:20000 a::b::c",
        "",
    ],
)
def test_what_is_no_address_of_anybody_stays(text: str) -> None:
    assert Anonymous().text(text) == text


def test_names_go_as_whole_words() -> None:
    hide = Anonymous(["carrier-a", "a"], ["sip.carrier-a.example", "vos1"])
    text = "carrier-a: sip.carrier-a.example on VOS1; a carrier-ab, catalogue"
    assert (
        hide.text(text) == "peer-1: host-1.example on host-2.example; peer-2 carrier-ab, catalogue"
    )


@given(st.text(max_size=200))
def test_any_text_can_be_hidden(text: str) -> None:
    hide = Anonymous(["carrier-a"], ["h.example"])
    assert hide.text(text) == hide.text(text)
    without_secrets(text)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("password: hunter2", "hunter2"),
        ("  api_key: 'abc def'  # ours", "abc"),
        ('{"token": "xyz"}', "xyz"),
        ("https://user:pw@lists.example/x", "pw"),
        ("https://lists.example/x?key=abc", "abc"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "MIIE"),
    ],
)
def test_secrets_are_replaced(text: str, hidden: str) -> None:
    assert hidden not in without_secrets(text)
    assert REPLACED in without_secrets(text)


def test_a_policy_keeps_what_is_no_secret() -> None:
    text = "trusted_peers: {carrier-a: 203.0.113.10}\nlimits: {per_source: {rate: 20/second}}\n"
    assert without_secrets(text) == text


def test_the_bundle_is_roots_and_replaces_nothing(tmp_path: Path) -> None:
    target = tmp_path / "t.tar.gz"
    found = cleaned(
        [Section("a/b", "203.0.113.10\n"), Section("c", "", "203.0.113.10: failed")], Anonymous()
    )
    write_bundle(target, found)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with tarfile.open(target) as tar:
        names = tar.getnames()
        texts = [member.read().decode() for name in names if (member := tar.extractfile(name))]
    assert names == ["sipfw-support/a/b.txt", "sipfw-support/c.txt", "sipfw-support/index.txt"]
    assert not any("203.0.113.10" in text for text in texts)
    assert "c: 0 characters; 198.18.0.10: failed" in texts[-1], texts[-1]
    with pytest.raises(BackendError, match="exists"):
        write_bundle(target, found)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackendError):
        write_bundle(link, found)
    assert not (tmp_path / "elsewhere").exists()
