"""The backend of nftables: `table inet sipfw`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.compare.expected import Expectation, expect, with_jump_lines, with_lines
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.backend import PROC_NET, AppliedChange, register
from sipfw.kernel.nft.facts import FACTS, NAME, modules, suits
from sipfw.kernel.nft.reader import nft_live
from sipfw.kernel.state.limits import NftLimits
from sipfw.kernel.state.marks import marks_in_nftables
from sipfw.kernel.state.members import NftMembers
from sipfw.kernel.state.sources import NftSets
from sipfw.lower import nftables
from sipfw.lower.nftables_plan import TABLE

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from sipfw.compare.deep import Definitions
    from sipfw.compare.expected import ExpectedSet
    from sipfw.compare.live import Live, LiveJump
    from sipfw.diagnostics import Diagnostic
    from sipfw.host.runner import Runner
    from sipfw.kernel.backend import Facts, Modules, Options
    from sipfw.kernel.detect import Listed, PacketFilters
    from sipfw.kernel.nft.engine import NftablesBackend
    from sipfw.kernel.state.limits import LimitState
    from sipfw.kernel.state.members import Members
    from sipfw.kernel.state.sources import SourceSets
    from sipfw.kernel.strangers import Strangers
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Family


@dataclass(frozen=True, slots=True)
class NftBackend:
    """`table inet sipfw`."""

    runner: Runner = field(default_factory=SubprocessRunner, compare=False)

    @property
    def name(self) -> str:
        """What the record calls it."""
        return NAME

    @property
    def facts(self) -> Facts:
        """What is true of it on every host."""
        return FACTS

    def suits(self, host: PacketFilters) -> str | None:
        """Say why it suits a host."""
        return suits(host)

    def meant(self, host: PacketFilters) -> str | None:
        """Return nothing: it shares no word of `--backend`."""
        del host
        return None

    def lack(self) -> str | None:
        """Return nothing: what it cannot do without is in every kernel with nf_tables."""
        return None

    def is_live(self, listed: Listed) -> bool:
        """Tell whether our table is there."""
        return ("inet", TABLE) in listed.nf_tables

    def modules(self, log_readers: Collection[str]) -> Modules:
        """Name the modules of the rules and of text searches."""
        return modules(log_readers)

    def listing(self, ruleset: Ruleset) -> str:
        """Return what `nft -f` would load."""
        from sipfw.render.nft import nft_text

        return nft_text(nftables.lower(ruleset))

    def expectation(self, ruleset: Ruleset) -> Expectation:
        """Say what would be live."""
        possible, _ = self._possible(ruleset)
        return expect(possible, nftables.lower(possible))

    def check(self, ruleset: Ruleset, options: Options) -> tuple[Diagnostic, ...]:
        """Have nft and the kernel judge the transaction."""
        possible, warnings = self._possible(ruleset)
        self._engine().check(nftables.lower(possible), options.leave)
        return warnings

    def apply(self, ruleset: Ruleset, options: Options) -> AppliedChange:
        """Make it live in one transaction."""
        possible, warnings = self._possible(ruleset)
        plan = nftables.lower(possible)
        result = self._engine().apply(plan, options.leave)
        expectation = expect(possible, plan)
        live = self.live(expectation)
        remembered = with_jump_lines(with_lines(expectation, live), live)
        return AppliedChange(remembered, result.notes, warnings)

    def live(self, expectation: Expectation) -> Live:
        """Read our table."""
        return nft_live(self._engine().listing(expectation.static_sets()))

    def read_fully(self, expectation: Expectation) -> tuple[Live, Definitions]:
        """Read our table in both forms; the JSON leaves something out."""
        from sipfw.kernel.nft.full_listing import with_text

        return with_text(lambda: self.live(expectation))

    def is_whole(self, expectation: Expectation) -> bool:
        """Look at the marks and the static sets, past the sets that packets fill."""
        from sipfw.kernel.nft.quick_look import is_whole

        return is_whole(expectation)

    def marks(self, family: Family) -> Counter[str]:
        """Count the marks in our table, which is of both families."""
        del family
        return marks_in_nftables()

    def limits(self, proc_net: Path = PROC_NET) -> LimitState:
        """Give access to the sets that limits are; nothing of them stands in /proc."""
        del proc_net
        return NftLimits()

    def sources(self, names: frozenset[str], proc_net: Path = PROC_NET) -> SourceSets:
        """Give access to the sets; nothing of them stands in /proc."""
        del proc_net
        return NftSets(names)

    def strangers(self, known: Collection[tuple[str, str]]) -> Strangers:
        """Look at the chains and sets of our table."""
        return self._engine().strangers(known)

    def fill(self, sets: Sequence[ExpectedSet]) -> None:
        """Add and delete elements in one transaction."""
        from sipfw.kernel.state.filler import fill_nft_sets

        fill_nft_sets(self.runner, {item.name: item.elements or () for item in sets})

    def members(self) -> Members:
        """Give access to the sets of our table."""
        return NftMembers(self.runner)

    def take_out(self, jumps: Iterable[LiveJump]) -> None:
        """Do nothing: the base chains are ours, and an apply writes them anew."""
        del jumps

    def drop_left_sets(self) -> list[str]:
        """Return nothing: the sets go with the table."""
        return []

    def remove(self, options: Options) -> tuple[str, ...]:
        """Delete our table, or of it what is ours."""
        return self._engine().remove(options.leave)

    def _engine(self) -> NftablesBackend:
        from sipfw.kernel.nft.engine import NftablesBackend

        return NftablesBackend(self.runner)

    def _possible(self, ruleset: Ruleset) -> tuple[Ruleset, tuple[Diagnostic, ...]]:
        """Return what of the ruleset this kernel can do, and what is lost."""
        from sipfw.kernel.forms import in_nftables

        found = in_nftables(ruleset, self._engine().text_searches())
        return found.ruleset, found.remarks


register(NAME, lambda _ipset, runner: NftBackend(runner))
