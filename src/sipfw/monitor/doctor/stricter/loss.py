"""One rule of somebody else, and what it takes away, in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.compare.foreign import Verdict
from sipfw.kernel.detect import printable
from sipfw.lower.xtables import Family
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.monitor.host_path.fit import Grant
    from sipfw.monitor.host_path.ways import HookChains, Step

_SHOWN_RULE = 160
_SHOWN_SOURCES = 4
_NAMES = {Family.IP: "IPv4", Family.IP6: "IPv6"}
_DOES = dict.fromkeys((Verdict.SEND, Verdict.REDIRECT), "leads astray")


@dataclass(frozen=True, slots=True)
class Loss:
    """One rule or policy of somebody else, and what of ours ends there.

    `step` is None for the policy. `sure` is False where another rule, which nobody here
    understands, may let it through before. `behind` says that our jump stands in front. `ours`
    says that the rules in force accept it: it is lost only once this ruleset is live. `peers` says
    that it is not strangers alone who lose. `when` names what it rests on where nobody can tell
    whether it is lost.
    """

    way: HookChains
    step: Step | None
    place: int | None
    lost: tuple[Grant, ...]
    sure: bool
    behind: bool
    ours: bool
    peers: bool
    when: tuple[str, ...] = ()

    @property
    def rule(self) -> str | None:
        """The rule as its own program lists it."""
        return None if self.step is None else self.step.rule.line

    @property
    def text(self) -> str:
        """Name the rule, and what it takes; what others wrote must not steer a terminal."""
        what = f"the policy DROP of {self.way.where}"
        if self.rule is not None:
            shown = self.rule if len(self.rule) <= _SHOWN_RULE else f"{self.rule[:_SHOWN_RULE]}..."
            what = f"`{shown}` of {self.way.where}"
        lost = ", ".join(titles(self.lost))
        return printable(f"{' '.join(what.split())} {self._does()} what the policy admits: {lost}")

    def _does(self) -> str:
        verb = "drops" if self.step is None else _DOES.get(self.step.rule.verdict, "drops")
        if self.when:
            return f"may take away (it rests on {' and '.join(self.when)})"
        if self.sure:
            return verb
        return f"{verb}, unless a rule before it lets it through,"


def merged(lost: Sequence[Grant]) -> Iterator[Grant]:
    """Join pieces of one range, and leave out peers where everybody loses the same."""
    everybody = {_alike(item) for item in lost if item.source is None}
    kept = [item for item in lost if item.source is None or _alike(item) not in everybody]
    last: Grant | None = None
    for item in kept:
        if (
            last is not None
            and replace(item, ports=last.ports) == last
            and last.ports.last + 1 == item.ports.first
        ):
            last = replace(last, ports=PortRange(last.ports.first, item.ports.last))
            continue
        if last is not None:
            yield last
        last = item
    if last is not None:
        yield last


def _alike(item: Grant) -> object:
    return item.family, item.proto, item.ports, item.state


def titles(lost: Sequence[Grant]) -> list[str]:
    """Say what is lost, one text for each service and port."""
    grouped: dict[tuple[str, str, bool], list[Grant]] = {}
    for item in lost:
        grouped.setdefault((item.what, str(item.ports), item.answer), []).append(item)
    return [
        f"the answers of {what} from {ports}{_whose(found, 'to')}"
        if answer
        else f"{what} to {ports}{_whose(found, 'from')}"
        for (what, ports, answer), found in grouped.items()
    ]


def _whose(found: Sequence[Grant], way: str) -> str:
    sources = [str(item.source) for item in found if item.source is not None]
    if not sources:
        families = {item.family for item in found}
        return "" if len(families) > 1 else f" ({_NAMES[families.pop()]})"
    more = len(sources) - _SHOWN_SOURCES
    names = ", ".join(short(text) for text in sources[:_SHOWN_SOURCES])
    return f" {way} {names}{f' and {more} more' if more > 0 else ''}"


def short(network: str) -> str:
    """Write one address without its length."""
    return network.removesuffix("/32").removesuffix("/128")
