"""The live nftables backend: one plan into `table inet sipfw`, all of it or nothing.

Order: check, new text chains (which nothing leads to yet), their searches, then one transaction
that brings in everything else and takes the old text chains out. So there is no moment at which
the firewall is up without its searches. Knows nothing of policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.compare.compare import not_as_wanted
from sipfw.errors import ApplyError, BackendError
from sipfw.host.runner import Runner, SubprocessRunner
from sipfw.kernel.lacking import modules_error
from sipfw.kernel.netlink.rules import TextRule, fill_chains, text_match_available
from sipfw.kernel.nft.existing import comment, existing, same_texts, text_counters
from sipfw.kernel.nft.parts import missing_statements
from sipfw.kernel.nft.removal import bound_chains, others_of, removal_text
from sipfw.kernel.nft.tool import NftListing, NftTool, live_from_json
from sipfw.kernel.nft.way_back import TableSnapshot, go_back, remember
from sipfw.kernel.snapshot import HostSnapshot, look_anew
from sipfw.kernel.strangers import Strangers, strangers_in_nft
from sipfw.lower.nftables_plan import TABLE
from sipfw.render.nft import Existing, transaction_text
from sipfw.ruleset.rule import Goto

if TYPE_CHECKING:
    from collections.abc import Collection

    from sipfw.lower.nftables_plan import NftPlan, NftTextChain

OLDEST = (1, 0, 6)


@dataclass(frozen=True, slots=True)
class NftResult:
    """What an apply did; `notes` are for the operator."""

    rules: int
    sets: int
    notes: tuple[str, ...]


class NftablesBackend:
    """Applies, removes and lists `table inet sipfw`."""

    def __init__(self, runner: Runner | None = None) -> None:
        self._runner = runner or SubprocessRunner()
        self._tool = NftTool(self._runner)

    def text_searches(self) -> str | None:
        """Return why this kernel cannot search texts in nftables, None where it can."""
        found = text_match_available(self._runner)
        return None if found.ok else found.reason

    def require(self) -> None:
        """Raise BackendError where nft is missing or too old."""
        version = self._tool.version()
        if version < OLDEST:
            shown, wanted = (".".join(map(str, item)) for item in (version, OLDEST))
            raise BackendError(f"nft {shown} is too old", hint=f"{wanted} or newer is needed")

    def check(self, plan: NftPlan, leave: Collection[str] = ()) -> None:
        """Have nft and the kernel judge the whole transaction; change nothing."""
        self._refuse(plan, leave)
        text = transaction_text(plan, self._existing(plan, leave))
        try:
            self._tool.check(text)
        except BackendError as error:
            raise self._told(error, text) from error

    def _refuse(self, plan: NftPlan, leave: Collection[str]) -> None:
        self.require()
        names = [item.name for items in (plan.sets, plan.chains, plan.texts) for item in items]
        if taken := sorted({*names} & {*leave}):
            raise BackendError(
                f"not made by sipfw: {', '.join(taken)} in table inet {TABLE}",
                hint="move it to a table of its own; `sipfw apply --adopt` takes it over",
            )

    def _told(self, error: BackendError, text: str) -> BackendError:
        """Name the modules that the kernel lacks, where that is what was refused."""
        missing = missing_statements(self._runner, text)
        return modules_error(missing, "sipfw apply --backend iptables") if missing else error

    def apply(self, plan: NftPlan, leave: Collection[str] = ()) -> NftResult:
        """Make the plan live; on failure the old table is in force and a BackendError says why.

        Chains and sets in `leave` are somebody else's and stay as they are, but for chains whose
        rules keep the kernel from deleting what of ours has to go.
        """
        # Counters and elements are taken over as they are now.
        look_anew(self._runner)
        before = remember(self._tool)
        live = before.live
        fresh = [chain for chain in plan.texts if not same_texts(chain, live)]
        if fresh:
            self.check(plan, leave)
        else:
            # One transaction is left, which the kernel takes whole or not at all.
            self._refuse(plan, leave)
        try:
            self._load_texts(fresh, live)
            self._load(transaction_text(plan, self._existing(plan, leave)))
        except BackendError as error:
            self._undo_texts(fresh, live)
            raise BackendError(error.message, hint=error.hint, restored=True) from error
        try:
            self._read_back(plan)
        except BackendError as error:
            raise self._gone_back(before, plan, error) from error
        rules = sum(len(chain.rules) for chain in plan.chains)
        rules += sum(len(chain.rules) for chain in plan.texts)
        return NftResult(rules, len(plan.sets), ())

    def remove(self, leave: Collection[str] = ()) -> tuple[str, ...]:
        """Delete our table; fine when there is none.

        Where it holds the chains and sets in `leave`, or something else that is not ours, that and
        the table stay. Returns notes.
        """
        objects = self._tool.list_table(elements=False) or []
        more = others_of(objects, leave)
        if not more and not leave:
            self._tool.apply(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
            return ()
        self._tool.apply(removal_text(objects, leave))
        holds = f", it holds {', '.join(more)}, not made by sipfw" if more else ""
        return (f"table inet {TABLE} kept{holds}",)

    def strangers(self, known: Collection[tuple[str, str]]) -> Strangers:
        """Return what in our table is not ours; `known` are names and types of our sets."""
        return strangers_in_nft(self._rules(), known)

    def listing(self, static_sets: frozenset[str] | None = None) -> NftListing | None:
        """Return what is live, None when we have no table."""
        live = self._listing(static_sets)
        return None if live is None else replace(live, dormant=self._tool.is_dormant())

    def _load(self, text: str) -> None:
        try:
            self._tool.apply(text)
        except BackendError as error:
            raise self._told(error, text) from error

    def _load_texts(self, fresh: list[NftTextChain], live: NftListing | None) -> None:
        """Make and fill the text chains that the live table does not hold yet."""
        if not fresh:
            return
        # Their verdicts lead to chains that must exist; an empty one changes nothing.
        targets = {
            rule.verdict.chain
            for chain in fresh
            for rule in chain.rules
            if isinstance(rule.verdict, Goto)
        }
        names = [*sorted(targets), *(chain.name for chain in fresh)]
        lines = [f"add table inet {TABLE}", *(f"add chain inet {TABLE} {name}" for name in names)]
        self._tool.apply("\n".join(lines) + "\n")
        fill_chains({chain.name: _searches(chain, live) for chain in fresh})

    def _undo_texts(self, fresh: list[NftTextChain], live: NftListing | None) -> None:
        """Take out what was prepared; nothing leads to it yet."""
        if live is None:
            self.remove()
            return
        now = self._rules()
        known = set() if now is None else set(now.chains)
        added = [name for name in known if name not in live.chains]
        lines = [f"flush chain inet {TABLE} {name}" for name in added]
        lines += [f"delete chain inet {TABLE} {name}" for name in added]
        if lines and fresh:
            self._tool.apply("\n".join(lines) + "\n")

    def _listing(self, static_sets: frozenset[str] | None = None) -> NftListing | None:
        objects = self._tool.list_table()
        return None if objects is None else live_from_json(objects, static_sets)

    def _rules(self) -> NftListing | None:
        """Return what is live without the elements of sets."""
        objects = self._tool.list_table(elements=False)
        return None if objects is None else live_from_json(objects)

    def _existing(self, plan: NftPlan, leave: Collection[str] = ()) -> Existing:
        objects = self._tool.list_table(elements=False)
        text = self._tool.list_text(elements=False)
        if objects is None or text is None:
            return Existing()
        found = existing(plan, objects, text, self._tool.list_elements, leave)
        bound = bound_chains(objects, leave, found)
        if not bound:
            return found
        return existing(plan, objects, text, self._tool.list_elements, {*leave} - bound)

    def _read_back(self, plan: NftPlan) -> None:
        if isinstance(self._runner, HostSnapshot):
            # The record is made of a whole listing next; the same one tells what was loaded.
            self._tool.list_table()
        changed = self._changed_chains(plan)
        if changed:
            # One transaction loads all or nothing, so only another writer can cause this.
            raise BackendError(
                f"read back: not what was loaded, somebody else changed {', '.join(changed)}"
            )

    def _changed_chains(self, plan: NftPlan) -> list[str]:
        """Name what does not hold the plan's rules in their order; texts are compared likewise."""
        live = self._rules()
        if live is None:
            return [f"table inet {TABLE}, which is gone"]
        wanted = {chain.name: [rule.comment for rule in chain.rules] for chain in plan.chains}
        found = {name: [comment(rule) for rule in item.rules] for name, item in live.chains.items()}
        changed = not_as_wanted(wanted, found)
        changed += [chain.name for chain in plan.texts if not same_texts(chain, live)]
        return [f"chain {name}" for name in changed]

    def _gone_back(self, before: TableSnapshot, plan: NftPlan, error: BackendError) -> ApplyError:
        """Put the table from before in force and return the error that says so, or what is."""
        restored = (
            "the table from before is in force again"
            if before.live
            else "there is no table of sipfw, as before"
        )
        try:
            go_back(self._tool, before)
        except BackendError as trouble:
            return ApplyError(
                f"{error.message}; going back failed: {trouble.message}; {self._in_force(plan)}",
                hint="see sipfw verify, then apply again or sipfw remove",
            )
        return ApplyError(f"{error.message}; {restored}", restored=True)

    def _in_force(self, plan: NftPlan) -> str:
        """Say what the kernel holds after a way back that failed."""
        try:
            live = self._rules()
            changed = self._changed_chains(plan)
        except BackendError as error:
            return f"what is in force cannot be read: {error.message}"
        if live is None:
            return "no table of sipfw is in force: SIP is unguarded"
        if not changed:
            return "the new table is in force"
        return f"in force is the new table but for {', '.join(changed)}"


def _searches(chain: NftTextChain, live: NftListing | None) -> list[TextRule]:
    counted = zip(chain.rules, text_counters(chain, live), strict=True)
    return [
        TextRule(rule.comment, rule.pattern, rule.offset, rule.verdict, *counters)
        for rule, counters in counted
    ]
