"""Asterisk's pjsip.conf and sip.conf, and those that FreePBX writes; fail2ban's jail.conf.

Asterisk: docs.asterisk.org, "Asterisk Configuration Files" and "PJSIP Configuration Sections and
Relationships"; sip.conf.sample of Asterisk 18. fail2ban: jail.conf(5), `ignoreip`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.monitor.gateways.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

# Keys of a section that say where the other end is; `match` and `remote_hosts` hold several.
_PLACES = frozenset({"match", "contact", "server_uri", "remote_hosts", "host"})
_SECTION = re.compile(r"\[([^\]]*)\]")
_KEY = re.compile(r"([A-Za-z_/]+)\s*=>?\s*(.*)")
# sip.conf: register => [transport://]user[:secret[:authuser]]@host[:port][/extension][~expiry]
_REGISTER = re.compile(r".*@([^@/~?]+)")


@dataclass(slots=True)
class _Section:
    """One [section]; an identify of pjsip.conf names the endpoint that it is of."""

    name: str
    found: list[tuple[int, tuple[str, ...]]]
    endpoint: str | None = None

    def entries(self) -> Iterator[Entry]:
        for line, places in self.found:
            yield Entry(line, self.endpoint or self.name, places)


def asterisk(text: str) -> Iterator[Entry]:
    """Read the other ends of trunks: matches, fixed contacts, registrars and hosts."""
    section = _Section("", [])
    for number, line in enumerate(_without_block_comments(text).split("\n"), 1):
        said = re.split(r"(?<!\\);", line, maxsplit=1)[0].strip()
        if (head := _SECTION.match(said)) is not None:
            yield from section.entries()
            section = _Section(head[1], [])
        elif (pair := _KEY.fullmatch(said)) is not None:
            key, value = pair[1].lower(), pair[2]
            if key == "endpoint":
                section.endpoint = value
            elif key in _PLACES or key.partition("/")[2] in _PLACES:
                section.found.append((number, tuple(value.replace(",", " ").split())))
            elif key == "register" and (registrar := _REGISTER.match(value)) is not None:
                yield Entry(number, f"register-{registrar[1]}", (registrar[1],))
    yield from section.entries()


def _without_block_comments(text: str) -> str:
    """Leave `;-- ... --;` out, all but its ends of lines; one that never ends is none."""
    kept = []
    at = 0
    while (start := text.find(";--", at)) >= 0 and (end := text.find("--;", start + 3)) >= 0:
        kept += [text[at:start], "\n" * text.count("\n", start, end)]
        at = end + 3
    return "".join([*kept, text[at:]])


def fail2ban(text: str) -> Iterator[Entry]:
    """Read whom fail2ban never bans; the value goes on in lines that begin with a blank."""
    inside = False
    for number, line in enumerate(text.split("\n"), 1):
        said = re.split(r"(?:^|\s)[#;]", line, maxsplit=1)[0]
        if said[:1].strip():
            key, equals, said = said.partition("=")
            inside = bool(equals) and key.strip() == "ignoreip"
        if inside and (places := said.replace(",", " ").split()):
            yield Entry(number, "fail2ban-ignoreip", tuple(places))
