"""The lock-out guard's answer about a real connection, and then the kernel's."""

from __future__ import annotations

import base64
import json
import pickle
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import pytest
import yaml

from lab import Family, Lab, unavailable_reason, warm
from packets.firewall import Backend, Firewall, Iptables, Nftables
from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

# A daemon by sshd's name that answers every connection with what it has received.
SSHD = """\
import pathlib, socket, sys, threading
pathlib.Path("/proc/self/comm").write_text("sshd")
listening = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6,
                                 dualstack_ipv6=True)
print("listening", flush=True)
def echo(connection):
    while data := connection.recv(4096):
        connection.sendall(data)
while True:
    threading.Thread(target=echo, args=(listening.accept()[0],), daemon=True).start()
"""

GUARD = """\
import base64, json, pickle, sys
from sipfw.deploy.lockout.guard import guard, ssh_sessions
sessions = ssh_sessions(environment={})
found = guard(pickle.loads(base64.b64decode(sys.stdin.read())), sessions)
print(json.dumps({
    "clients": [[str(item.client), str(item.address), item.port, item.interface]
                for item in sessions],
    "errors": [item.message for item in found if item.severity == "error"],
}))
"""

ADMIN = {"networks": ["192.0.2.0/24", "2001:db8:2::/64"]}


@dataclass(frozen=True)
class Situation:
    """Who is connected to which port when which policy comes, and what is to change."""

    name: str
    policy: dict[str, object]
    role: Literal["office", "attacker"]
    port: int = 22
    line: str | None = None

    def __str__(self) -> str:
        return self.name


SITUATIONS = [
    Situation("inside", {"admin": ADMIN}, "office"),
    Situation("outside", {"admin": ADMIN}, "attacker", line="admin.networks: add {client}/{bits}"),
    Situation("another-port", {"admin": ADMIN}, "office", 2222, "admin.ssh_port: 2222"),
    Situation("right-port", {"admin": {**ADMIN, "ssh_port": 2222}}, "office", 2222),
    Situation("no-admin-networks", {}, "attacker"),
    Situation("no-host-part", {"admin": ADMIN, "host": {"default_drop": False}}, "attacker"),
    Situation("inner-side", {"admin": ADMIN, "host": {"interfaces": ["attacker"]}}, "attacker"),
    Situation(
        "port-of-sip",
        {"signalling": {"tcp": [5060, 2222]}, "limits": {"unknown_sources": "denied"},
         "trusted_peers": [{"name": "a", "signalling": ["203.0.113.10"]}]},
        "attacker",
        2222,
        "signalling: take 2222 out",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    reason = unavailable_reason()
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("attacker", "office")) as built:
        yield built


@pytest.fixture(params=["legacy", "nftables"])
def firewall(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Firewall]:
    lock_file = tmp_path_factory.getbasetemp() / "xtables.lock"
    backend: Backend = (
        Nftables(lab.switch)
        if request.param == "nftables"
        else Iptables(lab.switch, "legacy", lock_file)
    )
    built = Firewall(lab.switch, backend)
    yield built
    built.clear()
    lab.reset()


@pytest.fixture(params=get_args(Family))
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


def start_sshd(lab: Lab, port: int) -> None:
    program = lab.switch.popen([sys.executable, "-c", SSHD, str(port)])
    assert program.stdout is not None
    assert program.stdout.readline() == "listening\n"


def connects(lab: Lab, role: str, family: Family, port: int) -> bool:
    host = lab.hosts[role]
    try:
        host.tcp_connect(lab.switch.address_for(host, family), port, timeout=0.4).close()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_the_guard_and_the_kernel_agree(
    situation: Situation, lab: Lab, firewall: Firewall, family: Family, tmp_path: Path
) -> None:
    start_sshd(lab, situation.port)
    host = lab.hosts[situation.role]
    own, client = lab.switch.address_for(host, family), host.address(family)
    connection = host.tcp_connect(own, situation.port)
    connection.send(b"SSH-2.0-a")
    assert connection.received(minimum=9) == b"SSH-2.0-a"

    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(situation.policy), encoding="utf-8")
    ruleset = base64.b64encode(pickle.dumps(compile_policy(load(Request(file))))).decode()
    guarded = warm.run_code(lab.switch.namespace, GUARD, input=ruleset)
    assert guarded.returncode == 0, guarded.stderr
    answer = json.loads(guarded.stdout)
    assert answer["clients"] == [[client, own, situation.port, situation.role]]

    firewall.load(situation.policy)
    assert connects(lab, situation.role, family, situation.port) == (answer["errors"] == [])
    if situation.line is None:
        assert answer["errors"] == []
        connection.send(b"SSH-2.0-b")
        assert connection.received(minimum=9) == b"SSH-2.0-b", "the present session goes on"
    else:
        (message,) = answer["errors"]
        line = situation.line.format(client=client, bits=128 if ":" in client else 32)
        assert line in message
