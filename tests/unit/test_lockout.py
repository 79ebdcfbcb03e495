"""Who is logged in by ssh, from a `/proc` of ordinary files, and whom a policy would lock out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from proc_folder import CLIENT, ESTABLISHED, HERE, OTHER, TIME_WAIT, Proc, hex_address

from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.lockout.guard import Session, guard, require_no_lockout, ssh_sessions
from sipfw.diagnostics import Severity
from sipfw.errors import BackendError, Exit
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

NOBODY: dict[str, str] = {}


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    (tmp_path / "proc").mkdir()
    return Proc(tmp_path / "proc")


def test_an_empty_host_has_no_sessions(tmp_path: Path) -> None:
    assert ssh_sessions(tmp_path, NOBODY) == ()


def test_the_session_of_this_process(proc: Proc) -> None:
    variable = {"SSH_CONNECTION": f"{CLIENT} 50000 {HERE} 22"}
    assert ssh_sessions(proc.root, variable) == (
        Session(ip_address(CLIENT), 50000, ip_address(HERE), 22, "SSH_CONNECTION"),
    )


def test_the_older_variable_has_no_address_of_this_host(proc: Proc) -> None:
    (session,) = ssh_sessions(proc.root, {"SSH_CLIENT": f"{CLIENT} 50000 2222"})
    assert (session.address, session.port, session.found) == (None, 2222, "SSH_CLIENT")


def test_the_table_completes_what_the_older_variable_leaves_out(proc: Proc) -> None:
    proc.sshd()
    proc.login()
    (session,) = ssh_sessions(proc.root, {"SSH_CLIENT": f"{CLIENT} 50000 22"})
    assert (session.address, session.found) == (ip_address(HERE), "SSH_CLIENT")


def test_a_session_is_found_through_sudo_and_su(proc: Proc) -> None:
    login = {"SSH_CONNECTION": f"{CLIENT} 50000 {HERE} 22", "HOME": "/"}
    proc.process(700, "bash", 600, login)
    proc.process(800, "sudo", 700)
    proc.process(850, "su", 800)
    proc.process(900, "sipfw", 850)
    assert proc.clients() == [CLIENT]


def test_parents_in_a_circle_are_no_endless_walk(proc: Proc) -> None:
    proc.process(800, "bash", 850)
    proc.process(850, "bash", 800)
    proc.process(900, "sipfw", 850)
    assert proc.clients() == []


def test_a_session_into_another_network_namespace_is_not_ours(proc: Proc) -> None:
    value = {"SSH_CONNECTION": f"{CLIENT} 50000 {HERE} 22"}
    proc.process(700, "bash", 1, value)
    proc.process(900, "sipfw", 700, namespace="net:[2]")
    assert proc.clients(value) == []
    # A value that begins inside the namespace is one of its own.
    other = {"SSH_CONNECTION": f"{OTHER} 1 {HERE} 22"}
    proc.process(800, "bash", 700, other, namespace="net:[2]")
    proc.process(900, "sipfw", 800, namespace="net:[2]")
    assert proc.clients() == [OTHER]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UNKNOWN 65535 UNKNOWN 65535",
        f"{CLIENT} 50000 {HERE}",
        f"{CLIENT} 50000 {HERE} 22 22",
        f"{CLIENT} 0 {HERE} 22",
        f"{CLIENT} 50000 {HERE} 65536",
        f"{CLIENT} 50000 2001:db8::1 22",
        f"{CLIENT} x {HERE} 22",
        "$(reboot) 1 2 3",
    ],
)
def test_an_odd_variable_is_no_session(proc: Proc, text: str) -> None:
    assert proc.clients({"SSH_CONNECTION": text}) == []


def test_everybody_who_is_connected_to_sshd(proc: Proc) -> None:
    proc.sshd(2222)
    proc.login(CLIENT, 2222)
    proc.login(OTHER, 2222)
    proc.login("192.0.2.99", 22)
    proc.login("192.0.2.98", 443)
    proc.socket((HERE, 2222), ("192.0.2.97", 1), TIME_WAIT)
    assert proc.clients() == [OTHER, CLIENT]


def test_a_mapped_address_is_an_ipv4_client(proc: Proc) -> None:
    proc.process(500, "sshd", 1, sockets=(50,))
    proc.socket(("::", 22), inode=50)
    proc.socket((f"::ffff:{HERE}", 22), (f"::ffff:{CLIENT}", 50000), ESTABLISHED)
    proc.socket(("2001:db8:5::1", 22), ("2001:db8:66::7", 50000), ESTABLISHED)
    first, second = ssh_sessions(proc.root, NOBODY)
    assert (str(first.client), str(first.address)) == (CLIENT, HERE)
    assert (str(second.client), str(second.address)) == ("2001:db8:66::7", "2001:db8:5::1")


def test_systemd_may_listen_for_sshd(proc: Proc) -> None:
    proc.process(1, "systemd", 0, sockets=(10,))
    proc.socket((HERE, 2022), inode=10)
    proc.process(600, "sshd-session", 1, sockets=(60, 61))
    proc.socket((HERE, 2022), (CLIENT, 50000), ESTABLISHED, inode=60)
    # What sshd forwards goes out from a port of its own.
    proc.socket((HERE, 40001), (OTHER, 5432), ESTABLISHED, inode=61)
    assert proc.clients() == [CLIENT]


def test_a_users_program_called_sshd_is_none(proc: Proc) -> None:
    proc.sshd()
    proc.process(600, "sshd", 1, sockets=(60,))
    proc.socket((HERE, 8022), inode=60, uid=1000)
    proc.login(CLIENT, 8022)
    assert proc.clients() == []


def test_where_no_sshd_is_seen_its_usual_ports_count(proc: Proc) -> None:
    proc.login(CLIENT, 22)
    proc.login(OTHER, 2222)
    assert proc.clients() == [CLIENT]
    found = ssh_sessions(proc.root, NOBODY, fallback_ports={22, 2222})
    assert [str(item.client) for item in found] == [OTHER, CLIENT]


def test_a_daemon_of_any_name_is_found_by_the_terminal_behind_it(proc: Proc) -> None:
    proc.process(1, "systemd", 0, sockets=(10,))
    proc.socket(("0.0.0.0", 2022), inode=10, uid=1000)
    proc.process(600, "gate\x1b[2J", 1, sockets=(60,))
    proc.socket((HERE, 2022), (CLIENT, 50000), ESTABLISHED, inode=60)
    proc.process(610, "bash", 600)
    proc.process(620, "vi", 610)
    assert proc.clients() == []
    proc.terminal(610)
    proc.terminal(620)
    (found,) = ssh_sessions(proc.root, NOBODY)
    assert (str(found.client), found.port, found.found) == (CLIENT, 2022, "gate?[2J")
    # Elsewhere it comes through another firewall.
    proc.process(600, "gate", 1, sockets=(60,), namespace="net:[2]")
    assert proc.clients() == []


def test_a_web_server_started_at_a_terminal_is_no_login(proc: Proc) -> None:
    proc.process(600, "python", 1, sockets=(60, 61))
    proc.process(610, "python", 600)
    proc.terminal(600)
    proc.terminal(610)
    proc.socket((HERE, 8000), inode=60, uid=1000)
    proc.socket((HERE, 8000), (CLIENT, 50000), ESTABLISHED, inode=61)
    assert proc.clients() == []
    # With a terminal of its own for the browser, it is one.
    proc.process(620, "bash", 610)
    proc.terminal(620, 2)
    assert proc.clients() == [CLIENT]


def test_what_a_session_forwards_is_not_its_login(proc: Proc) -> None:
    proc.sshd()
    proc.process(600, "sshd-session", 500, sockets=(60, 61, 62))
    proc.process(610, "bash", 600)
    proc.terminal(610)
    proc.socket((HERE, 22), (CLIENT, 50000), ESTABLISHED, inode=60)
    proc.socket((HERE, 8080), inode=61, uid=1000)
    proc.socket((HERE, 8080), (OTHER, 50000), ESTABLISHED, inode=62)
    assert proc.clients() == [CLIENT]


def test_a_login_without_a_terminal_is_found_by_its_variables(proc: Proc) -> None:
    value = {"SSH_CONNECTION": f"{CLIENT} 50000 {HERE} 2022"}
    proc.process(500, "gate", 1, sockets=(50,))
    proc.process(600, "gate", 500, sockets=(60,))
    proc.process(610, "rsync", 600, value)
    proc.socket((HERE, 2022), inode=50)
    assert proc.clients() == [], "not connected any more"
    proc.socket((HERE, 2022), (CLIENT, 50000), ESTABLISHED, inode=60)
    assert proc.clients() == [CLIENT]
    # Anybody may claim what somebody else holds.
    proc.process(610, "rsync", 1, value)
    assert proc.clients() == []


def test_who_started_this_process_is_found_without_terminal_and_variables(proc: Proc) -> None:
    proc.process(700, "socat", 1, sockets=(70,))
    proc.process(800, "sh", 700)
    proc.process(900, "sipfw", 800)
    proc.socket(("0.0.0.0", 2323), inode=69)
    proc.socket((HERE, 2323), (CLIENT, 50000), ESTABLISHED, inode=70)
    assert proc.clients() == [CLIENT]
    # A web service that runs it serves many: which of them asked, nobody can tell.
    proc.process(700, "gunicorn", 1, sockets=(70, 71))
    proc.socket((HERE, 2323), (OTHER, 50000), ESTABLISHED, inode=71)
    assert proc.clients() == []


def test_mosh_is_found_by_the_ssh_that_began_it(tmp_path: Path, proc: Proc) -> None:
    began = {"SSH_CONNECTION": f"{OTHER} 50000 {HERE} 22"}
    proc.process(600, "mosh-server", 1, began, sockets=(60, 61))
    proc.process(610, "bash", 600)
    proc.terminal(610)
    proc.socket(("0.0.0.0", 60001), inode=60, kind="udp")
    # Its question to a name server is nobody's login.
    proc.socket((HERE, 40000), ("192.0.2.53", 53), inode=61, kind="udp")
    (found,) = guard(compiled(tmp_path, ADMIN), ssh_sessions(proc.root, NOBODY))
    assert found.severity is Severity.WARNING
    assert (
        "the terminal client 192.0.2.7 (mosh-server) comes through a flow of its" in found.message
    )
    assert found.message.endswith("; host.udp_ports: add 60001")
    opened = ADMIN + "host: {udp_ports: [60000-61000]}\n"
    assert guard(compiled(tmp_path, opened), ssh_sessions(proc.root, NOBODY)) == []


def test_a_web_console_is_known_by_its_name(tmp_path: Path, proc: Proc) -> None:
    proc.process(600, "cockpit-tls", 1, sockets=(60,))
    proc.socket(("::", 9090), inode=60)
    proc.socket((f"::ffff:{HERE}", 9090), (f"::ffff:{OTHER}", 50000), ESTABLISHED, inode=61)
    (found,) = guard(compiled(tmp_path, ADMIN), ssh_sessions(proc.root, NOBODY))
    assert found.message.endswith("; admin.web_ports: add 9090")


@pytest.mark.parametrize("line", ["\n", "  0: x:y z:w 01\n", "  0: 00000000:0016\n", "\x00\n"])
def test_a_line_that_cannot_be_read_is_skipped(proc: Proc, line: str) -> None:
    proc.sshd()
    with (proc.root / "net/tcp").open("a") as file:
        file.write(line)
    proc.login()
    assert proc.clients() == [CLIENT]


ROUTES = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t{any}\t{gate}\t0003\t0\t0\t0\t{any}\t0\t0\t0
eth1\t{net}\t{any}\t0001\t0\t0\t0\t{mask}\t0\t0\t0
eth2\t{net}\t{any}\t0001\t0\t0\t9\t{mask}\t0\t0\t0
eth3\t{host}\t{any}\t0201\t0\t0\t0\t{full}\t0\t0\t0
broken
"""


