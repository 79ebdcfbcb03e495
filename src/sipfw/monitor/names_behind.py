"""Which host name has brought an address into the sets, and by which record of DNS."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sipfw.host.files import read_private
from sipfw.words import format_duration

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from sipfw.deploy.names.grace import NameAddress
    from sipfw.host.files import Layout

_FILE = "names.json"


def names_behind(layout: Layout, address: IPv4Address | IPv6Address) -> list[str]:
    """Return `sip.carrier.example (SRV ...)` for each name that means this address."""
    text = ""
    with suppress(OSError, ValueError):
        text = read_private(layout.state / _FILE)
    if f'"{address}"' not in text:
        return []
    # pydantic comes with it: 0.2 s that only an address with a name has to pay.
    from sipfw.deploy.names.cache import read_names  # noqa: PLC0415 - see above
    from sipfw.deploy.names.resolve import name_of  # noqa: PLC0415 - see above

    return [
        f"{name_of(key)}{member_text(member)}"
        for key, known in read_names(layout).items()
        for member in known.members
        if member.network.network_address == address
    ]


def member_text(member: NameAddress) -> str:
    """Say by which record an address came, and for how long no answer has listed it."""
    gone = ""
    if member.missing is not None:
        gone = f"; no answer lists it, for {format_duration(time.time() - member.missing)} now"
    return f" ({member.via or 'of an earlier version'}{gone})"
