"""Elements of nf_tables sets, asked for one at a time or as a list that may be cut short.

`nft` reads all sets of a table before it answers about one: a second for 60,000 buckets, where
the kernel answers about one element in a tenth of a millisecond.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.kernel.netlink.socket import (
    DUMP,
    SUBSYS_NFTABLES,
    NetlinkError,
    NetlinkRequest,
    ask,
    attribute,
    attributes,
    datagram,
    encode_request,
    messages,
    name_attribute,
    nested,
)
from sipfw.lower.nftables_plan import TABLE

if TYPE_CHECKING:
    from collections.abc import Generator
    from ipaddress import IPv4Address, IPv6Address

_GET_ELEMENTS = (SUBSYS_NFTABLES << 8) | 13

# enum nft_set_elem_list_attributes, nft_set_elem_attributes and nft_data_attributes.
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_KEY, _EXPIRATION, _EXPRESSION = 1, 5, 7
_VALUE = 1

_NETLINK_NETFILTER = 12
_ERROR, _DONE = 2, 3
_ELEMENT_HEADER = struct.Struct("=HH")
# The kernel answers at once; the deadline is for one that does not answer at all.
_TIMEOUT = 10.0
_KIND_MASK = 0x3FFF


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its key in network order, and the seconds until it goes; None if it stays.

    `packets` is its own counter, None where it has none.
    """

    key: bytes
    left: float | None
    packets: int | None = None


def key_of(address: IPv4Address | IPv6Address, port: int | None = None) -> bytes:
    """Return the key of an address, or of an address with a port: parts fill whole words."""
    if port is None:
        return address.packed
    return address.packed + struct.pack("!HH", port, 0)


def element(set_name: str, key: bytes) -> Element | None:
    """Look one element up in a set of our table; None if it, the set or the table is not there."""
    wanted = nested(1, nested(_KEY, attribute(_VALUE, key)))
    body = _place(set_name) + nested(_LIST_ELEMENTS, wanted)
    request = NetlinkRequest(_GET_ELEMENTS, body, f"look into the set {set_name}")
    try:
        replies = ask("inet", request)
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return next((item for reply in replies for item in _elements_of(reply)), None)


def elements(set_name: str, most: int) -> list[Element]:
    """Return the elements of a set of our table, and stop when there are `most` or more.

    The kernel walks a hash from its start for each page of the answer, so that ten times the
    elements take a hundred times as long. None if the set or the table is not there.
    """
    found: list[Element] = []
    with contextlib.closing(_pages(set_name)) as pages:
        for page in pages:
            found += _elements_of(page)
            if len(found) >= most:
                break
    return found


def _pages(set_name: str) -> Generator[bytes, None, None]:
    """Yield the attributes of each message of a dump. Who stops early just closes the socket."""
    what = f"read the set {set_name}"
    request = NetlinkRequest(_GET_ELEMENTS, _place(set_name), what, DUMP)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as channel:
            channel.settimeout(_TIMEOUT)
            channel.bind((0, 0))
            channel.send(encode_request("inet", request, sequence=1))
            while True:
                for kind, payload in messages(datagram(channel)):
                    if kind in {_DONE, _ERROR}:
                        _require(payload, what)
                        return
                    yield payload[4:]
    except OSError as error:
        raise NetlinkError(what, error.errno or errno.EIO) from error


def _require(payload: bytes, what: str) -> None:
    """Both ends of a dump begin with an error number, which is zero or negative."""
    code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if code not in {0, errno.ENOENT}:
        raise NetlinkError(what, code)


def _place(set_name: str) -> bytes:
    return name_attribute(_LIST_TABLE, TABLE) + name_attribute(_LIST_SET, set_name)


def _elements_of(message: bytes) -> list[Element]:
    return [
        _element(item)
        for kind, payload in attributes(message)
        if kind == _LIST_ELEMENTS
        for _, item in attributes(payload)
    ]


def _element(data: bytes) -> Element:
    """Read one element. Only its own attributes are walked: sets are long."""
    key, left, packets = b"", None, None
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = _ELEMENT_HEADER.unpack_from(data, at)
        if length < 4:
            break
        kind &= _KIND_MASK
        if kind == _KEY:
            # Around the value stand two headers: the key's and the value's own.
            key = data[at + 8 : at + length]
        elif kind == _EXPIRATION:
            left = int.from_bytes(data[at + 4 : at + length], "big") / 1000
        elif kind == _EXPRESSION:
            packets = _counted(data[at + 4 : at + length])
        at += length + (-length % 4)
    return Element(key, left, packets)


def _counted(expression: bytes) -> int | None:
    """Return the packets of an element's counter; None for a limit or a quota.

    `NFTA_EXPR_NAME` is 1 and `NFTA_EXPR_DATA` 2, in which `NFTA_COUNTER_PACKETS` is 2.
    """
    parts = dict(attributes(expression))
    if parts.get(1, b"").rstrip(b"\0") != b"counter":
        return None
    value = dict(attributes(parts.get(2, b""))).get(2)
    return None if value is None else int.from_bytes(value, "big")
