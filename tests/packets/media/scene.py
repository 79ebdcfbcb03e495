"""RTP between the switch and the hosts around it, one family at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab import sip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Family, Host, Lab, Sink
    from packets.firewall import Firewall

# Inside the ports of every policy here.
PORT = 12000
RTCP = PORT + 1
FIRST, LAST = 11000, 13000
PORTS = f"{FIRST}-{LAST}"
GUARDED: Mapping[str, Any] = {"networks": ["192.0.2.0/28", "2001:db8:77::/64"]}
# One packet of G.711: 12 bytes of header and 20 ms.
PACKET = b"\x80\x00" + bytes(170)


def policy(sources: str, *, guarded: bool = False, **more: Any) -> dict[str, Any]:
    """Return a policy about RTP, with the host part if it is `guarded`."""
    media = {"sources": sources, "ports": [PORTS], **more.pop("media", {})}
    admin = {"admin": GUARDED} if guarded else {}
    return {"media": media, **admin, **more}


@dataclass(frozen=True, slots=True)
class Media:
    """The switch's media port and who sends to it."""

    lab: Lab
    firewall: Firewall
    family: Family

    def sink(self, port: int = PORT) -> Sink:
        return self.lab.switch.udp_sink(port, family=self.family)

    def target(self, host: Host) -> str:
        return self.lab.switch.address_for(host, self.family)

    def says(self, host: Host, count: int = 10, port: int = PORT, source: int = 30000) -> None:
        """Let a host send RTP to the switch."""
        packets = [PACKET] * count
        host.send_udp(self.target(host), port, packets, source_port=source)

    def hears(self, host: Host, count: int = 1, port: int = 20000, source: int = PORT + 2) -> None:
        """Let the switch send RTP to a host, from a port beside the one that listens here."""
        packets = [PACKET] * count
        self.lab.switch.send_udp(host.address(self.family), port, packets, source_port=source)

    def heard_from(self, sink: Sink, host: Host, count: int = 10, **ways: int) -> int:
        """Let a host send RTP and return how much of it arrives."""
        sink.clear()
        self.says(host, count, **ways)
        return sink.settle()

    def counted(self, rule: str) -> int:
        return self.firewall.counted(rule, self.family)

    def forget(self, host: Host) -> None:
        """Let the time pass after which the switch no longer expects anything of a host."""
        for name in ("expected", "spoken-to"):
            self.firewall.remove(name, host.address(self.family))

    def logs_in(self, host: Host) -> None:
        """Let a phone log in at a switch that accepts it."""
        self.lab.switch.udp_sink(5060, {"REGISTER": 200}, self.family)
        target = self.target(host)
        own = host.address(self.family)
        register = sip.request("REGISTER", source=own, destination=target)
        assert host.send_udp(target, 5060, register, replies=2.0)