def test_the_interface_is_where_the_route_leads(proc: Proc) -> None:
    (proc.root / "net/route").write_text(
        ROUTES.format(
            any=hex_address("0.0.0.0"),
            gate=hex_address(OTHER),
            net=hex_address("198.51.100.0"),
            mask=hex_address("255.255.255.0"),
            host=hex_address(CLIENT),
            full=hex_address("255.255.255.255"),
        )
    )
    six = "20010db8006600000000000000000000 40 " + "0" * 32 + " 00 " + "0" * 32
    local = "fe800000000000000000000000000000 40 " + "0" * 32 + " 00 " + "0" * 32
    (proc.root / "net/ipv6_route").write_text(
        f"{six} 00000100 00000001 00000000 00000001 eth1\n"
        f"{six} 00000400 00000001 00000000 00000001 eth2\n"
        f"{local} 00000100 00000001 00000000 00000001 eth1\n"
        f"{local} 00000100 00000001 00000000 00000001 eth2\n"
        "nonsense\n"
    )
    proc.sshd()
    for client in (CLIENT, OTHER, HERE, "127.0.0.1"):
        proc.login(client)
    for client in ("2001:db8:66::7", "2001:db8:67::7", "fe80::7"):
        proc.socket(("2001:db8:5::1", 22), (client, 50000), ESTABLISHED)
    found = {str(item.client): item.interface for item in ssh_sessions(proc.root, NOBODY)}
    assert found == {
        CLIENT: "eth1",
        OTHER: "eth0",
        HERE: "lo",
        "127.0.0.1": "lo",
        "2001:db8:66::7": "eth1",
        "2001:db8:67::7": None,
        "fe80::7": None,
    }


