"""The backends behind one face: what should be live, make it live, read it, take it out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sipfw.backends.detect import look
from sipfw.backends.ipset import Ipsets
from sipfw.backends.iptables import IptablesBackend
from sipfw.backends.iptables_reader import IptablesReader
from sipfw.backends.iptables_restore import RESTORERS, RestoreBackend
from sipfw.backends.nft_flavour_tools import NftFlavourTools
from sipfw.backends.nftables import NftablesBackend
from sipfw.backends.nftables_reader import nft_live
from sipfw.backends.runner import SubprocessRunner
from sipfw.backends.set_filler import fill_ipsets, fill_nft_sets
from sipfw.backends.set_members import IpsetMembers, NftMembers
from sipfw.backends.strangers import strangers_in_iptables
from sipfw.backends.xtables_tools import LEGACY_RESTORERS, LegacyTools
from sipfw.deploy.forms import Possible, in_iptables, in_nftables
from sipfw.errors import BackendError
from sipfw.lower import iptables, nftables
from sipfw.lower.xtables import XSet
from sipfw.ruleset.rule import Family
from sipfw.verify.expectation import Expectation, expect, with_lines, without_families
from sipfw.verify.expectation_nft import expect_nft, with_jump_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sipfw.backends.interface import Live
    from sipfw.backends.ipset import LiveSet
    from sipfw.backends.iptables_shared import ApplyResult
    from sipfw.backends.set_members import Members
    from sipfw.backends.strangers import Strangers
    from sipfw.diagnostics import Diagnostic
    from sipfw.lower.xtables import XPlan
    from sipfw.ruleset.model import Ruleset
    from sipfw.verify.expectation import ExpectedSet


@dataclass(frozen=True, slots=True)
class Options:
    """How to apply. `force` goes live even if that locks out who is logged in by ssh.

    `leave` names sets and chains that look like ours and are not.
    """

    adopt: bool = False
    lock_seconds: float = 10.0
    force: bool = False
    leave: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What went live, and what is worth saying about it."""

    expectation: Expectation
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...] = ()


class Target(Protocol):
    """One backend with its options."""

    @property
    def name(self) -> str:
        """What `--backend` calls it."""
        ...

    def expectation(self, ruleset: Ruleset) -> Expectation:
        """Say what would be live."""
        ...

    def check(self, ruleset: Ruleset, options: Options) -> tuple[Diagnostic, ...]:
        """Raise BackendError for what would make `apply` fail; return what it would warn of."""
        ...

    def apply(self, ruleset: Ruleset, options: Options) -> Change:
        """Make it live, or leave everything as it was and raise BackendError."""
        ...

    def live(self, expectation: Expectation) -> Live:
        """Read what is live; change nothing."""
        ...

    def strangers(self, known: Collection[tuple[str, str]]) -> Strangers:
        """Return what stands among our things and is not ours; `known` are sets that are."""
        ...

    def fill(self, sets: Sequence[ExpectedSet]) -> None:
        """Give live static sets other elements and touch no rule. Raises BackendError."""
        ...

    def members(self) -> Members:
        """Give access to the dynamic sets. Raises BackendError where the backend has none."""
        ...

    def remove(self, options: Options) -> tuple[str, ...]:
        """Take out everything of ours; return notes."""
        ...


class Engine(Protocol):
    """What puts lowered iptables rules into the kernel."""

    def apply(
        self,
        plan: XPlan,
        *,
        adopt: bool = False,
        lock_seconds: float = 10.0,
        leave: Collection[str] = (),
    ) -> ApplyResult:
        """Make the plan live, or leave everything as it was and raise BackendError."""
        ...

    def check(self, plan: XPlan, *, adopt: bool = False) -> None:
        """Raise BackendError for what would make `apply` fail; change nothing."""
        ...

    def remove(self, *, lock_seconds: float = 10.0, leave: Collection[str] = ()) -> ApplyResult:
        """Take out everything of ours."""
        ...


