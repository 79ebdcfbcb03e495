"""Where the exporter listens: `PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`, on loopback if unsaid."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

# Outside 9100 to 9999, where other exporters listen, and neither among the ports of media nor among
# those of outgoing connections.
PORT = 8961
LOOPBACK = "127.0.0.1"
DEFAULT = f"{LOOPBACK}:{PORT}"

_FORM = re.compile(r"(?:(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]+)):)?(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address and a TCP port."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Tell whether only this host can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def six(self) -> bool:
        """Tell whether it is IPv6."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.six else f"{self.host}:{self.port}"


def parse_address(text: str) -> ListenAddress:
    """Read what `--listen` takes. Raises ValueError."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not ADDRESS:PORT; write {DEFAULT}, [::1]:{PORT} or {PORT}")
    port = int(found["port"])
    if not 0 < port < 65536:
        raise ValueError(f"{port} is not a port; write 1 to 65535")
    host = found["six"] or found["four"] or LOOPBACK
    if host == "localhost":
        host = LOOPBACK
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an address; a name could change its meaning") from None
    if (address.version == 6) != (found["six"] is not None):
        raise ValueError(f"{text!r}: only an IPv6 address stands in brackets, as in [::1]:{PORT}")
    return ListenAddress(str(address), port)