def test_a_scope_names_the_interface(proc: Proc) -> None:
    (session,) = ssh_sessions(proc.root, {"SSH_CONNECTION": "fe80::7%eth4 50000 fe80::1%eth4 22"})
    assert (str(session.client), session.interface) == ("fe80::7", "eth4")


def compiled(tmp_path: Path, text: str) -> Ruleset:
    file = tmp_path / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return compile_policy(load(Request(file)))


def session(client: str = CLIENT, port: int = 22, interface: str | None = "eth0") -> Session:
    own = "2001:db8:5::1" if ":" in client else HERE
    return Session(ip_address(client), 50000, ip_address(own), port, "SSH_CONNECTION", interface)


ADMIN = "admin: {networks: [192.0.2.0/28, '2001:db8:ad::/64']}\n"


@pytest.mark.parametrize(
    ("policy", "inside"),
    [
        (ADMIN, session(OTHER)),
        (ADMIN, session("2001:db8:ad::7")),
        (ADMIN, session("127.0.0.1", interface="lo")),
        (ADMIN, session(OTHER, 8080)),
        ("profile: default\n", session()),
        (ADMIN + "host: {default_drop: false}\n", session()),
        (ADMIN + "host: {tcp_ports: [22]}\n", session()),
        ("admin: {networks: [192.0.2.0/28], ssh_port: 2222}\n", session(OTHER, 2222)),
    ],
)
def test_who_gets_in_again_is_no_finding(tmp_path: Path, policy: str, inside: Session) -> None:
    assert guard(compiled(tmp_path, policy), [inside]) == []


