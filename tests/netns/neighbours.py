"""What other tools leave in a host's packet filter: their chains, sets and tables in short.

Each keeps the tool's own names, hooks and kinds of rules, as they look on a host that serves SIP.
The switch of the lab is 198.51.100.1, and 192.0.2.0/24 is a bridge with containers.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab import Node

JAILED_SSH = "198.51.100.30"
JAILED_SIP = "198.51.100.31"
CROWDSEC_BLOCKED = "198.51.100.32"
NFT_JAILED = "198.51.100.33"
NFT_BLOCKED = "198.51.100.34"
JAILED_SIP6 = "2001:db8:66::31"
CONTAINER = "192.0.2.10"
BRIDGE = "192.0.2.1"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Texts for iptables-restore by family, for `ipset restore` and for `nft -f`.

    `marks` is found in every line that is his alone, or `table` is.
    """

    marks: str = "^$"
    restore: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ipset: str = ""
    nft: str = ""
    table: str = ""

    def lines(self, found: Mapping[str, Sequence[str]]) -> list[str]:
        """Return what is his of a listing by table."""
        return [
            line
            for table in sorted(found)
            for line in found[table]
            if table == self.table or re.search(self.marks, line)
        ]


DOCKER = Neighbour(
    r"DOCKER|docker0|192\.0\.2\.",
    {
        "iptables": f"""\
*raw
-A PREROUTING -d {CONTAINER}/32 ! -i docker0 -j DROP
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 192.0.2.0/24 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination {CONTAINER}:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d {CONTAINER}/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
""",
    },
)

FAIL2BAN = Neighbour(
    r"f2b-(sshd|asterisk)",
    {
        "iptables": f"""\
*filter
:f2b-asterisk - [0:0]
:f2b-sshd - [0:0]
-A INPUT -p udp -m multiport --dports 5060,5061 -j f2b-asterisk
-A INPUT -p tcp -m multiport --dports 5060,5061 -j f2b-asterisk
-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
-A f2b-asterisk -s {JAILED_SIP}/32 -j REJECT --reject-with icmp-port-unreachable
-A f2b-asterisk -j RETURN
-A f2b-sshd -s {JAILED_SSH}/32 -j REJECT --reject-with icmp-port-unreachable
-A f2b-sshd -j RETURN
COMMIT
""",
        "ip6tables": f"""\
*filter
:f2b-asterisk - [0:0]
-A INPUT -p udp -m multiport --dports 5060,5061 -j f2b-asterisk
-A f2b-asterisk -s {JAILED_SIP6}/128 -j REJECT --reject-with icmp6-port-unreachable
-A f2b-asterisk -j RETURN
COMMIT
""",
    },
)

FAIL2BAN_NFT = Neighbour(
    table="table inet f2b-table",
    nft=f"""\
table inet f2b-table {{
    set addr-set-asterisk {{ type ipv4_addr; elements = {{ {NFT_JAILED}, 203.0.113.99 }} }}
    set addr6-set-asterisk {{ type ipv6_addr; elements = {{ 2001:db8:66::33 }} }}
    chain f2b-chain {{
        type filter hook input priority filter - 1; policy accept;
        udp dport {{ 5060, 5061 }} ip saddr @addr-set-asterisk counter reject
        udp dport {{ 5060, 5061 }} ip6 saddr @addr6-set-asterisk counter reject
    }}
}}
""",
)

CROWDSEC = Neighbour(
    r"crowdsec-blacklists-0|CROWDSEC_CHAIN",
    {
        "iptables": """\
*filter
:CROWDSEC_CHAIN - [0:0]
-I INPUT 1 -j CROWDSEC_CHAIN
-A CROWDSEC_CHAIN -m set --match-set crowdsec-blacklists-0 src -j DROP
COMMIT
""",
    },
    ipset=f"""\
create crowdsec-blacklists-0 hash:net family inet counters timeout 300000
add crowdsec-blacklists-0 {CROWDSEC_BLOCKED} timeout 200000
add crowdsec-blacklists-0 203.0.113.128/25 timeout 200000
""",
)

CROWDSEC_NFT = Neighbour(
    table="table ip crowdsec",
    nft=f"""\
table ip crowdsec {{
    set crowdsec-blacklists {{
        type ipv4_addr; flags timeout;
        elements = {{ {NFT_BLOCKED} timeout 4h }}
    }}
    chain crowdsec-chain {{
        type filter hook input priority filter - 10; policy accept;
        ip saddr @crowdsec-blacklists counter drop
    }}
}}
""",
)