@dataclass(frozen=True, slots=True)
class IptablesTarget:
    """iptables with or without ipset.

    Legacy tables through python-iptables, the nf_tables flavour through iptables-restore.
    """

    ipset: bool = True
    nft_flavour: bool = False

    @property
    def name(self) -> str:
        """What the record calls it."""
        return "iptables-nft" if self.nft_flavour else "iptables"

    def plan(self, possible: Possible) -> XPlan:
        """Return the lowered rules."""
        return iptables.lower(possible.ruleset, ipset=self.ipset, u32=possible.u32)

    def expectation(self, ruleset: Ruleset) -> Expectation:
        """Say what would be live."""
        possible = self._possible(ruleset)
        return expect(possible.ruleset, self.plan(possible))

    def check(self, ruleset: Ruleset, options: Options) -> tuple[Diagnostic, ...]:
        """Ask the kernel for every extension, and look for foreign chains."""
        possible = self._possible(ruleset)
        self._engine().check(self.plan(possible), adopt=options.adopt)
        return possible.remarks

    def apply(self, ruleset: Ruleset, options: Options) -> Change:
        """Make it live through the engine of the flavour."""
        possible = self._possible(ruleset)
        plan = self.plan(possible)
        result = self._engine().apply(
            plan, adopt=options.adopt, lock_seconds=options.lock_seconds, leave=options.leave
        )
        committed = {Family(name.split()[0]) for name in result.tables}
        expectation = without_families(expect(possible.ruleset, plan), set(Family) - committed)
        live = self.live(expectation)
        remembered = with_jump_lines(with_lines(expectation, live), live)
        return Change(remembered, result.notes, possible.remarks)

    def live(self, expectation: Expectation) -> Live:
        """Read both families' tables and our ipsets."""
        runner = SubprocessRunner()
        reader = IptablesReader(runner, NftFlavourTools(runner) if self.nft_flavour else None)
        return reader.live(expectation.chain_names(), expectation.static_sets())

    def strangers(self, known: Collection[tuple[str, str]]) -> Strangers:
        """Look at the sets of our name, and at rules of others in our chains."""
        runner = SubprocessRunner()
        tools = NftFlavourTools(runner) if self.nft_flavour else LegacyTools(runner)
        tables = tools.existing(Family.IP) | tools.existing(Family.IP6)
        sets: tuple[LiveSet, ...] = ()
        # A kernel without ipset has no sets, and says it with an error.
        with suppress(BackendError):
            sets = Ipsets(runner).list_if_installed()
        return strangers_in_iptables(tables, sets, known)

    def fill(self, sets: Sequence[ExpectedSet]) -> None:
        """Swap new versions of the ipsets in."""
        fill_ipsets(
            SubprocessRunner(),
            [XSet(i.name, i.type, i.options, i.elements or (), static=True) for i in sets],
        )

    def members(self) -> Members:
        """Give access to the ipsets."""
        if not self.ipset:
            raise BackendError(
                "this firewall was applied with --no-ipset and has no sets to look into",
                hint="install ipset and apply without --no-ipset",
            )
        return IpsetMembers(SubprocessRunner())

    def remove(self, options: Options) -> tuple[str, ...]:
        """Take out jumps, chains and sets."""
        engine = self._engine()
        return engine.remove(lock_seconds=options.lock_seconds, leave=options.leave).notes

    def _possible(self, ruleset: Ruleset) -> Possible:
        """Return what of the ruleset the kernel and these programs can do, and in which form."""
        return in_iptables(ruleset, RESTORERS if self.nft_flavour else LEGACY_RESTORERS)

    def _engine(self) -> Engine:
        runner = SubprocessRunner()
        return RestoreBackend(runner) if self.nft_flavour else IptablesBackend(runner)


@dataclass(frozen=True, slots=True)
class NftablesTarget:
    """`table inet sipfw`."""

    @property
    def name(self) -> str:
        """What `--backend` calls it."""
        return "nftables"

    def expectation(self, ruleset: Ruleset) -> Expectation:
        """Say what would be live."""
        possible, _ = self._possible(ruleset)
        return expect_nft(possible, nftables.lower(possible))

    def check(self, ruleset: Ruleset, options: Options) -> tuple[Diagnostic, ...]:
        """Have nft and the kernel judge the transaction."""
        possible, warnings = self._possible(ruleset)
        NftablesBackend().check(nftables.lower(possible), options.leave)
        return warnings

    def apply(self, ruleset: Ruleset, options: Options) -> Change:
        """Make it live in one transaction."""
        possible, warnings = self._possible(ruleset)
        plan = nftables.lower(possible)
        result = NftablesBackend().apply(plan, options.leave)
        expectation = expect_nft(possible, plan)
        live = self.live(expectation)
        remembered = with_jump_lines(with_lines(expectation, live), live)
        return Change(remembered, result.notes, warnings)

    def live(self, expectation: Expectation) -> Live:
        """Read our table."""
        return nft_live(NftablesBackend().listing(expectation.static_sets()))

    def strangers(self, known: Collection[tuple[str, str]]) -> Strangers:
        """Look at the chains and sets of our table."""
        return NftablesBackend().strangers(known)

    def fill(self, sets: Sequence[ExpectedSet]) -> None:
        """Add and delete elements in one transaction."""
        fill_nft_sets(SubprocessRunner(), {item.name: item.elements or () for item in sets})

    def members(self) -> Members:
        """Give access to the sets of our table."""
        return NftMembers(SubprocessRunner())

    def remove(self, options: Options) -> tuple[str, ...]:
        """Delete our table, or of it what is ours."""
        return NftablesBackend().remove(options.leave)

    def _possible(self, ruleset: Ruleset) -> tuple[Ruleset, tuple[Diagnostic, ...]]:
        """Return what of the ruleset this kernel can do, and what is lost."""
        found = in_nftables(ruleset, NftablesBackend().text_searches())
        return found.ruleset, found.remarks


def target(backend: str, *, ipset: bool = True) -> Target:
    """Return the backend of that name."""
    if backend == "nftables":
        return NftablesTarget()
    return IptablesTarget(ipset, nft_flavour=backend == "iptables-nft")


def installed_backends() -> list[str]:
    """Name the backends that a removal without a record looks at.

    Those in which rules of ours are live; without any, one that can take out sets left behind, and
    every other whose program this host has.
    """
    host = look()
    if host.ours:
        return sorted(host.ours)
    engines = {"iptables": "iptables-legacy-save", "iptables-nft": "iptables-nft-save"}
    found = [name for name, tool in engines.items() if tool in host.programs][:1]
    return found + (["nftables"] if "nft" in host.programs else [])