SIP_TOO = "signalling: {tcp: [5060, 2222]}\n"
DENIED = "limits: {unknown_sources: denied}\n"
PEER = "trusted_peers: [{name: a, signalling: [203.0.113.10]}]\n"
TAKE_OUT = "signalling: take 2222 out, it is the port of sshd"

LOCKED = [
    (
        ADMIN,
        session(),
        "admin.networks: add 198.51.100.7/32",
        ADMIN.replace("[192", f"[{CLIENT}, 192"),
    ),
    (
        ADMIN,
        session("2001:db8:66::7"),
        "admin.networks: add 2001:db8:66::7/128",
        ADMIN.replace("[192", "['2001:db8:66::7', 192"),
    ),
    (
        ADMIN,
        session(OTHER, 2222),
        "admin.ssh_port: 2222",
        ADMIN.replace("}", ", ssh_port: 2222}"),
    ),
    (
        ADMIN,
        session(CLIENT, 2222),
        "admin.networks: add 198.51.100.7/32 and admin.ssh_port: 2222",
        ADMIN.replace("[192", f"[{CLIENT}, 192").replace("}", ", ssh_port: 2222}"),
    ),
    (SIP_TOO + DENIED + PEER, session(port=2222), TAKE_OUT, DENIED + PEER),
    (SIP_TOO, session(port=2222), TAKE_OUT, "profile: default\n"),
    ("signalling: {tls: [2222]}\n", session(port=2222), TAKE_OUT, "profile: default\n"),
]


@pytest.mark.parametrize(("policy", "outside", "line", "mended"), LOCKED)
def test_who_is_locked_out_reads_the_line_to_add(
    tmp_path: Path, policy: str, outside: Session, line: str, mended: str
) -> None:
    (found,) = guard(compiled(tmp_path, policy), [outside])
    assert found.severity is Severity.ERROR
    assert found.location is not None
    assert (found.location.line, found.location.file) == (1, str(tmp_path / "policy.yaml"))
    assert f"the ssh client {outside.client} (SSH_CONNECTION)" in found.message
    assert found.message.endswith(f" drops it; {line}")
    assert guard(compiled(tmp_path, mended), [outside]) == [], "the line does help"


