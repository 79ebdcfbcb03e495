"""Whether an address is in a set of somebody else: each set is listed once, and only if asked."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.xtables.ipset_text import elements_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.host.runner import Runner
    from sipfw.monitor.host_path.fit import Network

# Types of ipset whose elements are addresses and nothing besides.
_ADDRESSES = frozenset({"hash:ip", "hash:net", "bitmap:ip"})
_ELEMENTS = re.compile(r"\belements = \{([^}]*)\}")
# A name of another form could mean something else to the program that is asked.
_NAME = re.compile(r"@?[A-Za-z0-9_][\w.:+-]*")
# Members that are compared one by one, where a whole network is asked about.
_MOST = 20_000


class _Members:
    """The elements of one set: networks by their text, which is quick to look up."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._inside: set[str] = set()
        self._except: set[str] = set()
        for text in texts:
            words = text.split()
            target = self._except if "nomatch" in words[1:] else self._inside
            target.update(_networks(words[0]))

    def has(self, network: Network) -> bool | None:
        """Tell whether all of a network is in; None where some of it is."""
        wide = [str(network.supernet(new_prefix=length)) for length in _lengths(network)]
        inside = next((text for text in wide if text in self._inside), None)
        excluded = next((text for text in wide if text in self._except), None)
        if excluded is not None and (inside is None or wide.index(excluded) <= wide.index(inside)):
            return False
        if inside is not None:
            return True
        if network.prefixlen == network.max_prefixlen:
            return False
        if len(self._inside) > _MOST:
            return None
        overlaps = any(ip_network(item).overlaps(network) for item in self._inside)
        return None if overlaps else False


class ForeignSets:
    """Looks into the sets of both packet filters; None wherever nobody can tell."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._known: dict[tuple[str, ...], _Members | None] = {}

    def ipset(self, name: str, network: Network) -> bool | None:
        """Look into an ipset of addresses or networks."""
        return self._has(("ipset", "save", name), network)

    def nft(self, family: str, table: str, name: str, network: Network) -> bool | None:
        """Look into a named set of nft; `name` begins with @."""
        return self._has(("nft", "list", "set", family, table, name.removeprefix("@")), network)

    def elements(self, family: str, table: str, name: str) -> str | None:
        """Return what a set or map of nft holds, as it lists it; `name` is without the @."""
        if not all(map(_NAME.fullmatch, (family, table, name))):
            return None
        for kind in ("map", "set"):
            with suppress(BackendError):
                done = self._runner.run(["nft", "list", kind, family, table, name])
                if done.returncode == 0:
                    found = _ELEMENTS.search(done.stdout)
                    return "" if found is None else found[1]
        return None

    def _has(self, question: tuple[str, ...], network: Network) -> bool | None:
        if question not in self._known:
            if not all(map(_NAME.fullmatch, question[2:])):
                return None
            try:
                self._known[question] = self._read(question)
            except (BackendError, ValueError, IndexError):
                self._known[question] = None
        found = self._known[question]
        return None if found is None else found.has(network)

    def _read(self, question: tuple[str, ...]) -> _Members | None:
        done = self._runner.run(list(question))
        if done.returncode != 0:
            return None
        if question[0] == "ipset":
            head = done.stdout.partition("\n")[0].split()
            return _Members(elements_of(done.stdout)) if head[2] in _ADDRESSES else None
        found = _ELEMENTS.search(done.stdout)
        if " . " in done.stdout:
            return None
        listed = "" if found is None else found[1]
        return _Members(item.strip() for item in listed.split(",") if item.strip())


def _lengths(network: Network) -> Iterator[int]:
    return iter(range(network.prefixlen, -1, -1))


def _networks(word: str) -> Iterator[str]:
    first, dash, last = word.partition("-")
    if dash:
        yield from map(str, summarize_address_range(ip_address(first), ip_address(last)))
    elif "/" in word:
        yield str(ip_network(word, strict=False))
    else:
        yield f"{word}/{32 if '.' in word else 128}"
