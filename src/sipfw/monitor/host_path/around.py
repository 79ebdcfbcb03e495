"""What of this host, besides its rules, keeps a packet from a program and an answer from its asker.

No program that listens, no way back, a full table of connections, programs on an interface.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.network import NetworkFacts
from sipfw.host.own_addresses import own_addresses
from sipfw.host.proc_net import lines_of, ways_to
from sipfw.monitor.doctor.listening import Listener, listeners

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sipfw.host.runner import Runner
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.source import Door

_CONNTRACK = "sys/net/netfilter/nf_conntrack_"
# What iproute2 says where fib_validate_source() refuses a packet, as its answer would leave
# elsewhere: the one or the other, by the version of the kernel.
_ANOTHER_WAY = (os.strerror(errno.EXDEV), os.strerror(errno.EINVAL))
_NO_WAY = (os.strerror(errno.ENETUNREACH), os.strerror(errno.EHOSTUNREACH))
_STRICT = 1
# Folders of settings beside those of interfaces by which others come in.
_NO_LINKS = frozenset({"all", "default", "lo"})
# tc-clsact(8): filters at these see a packet before netfilter does.
_AT_INGRESS = re.compile(r"^qdisc (?:clsact|ingress) \S+ dev (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WayBack:
    """How the answers to a source leave. `none` where no route leads there.

    `refusing` are the interfaces on which rp_filter drops what it sends, `everywhere` says that no
    other is left.
    """

    none: bool = False
    refusing: tuple[str, ...] = ()
    everywhere: bool = False


class Around:
    """One host; each thing is asked once."""

    def __init__(self, proc: Path, runner: Runner) -> None:
        self._proc = proc
        self._runner = runner
        self._known: dict[IpAddress, WayBack] = {}

    @cached_property
    def heard(self) -> list[Listener]:
        """The sockets that take packets."""
        return listeners(self._proc)

    @cached_property
    def _own(self) -> frozenset[IpAddress]:
        return frozenset(own_addresses(self._proc))

    def unheard(self, proto: str, port: int, version: int | None = None) -> str | None:
        """Say why no program of this host gets a packet; None where one does, or may.

        `version` is that of the packet's family, None for either.
        """
        if self._is_balanced(proto):
            return None
        found = [
            item
            for item in self.heard
            if (item.proto, item.port) == (proto, port) and _is_of(item, version)
        ]
        what = f"{proto} port {port}"
        if not found:
            return f"nobody listens on {what}"
        reachable = [item for item in found if not item.is_local]
        if not reachable:
            return (
                f"what listens on {what} is bound to {found[0].address}: only this host reaches it"
            )
        if any(_bound(item).is_unspecified or _bound(item) in self._own for item in reachable):
            return None
        where = _bound(reachable[0])
        return f"what listens on {what} is bound to {where}, which is no address of this host"

    def unheard_of_all(self, doors: Iterable[Door]) -> str | None:
        """Say why none of these ports has a program; None where one has, or where there are none.

        A policy may open more than a switch listens on, so one port that is heard is enough.
        """
        said = [self.unheard(door.proto.value, door.port) for door in doors]
        if not said or None in said:
            return None
        bound = [text for text in said if text is not None and not text.startswith("nobody")]
        if bound:
            return "; ".join(bound)
        names = ", ".join(f"{door.proto.value} {door.port}" for door in doors)
        return f"nobody listens on any SIP port of the policy: {names}"

    def _is_balanced(self, proto: str) -> bool:
        """Tell whether IPVS takes packets on, which needs no socket (ip_vs_ctl.c)."""
        return any(line.startswith(proto.upper()) for line in lines_of(self._proc / "net/ip_vs"))

    def way_back(self, source: IpAddress) -> WayBack:
        """Ask how answers to a source leave, and whether the kernel takes what it sends."""
        if source not in self._known:
            self._known[source] = self._way_back(source)
        return self._known[source]

    def _way_back(self, source: IpAddress) -> WayBack:
        ways = ways_to(source, self._proc)
        if not ways and _said(self._ask(str(source)), *_NO_WAY):
            # IPv6 has no such filter.
            return WayBack(
                none=True, everywhere=source.version == 4 and all(self._checked().values())
            )
        checked = self._checked() if source.version == 4 else {}
        refusing = tuple(
            link
            for link, own in (self._links.items() if _STRICT in checked.values() else ())
            if checked.get(link) == _STRICT
            and ways != {link}
            and _said(self._ask(str(own), "from", str(source), "iif", link), *_ANOTHER_WAY)
        )
        everywhere = bool(refusing) and not self._links.keys() - set(refusing)
        return WayBack(refusing=refusing, everywhere=everywhere)

    @cached_property
    def _links(self) -> Mapping[str, IpAddress]:
        """The interfaces by which others reach this host over IPv4, each with an address there."""
        return {
            link.name: address
            for link in self._facts.links.values()
            for address in link.addresses
            if address.version == 4 and not address.is_loopback
        }

    def _checked(self) -> dict[str, int]:
        """Return rp_filter of each interface: the kernel takes the larger of two."""
        everywhere = self._setting("all")
        folder = self._proc / "sys/net/ipv4/conf"
        links = [path.name for path in folder.glob("*") if path.name not in _NO_LINKS]
        return {link: max(everywhere, self._setting(link)) for link in links}

    def _setting(self, link: str) -> int:
        return _number(self._proc / "sys/net/ipv4/conf" / link / "rp_filter") or 0

    @cached_property
    def _facts(self) -> NetworkFacts:
        return NetworkFacts(self._runner)

    def _ask(self, *words: str) -> str:
        try:
            done = self._runner.run(["ip", "route", "get", *words], timeout=5.0)
        except BackendError:
            return ""
        return done.stderr if done.returncode else ""

    def full(self) -> tuple[int, int] | None:
        """Return entries and limit where connection tracking has no room; it drops new ones then.

        One that nobody has answered may still make room (early_drop, nf_conntrack_core.c).
        """
        count = _number(self._proc / f"{_CONNTRACK}count")
        limit = _number(self._proc / f"{_CONNTRACK}max")
        return (count, limit) if count is not None and limit and count >= limit else None

    @cached_property
    def programs(self) -> list[str]:
        """Say on which interfaces programs and filters of others judge packets before any rule."""
        found = [
            f"an XDP program on {link.name} is not read"
            for link in self._facts.links.values()
            if link.xdp
        ]
        links = dict.fromkeys(_AT_INGRESS.findall(self._run("tc", "qdisc", "show")))
        return [
            *found,
            *(
                f"filters of tc at the ingress of {link} are not read"
                for link in links
                if self._run("tc", "filter", "show", "dev", link, "ingress").strip()
            ),
        ]

    def _run(self, *words: str) -> str:
        try:
            done = self._runner.run(words, timeout=5.0)
        except BackendError:
            return ""
        return "" if done.returncode else done.stdout


def loosened(link: str) -> str:
    """Return the command that has an interface take what any route leads back to."""
    return shlex.join(["sysctl", "-w", f"net.ipv4.conf.{link.replace('.', '/')}.rp_filter=2"])


def _said(text: str, *reasons: str) -> bool:
    return any(reason in text for reason in reasons)


def _bound(item: Listener) -> IpAddress:
    return getattr(item.address, "ipv4_mapped", None) or item.address


def _is_of(item: Listener, version: int | None) -> bool:
    """A socket of IPv6 that is bound to no address takes IPv4 too, unless it was told not to."""
    bound = _bound(item)
    return version in {None, bound.version} or (version == 4 and bound.is_unspecified)


def _number(path: Path) -> int | None:
    words = " ".join(lines_of(path)).split()
    return int(words[0]) if words and words[0].isdecimal() else None
