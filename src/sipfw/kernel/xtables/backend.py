"""The backends of iptables: legacy tables through python-iptables, nf_tables through -restore."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.compare.expected import (
    Expectation,
    expect,
    with_jump_lines,
    with_lines,
    without_families,
)
from sipfw.errors import BackendError
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.backend import PROC_NET, AppliedChange, register
from sipfw.kernel.state.limits import XtLimits
from sipfw.kernel.state.marks import marks_in_iptables
from sipfw.kernel.state.members import IpsetMembers
from sipfw.kernel.state.sources import IpsetSets, RecentSets
from sipfw.kernel.state.windows import IpsetLimits
from sipfw.kernel.strangers import strangers_in_iptables
from sipfw.kernel.xtables.facts import (
    LEGACY,
    LEGACY_FACTS,
    NFT_FLAVOUR,
    NFT_FLAVOUR_FACTS,
    legacy_modules,
    nft_flavour_modules,
)
from sipfw.kernel.xtables.ipset import OUR_PREFIX, Ipsets
from sipfw.kernel.xtables.ipset_text import header_options
from sipfw.kernel.xtables.nft_tools import RESTORERS, NftFlavourTools
from sipfw.kernel.xtables.reader import IptablesReader
from sipfw.kernel.xtables.tools import LEGACY_RESTORERS, LegacyTools
from sipfw.lower.xtables import XPlan, XSet
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from sipfw.compare.deep import Definitions
    from sipfw.compare.expected import ExpectedSet
    from sipfw.compare.live import Live, LiveJump
    from sipfw.diagnostics import Diagnostic
    from sipfw.host.runner import Runner
    from sipfw.kernel.backend import Facts, Modules, Options
    from sipfw.kernel.detect import Listed, PacketFilters
    from sipfw.kernel.forms import Possible
    from sipfw.kernel.state.limits import LimitState
    from sipfw.kernel.state.members import Members
    from sipfw.kernel.state.sources import SourceSets
    from sipfw.kernel.strangers import Strangers
    from sipfw.kernel.xtables.engine import Engine
    from sipfw.kernel.xtables.ipset import LiveSet
    from sipfw.ruleset.model import Ruleset


@dataclass(frozen=True, slots=True)
class XtablesBackend:
    """iptables with or without ipset.

    Legacy tables through python-iptables, the nf_tables flavour through iptables-restore.
    """

    ipset: bool = True
    nft_flavour: bool = False
    runner: Runner = field(default_factory=SubprocessRunner, compare=False)

    @property
    def name(self) -> str:
        """What the record calls it."""
        return NFT_FLAVOUR if self.nft_flavour else LEGACY

    @property
    def facts(self) -> Facts:
        """What is true of the flavour on every host."""
        return NFT_FLAVOUR_FACTS if self.nft_flavour else LEGACY_FACTS

    def suits(self, host: PacketFilters) -> str | None:
        """Say why the flavour suits a host."""
        from sipfw.kernel.xtables.choice import suits_legacy, suits_nft_flavour

        if self.nft_flavour:
            return suits_nft_flavour(host, ipset=self.ipset)
        return suits_legacy(host)

    def meant(self, host: PacketFilters) -> str | None:
        """Say why `--backend iptables` means this flavour. Raises BackendError without either."""
        from sipfw.kernel.xtables.choice import iptables_engine

        name, reason = iptables_engine(host)
        return reason if name == self.name else None

    def lack(self) -> str | None:
        """Say so where fixed bytes of a packet cannot be compared."""
        from sipfw.kernel.xtables.choice import lack

        return lack(self._restorers())

    def is_live(self, listed: Listed) -> bool:
        """Tell whether a rule of ours is in the flavour's tables."""
        tables = listed.iptables_nft if self.nft_flavour else listed.legacy
        return any(rule.is_ours for table in tables.values() for rule in table.rules)

    def modules(self, log_readers: Collection[str]) -> Modules:
        """Name the modules of the matches, and what the flavour reaches them through."""
        return (nft_flavour_modules if self.nft_flavour else legacy_modules)(log_readers)

    def listing(self, ruleset: Ruleset) -> str:
        """Return the shell script, in the form for a kernel with every match."""
        from sipfw.lower import iptables
        from sipfw.render.script import script_text

        plan = iptables.lower(ruleset, ipset=self.ipset)
        return script_text(plan, ruleset.sysctls, ruleset=ruleset)

    def plan(self, possible: Possible) -> XPlan:
        """Return the lowered rules."""
        from sipfw.lower import iptables

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

    def apply(self, ruleset: Ruleset, options: Options) -> AppliedChange:
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
        return AppliedChange(remembered, result.notes, possible.remarks)

    def live(self, expectation: Expectation) -> Live:
        """Read both families' tables and our ipsets."""
        runner = self.runner
        reader = IptablesReader(runner, NftFlavourTools(runner) if self.nft_flavour else None)
        return reader.live(expectation.chain_names(), expectation.static_sets())

    def read_fully(self, expectation: Expectation) -> tuple[Live, Definitions]:
        """Read both families' tables, whose save format is complete, and how sets are made."""
        return self.live(expectation), self._definitions()

    def is_whole(self, expectation: Expectation) -> bool:
        """Return False: the marks and the rules stand in one listing, so nothing is quicker."""
        del expectation
        return False

    def marks(self, family: Family) -> Counter[str]:
        """Count the marks in the tables of one family."""
        flavour = "nft" if self.nft_flavour else "legacy"
        return marks_in_iptables(flavour, family, self.runner)

    def limits(self, proc_net: Path = PROC_NET) -> LimitState:
        """Give access to xt_hashlimit, and to windows as ipsets or as xt_recent."""
        return IpsetLimits(self.runner, proc_net) if self.ipset else XtLimits(proc_net)

    def sources(self, names: frozenset[str], proc_net: Path = PROC_NET) -> SourceSets:
        """Give access to the ipsets, or to the lists that stand in for them."""
        del names
        return IpsetSets(self.runner) if self.ipset else RecentSets(proc_net)

    def strangers(self, known: Collection[tuple[str, str]]) -> Strangers:
        """Look at the sets of our name, and at rules of others in our chains."""
        runner = self.runner
        tools = self._tools(runner)
        tables = tools.existing(Family.IP) | tools.existing(Family.IP6)
        sets: tuple[LiveSet, ...] = ()
        # A kernel without ipset has no sets, and says it with an error.
        with suppress(BackendError):
            sets = Ipsets(runner).list_if_installed()
        return strangers_in_iptables(tables, sets, known)

    def fill(self, sets: Sequence[ExpectedSet]) -> None:
        """Swap new versions of the ipsets in."""
        from sipfw.kernel.state.filler import fill_ipsets

        fill_ipsets(
            self.runner,
            [XSet(i.name, i.type, i.options, i.elements or (), static=True) for i in sets],
        )

    def members(self) -> Members:
        """Give access to the ipsets."""
        if not self.ipset:
            raise BackendError(
                "this firewall was applied with --no-ipset and has no sets to look into",
                hint="install ipset and apply without --no-ipset",
            )
        return IpsetMembers(self.runner)

    def take_out(self, jumps: Iterable[LiveJump]) -> None:
        """Delete these rules from the chains of iptables."""
        tools = self._tools(self.runner)
        for jump in jumps:
            deletion = jump.rule.line.replace("-A", "-D", 1)
            tools.load(jump.family, f"*{jump.table}\n{deletion}\nCOMMIT\n")

    def drop_left_sets(self) -> list[str]:
        """Destroy the ipsets of our name that no rule uses."""
        from sipfw.kernel.xtables.engine import drop_obsolete_sets

        return drop_obsolete_sets(Ipsets(self.runner), XPlan((), ()))

    def remove(self, options: Options) -> tuple[str, ...]:
        """Take out jumps, chains and sets."""
        engine = self._engine()
        return engine.remove(lock_seconds=options.lock_seconds, leave=options.leave).notes

    def _possible(self, ruleset: Ruleset) -> Possible:
        """Return what of the ruleset the kernel and these programs can do, and in which form."""
        from sipfw.kernel.forms import in_iptables

        return in_iptables(ruleset, self._restorers())

    def _definitions(self) -> Definitions:
        """Return type and options of each set of our name, for the comparison of two kernels."""
        found: dict[str, tuple[str, ...]] = {}
        for item in Ipsets(self.runner).list_if_installed():
            if item.name.startswith(OUR_PREFIX):
                options = header_options(item.header, item.type).items()
                found[item.name] = tuple(f"{name} {value}".strip() for name, value in options)
        return found

    def _restorers(self) -> Mapping[Family, str]:
        return RESTORERS if self.nft_flavour else LEGACY_RESTORERS

    def _tools(self, runner: Runner) -> NftFlavourTools | LegacyTools:
        return NftFlavourTools(runner) if self.nft_flavour else LegacyTools(runner)

    def _engine(self) -> Engine:
        from sipfw.kernel.xtables.legacy import IptablesBackend
        from sipfw.kernel.xtables.restore import RestoreBackend

        runner = self.runner
        return RestoreBackend(runner) if self.nft_flavour else IptablesBackend(runner)


register(LEGACY, lambda ipset, runner: XtablesBackend(ipset, nft_flavour=False, runner=runner))
register(NFT_FLAVOUR, lambda ipset, runner: XtablesBackend(ipset, nft_flavour=True, runner=runner))
