"""A host on which only rules of others stand: packets to it, and what the walk says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from lab import sip
from sipfw.host.proc_net import way_to
from sipfw.kernel.snapshot import HostSnapshot
from sipfw.monitor.doctor.host import HostView
from sipfw.monitor.why.others import Others
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState
from sipfw.simulate.packet import Packet, TcpFlag

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from lab import Lab
    from lab.handles import Sink
    from lab.namespaces import Family
    from sipfw.monitor.why.others import Course

PEERS: Final[dict[Family, str]] = {"ip": "203.0.113.10", "ip6": "2001:db8:5::a"}


def own_proc(folder: Path) -> Path:
    """Make a /proc that shows each thread its own network namespace."""
    for name, target in (("net", "/proc/thread-self/net"), ("sys", "/proc/sys")):
        (folder / name).symlink_to(target)
    return folder


@dataclass
class OthersScene:
    """The switch, one peer, and a thread inside that reads the rules."""

    lab: Lab
    inside: ThreadPoolExecutor
    proc: Path
    sinks: list[Sink] = field(default_factory=list)
    port: int = 20000

    def run(self, commands: str) -> None:
        """Run commands in which `T -` is iptables and `6 -` ip6tables, both legacy."""
        words = re.sub(r"\bT -", "iptables-legacy -w -", commands)
        words = re.sub(r"(?<=[ ;])6 -|^6 -", "ip6tables-legacy -w -", words)
        self.lab.switch.run(["sh", "-ec", words])

    def lost(self, family: Family) -> set[str]:
        """Send a question to SIP and open a connection; return what did not arrive."""
        carrier, switch = self.lab.carrier, self.lab.switch
        target, peer = switch.address_for(carrier, family), PEERS[family]
        self.port += 1
        asked = sip.request("OPTIONS", source=peer, destination=target)
        answers = carrier.send_udp(target, 5060, [asked], source_port=self.port, replies=0.15)
        arrived = sum(sink.settle(quiet=0.02) for sink in self.sinks)
        for sink in self.sinks:
            sink.clear()
        lost = set() if arrived else {"sip"}
        if not answers:
            lost.add("answers")
        try:
            carrier.tcp_connect(target, 22, timeout=0.2).close()
        except (TimeoutError, ConnectionError):
            lost.add("ssh")
        return lost

    def courses(self, family: Family) -> dict[str, Course]:
        """Walk the same packets."""
        return self.inside.submit(self._courses, PEERS[family]).result()

    def course_of(self, source: str) -> Course:
        """Walk a question to SIP from any source."""
        return self.inside.submit(self._courses, source).result()["sip"]

    def _courses(self, source: str) -> dict[str, Course]:
        host = HostView(runner=HostSnapshot(), proc=self.proc, own_table=False)
        others = Others(host.rules, host.proc, host.runner)
        peer = ip_address(source)
        way = way_to(peer, self.proc)
        question = Packet(
            peer, None, IpProto.UDP, None, 5060, in_interface=way, state=CtState.NEW, local=False
        )
        opening = Packet(
            peer,
            None,
            IpProto.TCP,
            None,
            22,
            flags=frozenset({TcpFlag.SYN}),
            in_interface=way,
            state=CtState.NEW,
            local=False,
        )
        return {"sip": others.course(question), "ssh": others.course(opening)}

    def clear(self) -> None:
        """Take all rules out again."""
        script = (
            "nft flush ruleset; for t in iptables ip6tables; do"
            " for n in $(cat /proc/net/${t%tables}_tables_names); do"
            " $t-legacy -w -t $n -F; $t-legacy -w -t $n -X; done;"
            " for c in INPUT OUTPUT; do $t-legacy -w -P $c ACCEPT; done; done;"
            " ipset destroy; conntrack -F"
        )
        self.lab.switch.run(["sh", "-c", script])
