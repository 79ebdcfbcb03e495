"""Words of other tools for what a policy says, and the line to write instead.

From scripts around iptables, fail2ban (jail.conf), Asterisk and FreePBX (pjsip.conf, rtp.conf,
the responsive firewall), Kamailio (pike, permissions) and CSF.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sipfw.policy.fields import annotations_of, section_in
from sipfw.policy.model import Peer, Policy
from sipfw.policy.shorthand import written_out
from sipfw.policy.yaml_tree import Tree, core_scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel

# The words by the field that they mean, of each section that they may stand in.
_WORDS = {
    "": {
        "trusted_peers": "whitelist white_list allowlist allow_list allow allowed trusted trust "
        "trusted_ips trusted_hosts trusted_networks peers peer trunks trunk carriers carrier "
        "providers provider gateways gateway permit ignoreip ignore_ip customers endpoints acl",
        "admin.networks": "admins admin_ips admin_ip admin_networks admin_hosts management "
        "management_networks mgmt ssh_allow ssh_from allow_ssh operators",
        "admin.ssh_port": "ssh ssh_port sshport port_ssh sshd",
        "admin.web_ports": "web web_port http http_port https https_port gui gui_port ui_ports",
        "signalling": "ports sip sip_ports sip_port port listen bindport bind_port sipport",
        "signalling.udp": "udp udp_port udp_ports sip_udp udpbindaddr",
        "signalling.tcp": "tcp tcp_port sip_tcp",
        "signalling.tls": "tls tls_port tls_ports sip_tls tlsbindport",
        "signalling.ws": "websocket ws ws_port",
        "signalling.wss": "wss wss_port",
        "media.ports": "rtp rtp_ports rtp_port rtp_range rtp_port_range media_ports rtpstart "
        "rtpend rtp_start rtp_end rtpengine rtpproxy udptl",
        "bans": "fail2ban ban jail jails banning banlist",
        "bans.duration": "bantime ban_time ban_duration bantimes",
        "learning.failures": "maxretry max_retry maxretries retries max_attempts",
        "learning.window": "findtime find_time",
        "feeds": "blacklist black_list blocklist blocklists block_list denylist deny deny_list "
        "block blocked drop ipset geoip",
        "scanners.user_agents.add": "user_agents useragents user_agent useragent ua agents "
        "bad_agents strings",
        "scanners": "scanner signatures friendly_scanner",
        "limits.per_source": "rate rate_limit ratelimit rate_limits limit pike throttle flood "
        "hitcount",
        "limits.unknown_sources": "default_policy policy default strangers unknown",
        "host.tcp_ports": "open_ports tcp_in allow_ports open",
        "host.udp_ports": "udp_in",
        "host.interfaces": "interface lan lan_interface trusted_interfaces inner",
        "host.protocols": "protocol ip_protocols proto",
        "conntrack.max": "nf_conntrack_max conntrack_max",
        "switch": "pbx softswitch platform system",
        "profile": "preset template",
        "logging": "log logs syslog logfile loglevel log_level logpath",
        "names": "dns resolver",
    },
    "trusted_peers": {
        "signalling": "ip ips address addresses host hosts network networks cidr from permit "
        "match contact source sources subnet fqdn",
        "media": "rtp media_ip media_ips media_address media_networks",
        "transports": "proto protocol protocols",
        "source_ports": "port ports sport sports src_port src_ports",
        "name": "id label description title peer trunk carrier",
    },
    "admin": {
        "networks": "ip ips address addresses hosts allow from sources permit",
        "ssh_port": "ssh port sshd",
        "web_ports": "web http https gui ports",
    },
    "signalling": {
        "signalling.udp": "sip port ports bind bindport",
        "media.ports": "rtp",
    },
    "media": {
        "ports": "range rtp rtp_ports rtp_range udp port_range",
        "sources": "from source allow",
    },
    "bans": {
        "duration": "time bantime ban_time length timeout ttl",
        "learning.failures": "maxretry max_retry failures retries",
        "learning.window": "findtime find_time window",
    },
    "learning": {"failures": "maxretry max_retry retries", "window": "findtime find_time"},
    "limits": {
        "per_source": "rate source per_ip ip pps",
        "recent": "hitcount window",
        "connlimit": "connections conn_limit",
    },
    "scanners.user_agents": {"add": "block blocked deny drop blacklist", "remove": "allow ignore"},
    "scanners": {"user_agents.add": "add agents", "block_options": "options"},
    "feeds": {"url": "link source", "file": "path"},
}

# What to write where the value under the word does not fit.
_EXAMPLES: dict[str, str] = {
    "trusted_peers": "{carrier-a: 203.0.113.10}",
    "admin.networks": "192.0.2.0/28",
    "admin.ssh_port": "22",
    "admin.web_ports": "[80, 443]",
    "signalling": "{udp: 5060, tcp: 5060}",
    "signalling.udp": "5060",
    "signalling.tcp": "5060",
    "signalling.tls": "5061",
    "signalling.ws": "8088",
    "signalling.wss": "8089",
    "media.ports": "10000-20000",
    "media.sources": "expected",
    "bans": "{duration: 1h}",
    "bans.duration": "1h",
    "learning.failures": "10",
    "learning.window": "60s",
    "feeds": "{name: mine, file: /etc/sipfw/block.txt}",
    "feeds.url": "https://lists.example/block.txt",
    "feeds.file": "/etc/sipfw/block.txt",
    "scanners": "{block_options: true}",
    "scanners.block_options": "true",
    "scanners.user_agents.add": "EvilDialer",
    "scanners.user_agents.remove": "sipsak",
    "limits.per_source": "{rate: 20/second, burst: 150}",
    "limits.recent": "{hits: 20, seconds: 60}",
    "limits.connlimit": "{per_source: 10}",
    "limits.unknown_sources": "denied",
    "host.tcp_ports": "443",
    "host.udp_ports": "1194",
    "host.interfaces": "eth1",
    "host.protocols": "[vrrp, esp]",
    "conntrack.max": "1048576",
    "switch": "asterisk",
    "profile": "retail",
    "logging": "{layers: banned}",
    "names": "{grace: 1h}",
    "trusted_peers.signalling": "203.0.113.10",
    "trusted_peers.media": "203.0.113.0/24",
    "trusted_peers.transports": "udp",
    "trusted_peers.source_ports": "5060",
    "trusted_peers.name": "carrier-a",
}

# A section of which there are many is written where it stands, not from the top.
_LISTS = {"trusted_peers": Peer}
_LONGEST_VALUE = 60
# One end of a range is not the range.
_ENDS = {"rtpstart", "rtpend", "rtp_start", "rtp_end"}
# A letter too few, too many or wrong in a word of usual length.
_SLIP = 0.85
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


def line_instead(section: Sequence[str], word: str, value: object) -> str | None:
    """Return the line that says what an unknown field means, None where nothing is known of it.

    The line holds the operator's own value where it is one that the field takes.
    """
    target = _meant(".".join(section), _plain(word))
    return None if target is None else _line(target, word, value)


def line_elsewhere(word: str, value: object) -> str | None:
    """Return the line of the only field of that name in another section, None where none is."""
    found = [path for path in _all_fields() if path.rpartition(".")[2] == _plain(word)]
    return _line(found[0], word, value) if len(found) == 1 else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")


def _line(target: str, word: str, value: object) -> str:
    steps = target.split(".")
    text = _flow(value)
    readable = 0 < len(text) <= _LONGEST_VALUE and text.isprintable()
    own = readable and _plain(word) not in _ENDS and _fits(steps, word, value)
    shown = text if own else _EXAMPLES.get(target, "...")
    if steps[0] in _LISTS or steps[0] == "feeds":
        steps = steps[1:] or steps
    return _nested(steps, shown)


def _meant(section: str, word: str) -> str | None:
    """Find the field, by its path from the top."""
    for target, words in _WORDS.get(section, {}).items():
        if word in words.split():
            full = f"{section}.{target}" if section else target
            return full if full in _EXAMPLES else target
    known = [each for words in _WORDS.get(section, {}).values() for each in words.split()]
    near = get_close_matches(word, known, n=1, cutoff=_SLIP)
    return _meant(section, near[0]) if near and near[0] != word else None


@lru_cache(maxsize=1)
def _all_fields() -> tuple[str, ...]:
    return tuple(_below(Policy, ""))


def _below(model: type[BaseModel], path: str) -> Iterator[str]:
    for name, annotation in annotations_of(model).items():
        yield path + name
        inner = section_in(annotation)
        if inner is not None and inner not in _LISTS.values():
            yield from _below(inner, f"{path}{name}.")


def _fits(steps: Sequence[str], word: str, value: object) -> bool:
    """Try the value in its new place."""
    data: Any = value
    if steps[0] in _LISTS:
        data = {"name": "a", "signalling": "203.0.113.10", steps[-1]: value}
        data = [data] if len(steps) > 1 else value
        steps = steps[:1]
    for step in reversed(steps):
        data = {step: data}
    try:
        Policy.model_validate(written_out(Tree(data), word).data)
    except ValidationError:
        return False
    return True


def _nested(steps: Sequence[str], value: str) -> str:
    text = f"{steps[-1]}: {value}"
    for step in reversed(steps[:-1]):
        text = f"{step}: {{{text}}}"
    return text


def _flow(value: object) -> str:
    """Write a value in one line of YAML; empty where it is nested too deeply to be copied."""
    match value:
        case bool() | int() | float():
            return json.dumps(value)
        case str() if _PLAIN.fullmatch(value) and core_scalar(value) == value:
            return value
        case str():
            return json.dumps(value)
        case list() if all(isinstance(item, str | int | float) for item in value):
            return f"[{', '.join(map(_flow, value))}]"
        case dict() if all(isinstance(item, str | int | float) for item in value.values()):
            return f"{{{', '.join(f'{_flow(key)}: {_flow(item)}' for key, item in value.items())}}}"
    return ""
