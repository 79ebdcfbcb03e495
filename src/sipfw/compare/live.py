"""What a backend is, and what it reads back: one neutral form for every kernel interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sized

    from sipfw.compare.foreign import ForeignChain, ForeignRule
    from sipfw.ruleset.rule import Family


@dataclass(frozen=True, slots=True)
class LiveRule:
    """A rule in the kernel; `rule_id` is None when it does not carry our mark.

    `line` is the kernel's own listing of it, without counters. `search` says what the xtables
    matches of an nftables rule look for, which the listing leaves out. A rule that is not `counted`
    has no counter, and its figures are 0.
    """

    rule_id: str | None
    digest: str | None
    packets: int
    bytes: int
    line: str
    search: str | None = None
    counted: bool = True


@dataclass(frozen=True, slots=True)
class LiveChain:
    """A user chain that holds a rule of ours, or has the name of one of our chains."""

    family: Family
    table: str
    name: str
    rules: tuple[LiveRule, ...]


@dataclass(frozen=True, slots=True)
class LiveJump:
    """A rule of ours in a built-in chain; `before` are the rules that see packets first.

    `led` are the foreign chains into which those lead, at any depth; `after` are the rules behind
    it, which only iptables says.
    """

    family: Family
    table: str
    hook: str
    rule: LiveRule
    before: tuple[ForeignRule, ...]
    led: tuple[ForeignChain, ...] = ()
    after: tuple[ForeignRule, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveSetState:
    """A set of ours; `elements` only for static sets, whose content is the policy's."""

    name: str
    type: str
    header: tuple[str, ...]
    entries: int
    elements: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """What a built-in chain of iptables does with packets that no rule of it has judged."""

    family: Family
    table: str
    hook: str
    policy: str


@dataclass(frozen=True, slots=True)
class Live:
    """Everything of ours that one namespace's kernel holds; `dormant` when no packet meets it.

    `strays` are rules without our mark, outside our chains, that lead into them. `strangers` are
    chains in our own table which no plan makes. `silence` says why the sets could not be read.
    """

    chains: tuple[LiveChain, ...]
    jumps: tuple[LiveJump, ...]
    sets: tuple[LiveSetState, ...]
    dormant: bool = False
    policies: tuple[LivePolicy, ...] = ()
    strays: tuple[LiveJump, ...] = ()
    strangers: tuple[str, ...] = ()
    silence: str | None = None

    def sets_beside(self, expected: Sized) -> tuple[LiveSetState, ...]:
        """Return our sets, to be compared with the expected ones.

        Raises BackendError where some are expected and nobody could say which there are: those in
        the kernel must not be called missing.
        """
        if self.silence is not None and expected:
            raise BackendError(f"the sets of the firewall cannot be read: {self.silence}")
        return self.sets
