"""Questions that a glance at a line of nft's text answers, where no reading of it is needed.

For heuristics: what a rule really lets through is not followed, and of a key of several parts each
part counts.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sipfw.ruleset.addresses import IpAddress

_QUOTED = re.compile(r'"[^"\n]*"')
_LEAD = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_SENDS = re.compile(r"\b(?:dnat|redirect|tproxy|set|jump|goto|v?map)\b")
_DENIES = re.compile(r"\b(?:drop|reject)\b")
_ONE_SOURCE = re.compile(r"\bip6? saddr (?!!=)")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\]")
_DPORT = re.compile(r"\bdport (\{[^}\n]*\}|\S+)")
_ONLY = {
    Family.IP: re.compile(r"\bip6 |\bnfproto ipv6\b|\bicmpv6 "),
    Family.IP6: re.compile(r"\bip (?:saddr|daddr|protocol)\b|\bnfproto ipv4\b|\bicmp type\b"),
}


def is_of_other_family(line: str, family: Family) -> bool:
    """Tell whether the rule is for the other family alone."""
    return _ONLY[family].search(_bare(line)) is not None


def denies_many(line: str) -> bool:
    """Tell whether the rule drops or rejects, and not what single sources send."""
    text = _bare(line)
    return _DENIES.search(text) is not None and _ONE_SOURCE.search(text) is None


def sends_or_leads(line: str) -> bool:
    """Tell whether the rule may send packets elsewhere, write into them, or lead to a chain."""
    return _SENDS.search(line) is not None


def leads(line: str) -> list[str]:
    """Return the chains that the rule may lead to."""
    return _LEAD.findall(_bare(line))


def asked_ports(line: str) -> list[str]:
    """Return the destination ports as nft writes them: `5060` or `{ 5060, 5080-5090 }`."""
    return _DPORT.findall(line)


def sent_ports(line: str) -> str | None:
    """Return the ports that the rule sends on to another address, None where it sends none on."""
    head, dnat, _ = _bare(line).partition(" dnat ")
    found = _DPORT.search(head) if dnat else None
    return None if found is None else found[1]


def sent_to(line: str) -> Iterator[IpAddress]:
    """Yield the addresses behind `dnat`; a map tells none."""
    text = _bare(line).partition(" dnat ")[2]
    if "{" in text or " map " in text:
        return
    for word in _ADDRESS.findall(text):
        with suppress(ValueError):
            yield ip_address(word.strip("[]"))


def attaches_one_of(line: str, helpers: Collection[str]) -> bool:
    """Tell whether the rule attaches a helper; through a map any of its table's may be meant."""
    setting = "ct helper set" in line and bool(helpers)
    return setting and (" map " in line or any(f'"{name}"' in line for name in helpers))


def _bare(line: str) -> str:
    return _QUOTED.sub("", line)
