"""What of a host, besides its rules, keeps packets from a program: listeners, tables, programs."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from doctor_host import Fake
from proc_folder import HEAD, LISTEN, row

from sipfw.compiler.pipeline import compile_policy
from sipfw.host.settings import ConntrackUsage
from sipfw.monitor.doctor.checks_reach import not_read, unheard
from sipfw.monitor.doctor.findings import DiagnosisState
from sipfw.monitor.health import HealthState, judge
from sipfw.monitor.host_path.around import Around, loosened
from sipfw.monitor.report import Report
from sipfw.monitor.why.others import Others
from sipfw.policy.load import Request, load
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState, L4Proto
from sipfw.ruleset.source import Door
from sipfw.simulate.packet import Packet

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

OWN = "203.0.113.1"
FIB = f"           |-- {OWN}\n              /32 host LOCAL\n"
UNBOUND = "07"
BOUND_TO = "what listens on udp port 5060 is bound to"
UDP, TCP = Door(L4Proto.UDP, 5060), Door(L4Proto.TCP, 5060)
POLICY = """\
trusted_peers: [{name: a, signalling: [203.0.113.10]}]
signalling: {udp: [5060], tcp: [5060]}
"""


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    made = Fake(tmp_path)
    made.file("proc/net/fib_trie", FIB)
    return made


def around(fake: Fake, *bound: tuple[str, str, int]) -> Around:
    """Return a host on which programs are bound to table, address and port."""
    for table in dict.fromkeys(item[0] for item in bound):
        state = LISTEN if table.startswith("tcp") else UNBOUND
        remote = "::" if table.endswith("6") else "0.0.0.0"
        rows = (row((a, p), (remote, 0), state, 7, 0) for t, a, p in bound if t == table)
        fake.file(f"proc/net/{table}", HEAD + "".join(rows))
    host = fake.host()
    return Around(host.proc, host.runner)


@pytest.mark.parametrize(
    ("address", "table", "said"),
    [
        ("0.0.0.0", "udp", None),
        (OWN, "udp", None),
        ("::", "udp6", None),
        (f"::ffff:{OWN}", "udp6", None),
        ("2001:db8::1", "udp6", "nobody listens on udp port 5060"),
        (
            "127.0.0.1",
            "udp",
            f"{BOUND_TO} 127.0.0.1: only this host reaches it",
        ),
        (
            "203.0.113.2",
            "udp",
            f"{BOUND_TO} 203.0.113.2, which is no address of this host",
        ),
    ],
)
def test_where_a_program_listens(fake: Fake, address: str, table: str, said: str | None) -> None:
    assert around(fake, (table, address, 5060)).unheard("udp", 5060, 4) == said


def test_one_port_of_many_is_enough(fake: Fake) -> None:
    assert around(fake).unheard_of_all([UDP, TCP]) == (
        "nobody listens on any SIP port of the policy: udp 5060, tcp 5060"
    )
    assert around(fake, ("tcp", "0.0.0.0", 5060)).unheard_of_all([UDP, TCP]) is None
    assert around(fake).unheard_of_all([]) is None


def test_a_balancer_needs_no_socket(fake: Fake) -> None:
    fake.file("proc/net/ip_vs", "IP Virtual Server\nProt ...\nUDP  CB007101:13C4 rr\n")
    assert around(fake).unheard("udp", 5060) is None
    assert around(fake).unheard("tcp", 5060) is not None


def ruleset(folder: Path) -> Ruleset:
    path = folder / "policy.yaml"
    path.write_text(POLICY)
    return compile_policy(load(Request(path)))


def test_a_switch_in_a_container_is_not_missed(fake: Fake, tmp_path: Path) -> None:
    assert unheard(fake.host(), ruleset(tmp_path)) is not None
    fake.nft(
        "table ip nat {\n\tchain pre {\n"
        "\t\ttype nat hook prerouting priority -100; policy accept;\n"
        "\t\tudp dport 5060 dnat to 198.51.100.2:5060\n\t}\n}\n"
    )
    assert unheard(fake.host(), ruleset(tmp_path)) is None


def test_a_firewall_that_nobody_stands_behind_is_not_called_healthy() -> None:
    whole = Report((), (), (), (), ConntrackUsage(None, None), ())
    found = judge(whole, unheard="nobody listens on udp port 5060")
    assert found.state is HealthState.HEALTHY
    assert found.line == (
        "OUT OF SERVICE: the live firewall is the applied one, but nobody listens on udp port 5060"
    )


def test_a_full_table_of_connections(fake: Fake) -> None:
    fake.setting("net/netfilter/nf_conntrack_count", 64)
    fake.setting("net/netfilter/nf_conntrack_max", 64)
    host = fake.host()
    others = Others(host.rules, host.proc, host.runner)
    peer = ip_address("203.0.113.10")
    asked = Packet(peer, None, IpProto.UDP, 5060, 5060, state=CtState.NEW)
    (end,) = others.course(asked).possible
    assert "full: 64 of 64" in end.place
    assert end.mend == "sysctl -w net.netfilter.nf_conntrack_max=128"


def test_programs_are_named(fake: Fake) -> None:
    links = [{"ifname": "eth0", "xdp": {"mode": 1, "prog": {"id": 7}}}, {"ifname": "eth1"}]
    fake.programs.answers["ip -j -d address show"] = json.dumps(links)
    fake.programs.answers["tc qdisc show"] = "qdisc clsact ffff: dev eth1 parent ffff:fff1\n"
    fake.programs.answers["tc filter show dev eth1 ingress"] = "filter protocol all bpf\n"
    fake.nft(
        "table bridge br {\n\tchain f {\n\t\ttype filter hook forward priority 0; policy drop;\n"
        "\t}\n}\n"
    )
    found = not_read(fake.host())
    assert found.state is DiagnosisState.UNKNOWN
    assert found.sentence == (
        "an XDP program on eth0 is not read; filters of tc at the ingress of eth1 are not read; "
        "nft table bridge br is not walked: what it drops is not seen"
    )


def test_a_name_with_a_dot_is_a_path_to_sysctl() -> None:
    assert loosened("eth0.7") == "sysctl -w net.ipv4.conf.eth0/7.rp_filter=2"