def test_the_finding_tells_what_becomes_of_the_present_session(tmp_path: Path) -> None:
    (found,) = guard(compiled(tmp_path, ADMIN), [session()])
    assert "could not log in again on port 22: host.drop drops it" in found.message
    (found,) = guard(compiled(tmp_path, SIP_TOO + DENIED + PEER), [session(port=2222)])
    assert "would be cut off on port 2222" in found.message


def test_a_session_within_the_sip_limits_is_cut_off_beyond_them(tmp_path: Path) -> None:
    (found,) = guard(compiled(tmp_path, SIP_TOO), [session(port=2222)])
    assert "would be cut off on port 2222" in found.message
    peer = SIP_TOO + PEER.replace("203.0.113.10", CLIENT)
    assert guard(compiled(tmp_path, peer), [session(port=2222)]) == []


def test_a_second_sshd_does_not_push_the_first_one_out(tmp_path: Path) -> None:
    both = [session(OTHER), session(OTHER, 2222)]
    (found,) = guard(compiled(tmp_path, ADMIN), both)
    assert found.message.endswith("; admin.web_ports: add 2222")
    mended = ADMIN.replace("}", ", web_ports: [80, 2222]}")
    assert guard(compiled(tmp_path, mended), both) == []


def test_many_connections_of_one_client_are_one_finding(tmp_path: Path) -> None:
    many = [replace(session(), client_port=50000 + number) for number in range(5)]
    assert len(guard(compiled(tmp_path, ADMIN), [*many, session("198.51.100.8")])) == 2


INNER = ADMIN + "host: {interfaces: [eth1, eth2]}\n"


def test_an_inner_interface_lets_in_with_a_warning(tmp_path: Path) -> None:
    (found,) = guard(compiled(tmp_path, INNER), [session(interface="eth1")])
    assert found.severity is Severity.WARNING
    assert found.field == "host.interfaces"
    assert "its route leads through eth1" in found.message
    assert "admin.networks: add 198.51.100.7/32" in found.message
    assert guard(compiled(tmp_path, INNER), [session(OTHER, interface="eth1")]) == []


def test_an_interface_that_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    (found,) = guard(compiled(tmp_path, INNER), [session(interface=None)])
    assert found.severity is Severity.ERROR
    assert "on port 22 (unless it comes in through eth1 or eth2): " in found.message


def test_a_client_whose_own_end_is_not_known(tmp_path: Path) -> None:
    unknown = replace(session(), address=None)
    assert len(guard(compiled(tmp_path, ADMIN), [unknown])) == 1
    assert guard(compiled(tmp_path, ADMIN), [replace(unknown, client=ip_address(OTHER))]) == []


def test_the_refusal_names_everybody_on_a_line_of_their_own(tmp_path: Path) -> None:
    ruleset = compiled(tmp_path, ADMIN)
    with pytest.raises(BackendError) as refused:
        require_no_lockout(ruleset, [session(), session("2001:db8:66::7"), session(OTHER)])
    assert refused.value.exit_code is Exit.BACKEND
    first, second = str(refused.value).splitlines()
    assert "admin.networks: add 198.51.100.7/32" in first
    assert "admin.networks: add 2001:db8:66::7/128" in second
    assert second.endswith("; or apply with --force, with another way into this host at hand")


def test_force_is_loud_and_goes_on(tmp_path: Path) -> None:
    ruleset = compiled(tmp_path, INNER)
    sessions = [session(), session("198.51.100.8", interface="eth1")]
    forced, warning = require_no_lockout(ruleset, sessions, force=True)
    assert (forced.severity, warning.severity) == (Severity.WARNING, Severity.WARNING)
    assert forced.message.startswith("FORCED: the ssh client 198.51.100.7 ")
    assert not warning.message.startswith("FORCED")
    assert require_no_lockout(ruleset, [session(OTHER)]) == []


def test_a_hostile_scope_cannot_write_to_the_terminal(tmp_path: Path, proc: Proc) -> None:
    variable = {"SSH_CONNECTION": "fe80::7%\x1b[2J 50000 fe80::1 22"}
    found = guard(compiled(tmp_path, INNER), ssh_sessions(proc.root, variable))
    assert "\x1b" not in "".join(str(item) for item in found)
