"""What `init` sees on a host, against a `/proc` made of ordinary files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sipfw.host.survey import survey

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


def _socket(port: int, state: str, address: str = "00000000") -> str:
    return f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 0 0\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    for process, name in ((1, "systemd"), (812, "asterisk")):
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "comm").write_text(f"{name}\n", encoding="ascii")
    (tmp_path / "net/udp").write_text(_HEAD + _socket(5060, "07") + _socket(53, "07"), "ascii")
    (tmp_path / "net/udp6").write_text(_HEAD + _socket(5160, "07", "0" * 32), "ascii")
    (tmp_path / "net/tcp").write_text(
        _HEAD + _socket(5060, "0A") + _socket(5080, "01") + _socket(80, "0A"), "ascii"
    )
    (tmp_path / "net/dev").write_text(
        "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\nens3.100: 5 6\n", "ascii"
    )
    return tmp_path


def test_what_a_host_shows(proc: Path) -> None:
    found = survey(proc, {"SSH_CONNECTION": "192.0.2.7 52022 198.51.100.1 22"})
    assert found.switch == "asterisk"
    assert found.udp_ports == (5060, 5160)
    assert found.tcp_ports == (5060,)
    assert found.admin_candidates == ("192.0.2.7",)
    assert found.interfaces == ("eth0", "ens3.100")


def test_an_empty_host_shows_nothing(tmp_path: Path) -> None:
    found = survey(tmp_path, {})
    assert (found.switch, found.udp_ports, found.tcp_ports) == (None, (), ())
    assert (found.admin_candidates, found.interfaces) == ((), ())


@pytest.mark.parametrize(
    "text", ["", " ", "not-an-address 1 2 3", "$(reboot) 1 2 3", "192.0.2.7.9 1 2 3"]
)
def test_an_odd_ssh_variable_is_no_address(text: str, tmp_path: Path) -> None:
    assert survey(tmp_path, {"SSH_CONNECTION": text}).admin_candidates == ()


def test_a_scoped_ssh_client_has_no_scope_in_the_policy(tmp_path: Path) -> None:
    found = survey(tmp_path, {"SSH_CONNECTION": "fe80::1%eth0 1 fe80::2 22"})
    assert found.admin_candidates in {("fe80::1",), ()}


@pytest.mark.parametrize("line", ["   0: 00000000\n", "   0: x:zzzz y 0A\n", "\n"])
def test_a_line_that_cannot_be_read_is_not_found(line: str, proc: Path) -> None:
    with (proc / "net/tcp").open("a", encoding="ascii") as file:
        file.write(line)
    assert survey(proc, {}).tcp_ports == (5060,)
