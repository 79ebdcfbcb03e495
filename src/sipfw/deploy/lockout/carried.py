"""What carries a login to this host: the packets outside of a tunnel, or in front of a proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipfw.host.sessions import Session
    from sipfw.ruleset.addresses import IpAddress, IpProto


@dataclass(frozen=True, slots=True)
class Carrier:
    """One kind of packets as the input of this host sees them.

    `port` is this host's; `number` is the IP protocol where there are no ports. `far` is the other
    end, None where it is not known. `mirrored` tells whether they have the ports and addresses of
    what this host sends, so that connection tracking takes them for answers. `kept_open` tells
    whether this host sends often enough by itself to keep it so, `dialled` that it opens it itself,
    and does so again.
    """

    protocol: IpProto
    port: int = 0
    number: int = 0
    far: IpAddress | None = None
    own: IpAddress | None = None
    interface: str | None = None
    mark: str = ""
    mirrored: bool = True
    kept_open: bool = False
    dialled: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """What a login passes through on this host, as `name` says: one of `ways` must be open.

    Without ways nobody can tell what carries it.
    """

    session: Session
    name: str
    ways: tuple[Carrier, ...]