FIREWALLD = Neighbour(
    table="table inet firewalld",
    nft="""\
table inet firewalld {
    chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept; }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname "lo" accept
        jump filter_IN_public
    }
    chain filter_IN_public {
        jump filter_IN_public_allow
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain filter_IN_public_allow {
        tcp dport 22 counter accept
        udp dport 5060 counter accept
        udp dport 1194 counter accept
    }
}
""",
)

UFW = Neighbour(
    r"ufw6?-",
    {
        family: f"""\
*filter
:{name}-before-input - [0:0]
:{name}-after-input - [0:0]
:{name}-before-logging-input - [0:0]
:{name}-user-input - [0:0]
:{name}-user-limit - [0:0]
:{name}-skip-to-policy-input - [0:0]
-A INPUT -j {name}-before-logging-input
-A INPUT -j {name}-before-input
-A INPUT -j {name}-after-input
-A {name}-before-input -i lo -j ACCEPT
-A {name}-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A {name}-before-input -m conntrack --ctstate INVALID -j DROP
-A {name}-before-input -j {name}-user-input
-A {name}-after-input -p udp -m udp --dport 137 -j {name}-skip-to-policy-input
-A {name}-skip-to-policy-input -j DROP
-A {name}-user-input -p udp -m udp --dport 1194 -j ACCEPT
-A {name}-user-input -p tcp -m tcp --dport 22 -m recent --set --name DEFAULT
-A {name}-user-limit -m limit --limit 3/min -j RETURN
COMMIT
"""
        for family, name in (("iptables", "ufw"), ("ip6tables", "ufw6"))
    },
)

FREEPBX = Neighbour(
    r"fpbx|REPEAT",
    {
        "iptables": """\
*filter
:fpbxfirewall - [0:0]
:fpbxhosts - [0:0]
:fpbxratelimit - [0:0]
:fpbxreject - [0:0]
:fpbxrtp - [0:0]
:fpbxsignalling - [0:0]
-A INPUT -j fpbxfirewall
-A fpbxfirewall -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A fpbxfirewall -j fpbxrtp
-A fpbxfirewall -j fpbxhosts
-A fpbxfirewall -p udp -m udp --dport 5060 -j fpbxsignalling
-A fpbxfirewall -m mark --mark 0x1/0x1 -j fpbxratelimit
-A fpbxhosts -s 203.0.113.10/32 -j ACCEPT
-A fpbxrtp -p udp -m udp --dport 10000:20000 -j ACCEPT
-A fpbxsignalling -j MARK --set-xmark 0x1/0xffffffff
-A fpbxratelimit -m recent --rcheck --seconds 90 --hitcount 100 --name REPEAT -j fpbxreject
-A fpbxratelimit -m recent --set --name REPEAT --rsource
-A fpbxreject -j REJECT --reject-with icmp-port-unreachable
COMMIT
""",
    },
)

# Its chain takes the media of calls that the kernel module forwards; the others go on.
RTPENGINE = Neighbour(
    r"rtpengine",
    dict.fromkeys(
        ("iptables", "ip6tables"),
        """\
*filter
:rtpengine - [0:0]
-A INPUT -p udp -j rtpengine
-A rtpengine -p udp -m udp --dport 12000:12099 -j DROP
COMMIT
""",
    ),
)

KEEPALIVED = Neighbour(
    r"-p (vrrp|112)|keepalived",
    {
        "iptables": """\
*filter
-A INPUT -p vrrp -m comment --comment "keepalived" -j ACCEPT
COMMIT
""",
    },
)

NEIGHBOURS: Mapping[str, Neighbour] = MappingProxyType(
    {
        "docker": DOCKER,
        "fail2ban": FAIL2BAN,
        "crowdsec": CROWDSEC,
        "freepbx": FREEPBX,
        "ufw": UFW,
        "rtpengine": RTPENGINE,
        "keepalived": KEEPALIVED,
        "fail2ban-nft": FAIL2BAN_NFT,
        "crowdsec-nft": CROWDSEC_NFT,
        "firewalld": FIREWALLD,
    }
)

VRRP = """\
import socket, sys
sending = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
for _ in range(int(sys.argv[2])):
    sending.sendto(bytes([0x21, 51, 100, 0, 1, 1, 0, 0]), (sys.argv[1], 0))
"""


def send_vrrp(sender: Node, target: str, count: int) -> None:
    """Send advertisements to one address, as keepalived does with `unicast_peer`."""
    sender.run([sys.executable, "-c", VRRP, target, str(count)])
