"""The backends behind one face: what should be live, make it live, read it, take it out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sipfw.backends.iptables import IptablesBackend
from sipfw.backends.iptables_reader import IptablesReader
from sipfw.backends.nftables import NftablesBackend
from sipfw.backends.nftables_reader import nft_live
from sipfw.backends.runner import HOST_PATH, SubprocessRunner
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.lower import iptables, nftables
from sipfw.ruleset.rule import Family
from sipfw.verify.expectation import Expectation, expect, with_lines, without_families
from sipfw.verify.expectation_nft import expect_nft

if TYPE_CHECKING:
    from sipfw.backends.interface import Live
    from sipfw.lower.nftables import NftPlan
    from sipfw.lower.xtables import XPlan
    from sipfw.ruleset.model import Ruleset


@dataclass(frozen=True, slots=True)
class Options:
    """How to apply."""

    adopt: bool = False
    lock_seconds: float = 10.0


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

    def check(self, ruleset: Ruleset, options: Options) -> None:
        """Raise BackendError for what would make `apply` fail; change nothing."""
        ...

    def apply(self, ruleset: Ruleset, options: Options) -> Change:
        """Make it live, or leave everything as it was and raise BackendError."""
        ...

    def live(self, expectation: Expectation) -> Live:
        """Read what is live; change nothing."""
        ...

    def remove(self, options: Options) -> tuple[str, ...]:
        """Take out everything of ours; return notes."""
        ...


@dataclass(frozen=True, slots=True)
class IptablesTarget:
    """Legacy iptables through python-iptables, with or without ipset."""

    ipset: bool = True

    @property
    def name(self) -> str:
        """What `--backend` calls it."""
        return "iptables"

    def plan(self, ruleset: Ruleset) -> XPlan:
        """Return the lowered rules."""
        return iptables.lower(ruleset, ipset=self.ipset)

    def expectation(self, ruleset: Ruleset) -> Expectation:
        """Say what would be live."""
        return expect(ruleset, self.plan(ruleset))

    def check(self, ruleset: Ruleset, options: Options) -> None:
        """Ask the kernel for every extension, and look for foreign chains."""
        IptablesBackend(SubprocessRunner()).check(self.plan(ruleset), adopt=options.adopt)

    def apply(self, ruleset: Ruleset, options: Options) -> Change:
        """Make it live through the worker process."""
        plan = self.plan(ruleset)
        result = IptablesBackend(SubprocessRunner()).apply(
            plan, adopt=options.adopt, lock_seconds=options.lock_seconds
        )
        committed = {Family(name.split()[0]) for name in result.tables}
        expectation = without_families(expect(ruleset, plan), set(Family) - committed)
        return Change(with_lines(expectation, self.live(expectation)), result.notes)

    def live(self, expectation: Expectation) -> Live:
        """Read both families' tables and our ipsets."""
        reader = IptablesReader(SubprocessRunner())
        return reader.live(expectation.chain_names(), expectation.static_sets())

    def remove(self, options: Options) -> tuple[str, ...]:
        """Take out jumps, chains and sets."""
        backend = IptablesBackend(SubprocessRunner())
        return backend.remove(lock_seconds=options.lock_seconds).notes


@dataclass(frozen=True, slots=True)
class NftablesTarget:
    """`table inet sipfw`."""

    @property
    def name(self) -> str:
        """What `--backend` calls it."""
        return "nftables"

    def expectation(self, ruleset: Ruleset) -> Expectation:
        """Say what would be live."""
        return expect_nft(ruleset, self._plan(ruleset)[0])

    def check(self, ruleset: Ruleset, options: Options) -> None:
        """Have nft and the kernel judge the transaction."""
        del options
        NftablesBackend().check(self._plan(ruleset)[0])

    def apply(self, ruleset: Ruleset, options: Options) -> Change:
        """Make it live in one transaction."""
        del options
        plan, warnings = self._plan(ruleset)
        result = NftablesBackend().apply(plan)
        expectation = expect_nft(ruleset, plan)
        return Change(
            with_lines(expectation, self.live(expectation)), result.notes, tuple(warnings)
        )

    def live(self, expectation: Expectation) -> Live:
        """Read our table."""
        return nft_live(NftablesBackend().listing(expectation.static_sets()))

    def remove(self, options: Options) -> tuple[str, ...]:
        """Delete our table."""
        del options
        NftablesBackend().remove()
        return ()

    def _plan(self, ruleset: Ruleset) -> tuple[NftPlan, list[Diagnostic]]:
        reason = NftablesBackend().text_searches()
        if reason is None:
            return nftables.lower(ruleset), []
        message = (
            f"no text searches on this kernel ({reason}): scanner signatures are left out, and "
            "nobody is learned from the switch's replies"
        )
        warning = Diagnostic(message, "scanners.signatures", severity=Severity.WARNING)
        return nftables.lower(ruleset, texts=False), [warning]


def target(backend: str, *, ipset: bool = True) -> Target:
    """Return the backend of that name."""
    return NftablesTarget() if backend == "nftables" else IptablesTarget(ipset)


def installed_backends() -> list[str]:
    """Name the backends whose programs this host has: what a removal without a record looks at."""
    programs = {"iptables": "iptables-legacy-save", "nftables": "nft"}
    return [name for name, tool in programs.items() if shutil.which(tool, path=HOST_PATH)]
