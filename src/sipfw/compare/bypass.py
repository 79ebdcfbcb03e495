"""Whether a rule before our jump lets packets go past it. Drops and plain chains may stand so."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sipfw.compare.live import LiveChain, LiveJump

# iptables-save quotes a text only where it must.
_FREE_TEXT = re.compile(
    r"--(?:comment|string|hex-string|log-prefix|nflog-prefix|name) "
    r'(?:"(?:\\.|[^"\\])*"|\S+)',
    re.DOTALL,
)
# A program that is asked by NFQUEUE and accepts lets the packet skip the rest of the hook.
_ENDS = frozenset({"ACCEPT", "QUEUE", "NFQUEUE"})
_NFT_ENDS = ('{"accept":null}', '{"return":null}', '{"queue":', '{"goto":')
_DROPS_ALL = re.compile(r"-A \S+ (?:-m comment )?-j (?:DROP|REJECT)\b.*")
_PORTS = re.compile(r"\d{1,5}(?::\d{1,5})?(?:,\d{1,5}(?::\d{1,5})?)*")
_CONDITIONS = frozenset({"-i", "--dport", "--dports"})
_STATES = frozenset({"RELATED", "ESTABLISHED"})


def ways_past(jump: LiveJump, lead: str | None = None, *, of_open: bool = False) -> Iterator[str]:
    """Yield the rules before a jump that let packets past it, with the inner rule that does.

    The lines are those of iptables-save, or the JSON of nft, which starts with a bracket. With
    `lead`, a rule of ours behind the jump, only what may take packets that it is for; `of_open`
    says that these are packets of connections that stand.
    """
    chains = {chain.name: chain for chain in jump.led}
    for line in jump.before:
        if line.startswith("["):
            if any(verdict in line for verdict in _NFT_ENDS):
                yield line
            continue
        rule = _Words(line)
        if jump.table == "filter" and rule.is_of_old_connections and not of_open:
            continue
        if lead is not None and not _may_concern(rule, lead):
            continue
        inner = _way(rule, _Inside(jump.table, chains, lead, of_open=of_open))
        if inner is not None:
            yield line if inner == line else f"{line} and there {inner}"


def _may_concern(theirs: _Words, lead: str) -> bool:
    """Tell whether a rule may take packets that a rule of ours is for.

    It does not where both name ports, and different ones, or where it is about another protocol.
    """
    ours = _Words(lead)
    if theirs.protocol not in {None, "all", ours.protocol}:
        return False
    return not ours.ports or not theirs.ports or bool(ours.ports & theirs.ports)


class _Words:
    """A line of iptables-save; a text of somebody's own in it says nothing."""

    def __init__(self, line: str) -> None:
        self.line = line
        self._words = _FREE_TEXT.sub("", line).split()

    @property
    def target(self) -> str:
        """The verdict or chain, empty without one."""
        return self._after("-j") or self._after("-g") or ""

    @property
    def goes(self) -> bool:
        """Tell whether the target's end does not come back here."""
        return self._after("-g") is not None

    @property
    def drops_all(self) -> bool:
        """Tell whether no packet comes behind this rule, or past it."""
        return _DROPS_ALL.fullmatch(" ".join(self._words)) is not None

    @property
    def is_of_loopback(self) -> bool:
        """Tell whether it is for the host's talk with itself, which sipfw leaves alone."""
        return self._after("-i") == "lo" and "! -i" not in " ".join(self._words)

    @property
    def is_of_old_connections(self) -> bool:
        """Tell whether it is for connections that are open, which our host part lets in too."""
        states = self._after("--ctstate") or self._after("--state")
        return states is not None and set(states.split(",")) <= _STATES and "!" not in self._words

    @property
    def is_narrow(self) -> bool:
        """Tell whether it opens one interface or one port, as a tool does for its own service."""
        return bool(_CONDITIONS & set(self._words))

    @property
    def protocol(self) -> str | None:
        """The protocol that it is for, None where it is for all."""
        return None if "! -p" in " ".join(self._words) else self._after("-p")

    @property
    def ports(self) -> frozenset[int]:
        """The destination ports that it is for; empty where it is for any, or for all but some."""
        options = ("--dport", "--dports", "--ctorigdstport")
        text = next(filter(None, map(self._after, options)), "")
        joined = " ".join(self._words)
        if "! --dport" in joined or not _PORTS.fullmatch(text):
            return frozenset()
        ranges = [(item.partition(":")) for item in text.split(",")]
        return frozenset(
            port for low, _, high in ranges for port in range(int(low), int(high or low) + 1)
        )

    def _after(self, option: str) -> str | None:
        return next((value for word, value in pairwise(self._words) if word == option), None)


def _way(rule: _Words, inside: _Inside) -> str | None:
    """Return the rule that lets packets past, itself or in a chain that it leads to."""
    if rule.is_of_loopback:
        return None
    # The end of a built-in chain is its policy: a return there passes us by as well.
    if rule.target in _ENDS or rule.target == "RETURN":
        return rule.line
    chain = inside.chains.get(rule.target)
    if chain is None:
        return None
    inner = inside.way(chain)
    if inner is not None:
        return inner
    return rule.line if rule.goes and not _is_wall(chain) else None


class _Inside:
    """Looks for a way past in a chain and those that it leads to, each once."""

    def __init__(
        self, table: str, chains: Mapping[str, LiveChain], lead: str | None, *, of_open: bool
    ) -> None:
        self._filters = table == "filter"
        self.chains = chains
        self._lead = lead
        self._of_open = of_open
        self._seen: set[str] = set()

    def way(self, chain: LiveChain) -> str | None:
        """Return the rule that lets packets past."""
        if chain.name in self._seen:
            return None
        self._seen.add(chain.name)
        for each in chain.rules:
            rule = _Words(each.line)
            if rule.is_of_loopback or self._is_of_no_matter(rule):
                continue
            if rule.target in _ENDS:
                return rule.line
            if rule.target in self.chains:
                inner = self.way(self.chains[rule.target])
                if inner is not None:
                    return inner
            if rule.drops_all:
                return None
        return None

    def _is_of_no_matter(self, rule: _Words) -> bool:
        """Tell what libvirt, a VPN and the like open for themselves; SIP is judged in table raw."""
        if self._lead is not None and not _may_concern(rule, self._lead):
            return True
        narrow = rule.is_narrow and self._lead is None
        old = rule.is_of_old_connections and not self._of_open
        return self._filters and (narrow or old)


def _is_wall(chain: LiveChain) -> bool:
    return any(_Words(rule.line).drops_all for rule in chain.rules)
