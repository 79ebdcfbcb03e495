"""The script that operators paste from guides, as iptables-restore text: what to beat.

Three chains behind an accept of established packets, published thresholds, IPv4 only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SIGNATURES = (
    "OPTIONS sip:",
    "friendly-scanner",
    "VaxSIPUserAgent",
    "sipvicious",
    "SIPScan",
    "sipcli",
)

_HASHLIMIT = (
    "--hashlimit-upto 10/second --hashlimit-burst 20 --hashlimit-mode srcip"
    " --hashlimit-name sip --hashlimit-htable-expire 30000"
)


def guide_script(trusted: Iterable[str], admin: str) -> str:
    """Return the script's rules for these trusted networks."""
    return "\n".join(
        [
            "*filter",
            ":INPUT ACCEPT [0:0]",
            *(f":{name} - [0:0]" for name in ("SIP_TRUSTED", "SIP_SCANNER_BLOCK")),
            ":SIP_RATE_LIMIT - [0:0]",
            "-A INPUT -i lo -j ACCEPT",
            "-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT",
            *(
                f"-A INPUT -p udp --dport 5060 -j {name}"
                for name in ("SIP_TRUSTED", "SIP_SCANNER_BLOCK", "SIP_RATE_LIMIT")
            ),
            "-A INPUT -p udp --dport 10000:20000 -j ACCEPT",
            f"-A INPUT -s {admin} -p tcp --dport 22 -j ACCEPT",
            f"-A INPUT -s {admin} -p tcp -m multiport --dports 80,8080 -j ACCEPT",
            "-A INPUT -p icmp -j ACCEPT",
            "-A INPUT -j DROP",
            *(f"-A SIP_TRUSTED -s {network} -j ACCEPT" for network in trusted),
            *(
                f'-A SIP_SCANNER_BLOCK -m string --string "{text}" --algo bm -j DROP'
                for text in SIGNATURES
            ),
            "-A SIP_RATE_LIMIT -m connlimit --connlimit-above 10 --connlimit-mask 32 -j DROP",
            "-A SIP_RATE_LIMIT -m connlimit --connlimit-above 30 --connlimit-mask 24 -j DROP",
            "-A SIP_RATE_LIMIT -m recent --name SIP --set",
            "-A SIP_RATE_LIMIT -m recent --name SIP --update --seconds 60 --hitcount 20 -j DROP",
            f"-A SIP_RATE_LIMIT -m hashlimit {_HASHLIMIT} -j ACCEPT",
            "-A SIP_RATE_LIMIT -j DROP",
            "COMMIT",
            "",
        ]
    )
