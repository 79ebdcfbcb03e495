"""FreeSWITCH: gateways of sip_profiles/ and the lists of autoload_configs/acl.conf.xml.

developer.signalwire.com/freeswitch: "Gateways Configuration" (a proxy that is not given is the
realm, and the realm is the gateway's name) and "ACL".
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING
from xml.parsers.expat import ExpatError, ParserCreate

from sipfw.host.bounded_files import OddFileError
from sipfw.monitor.gateways.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROXIES = frozenset({"proxy", "register-proxy", "outbound-proxy"})


def freeswitch(text: str) -> Iterator[Entry]:
    """Read gateways and allowed networks. Raises OddFileError where it is no plain XML."""
    reader = _Reader()
    try:
        reader.parser.ParseFile(BytesIO(text.encode("utf-8", "replace")))
    except ExpatError as error:
        raise OddFileError(f"no XML from line {error.lineno} on") from error
    yield from reader.found


class _Reader:
    """Keeps what stands in the element that is open; nothing here recurses or expands."""

    def __init__(self) -> None:
        self.found: list[Entry] = []
        self.parser = ParserCreate("utf-8")
        self.parser.StartElementHandler = self._opens
        self.parser.EndElementHandler = self._closes
        self.parser.StartDoctypeDeclHandler = _refuse
        self._name = ""
        self._line = 0
        self._params: dict[str, str] | None = None

    def _opens(self, tag: str, values: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if tag in {"gateway", "list"}:
            self._name, self._line = values.get("name", ""), line
            self._params = {} if tag == "gateway" else None
        elif tag == "param" and self._params is not None:
            self._params[values.get("name", "")] = values.get("value", "")
        elif tag == "node" and values.get("type") == "allow":
            place = values.get("cidr") or values.get("domain") or values.get("host", "")
            self.found.append(Entry(line, self._name, (place,)))

    def _closes(self, tag: str) -> None:
        if tag == "gateway" and self._params is not None:
            places = [self._params[key] for key in sorted(_PROXIES & set(self._params))]
            places = places or [self._params.get("realm", self._name)]
            self.found.append(Entry(self._line, self._name, tuple(places)))
            self._params = None


def _refuse(*_: object) -> None:
    # Entities are declared in a DOCTYPE only, and no file of FreeSWITCH needs one.
    raise OddFileError("a DOCTYPE is not read")
