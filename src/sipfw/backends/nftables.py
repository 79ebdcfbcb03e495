"""The live nftables backend: one plan into `table inet sipfw`, all of it or nothing.

Order: check, new text chains (which nothing leads to yet), their searches, then one transaction
that brings in everything else and takes the old text chains out. So there is no moment at which
the firewall is up without its searches. Knows nothing of policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.backends.nft_text_rules import TextRule, fill_chains, text_match_available
from sipfw.backends.nft_tool import NftListing, NftObject, NftTool, live_from_json
from sipfw.backends.runner import Runner, SubprocessRunner
from sipfw.errors import ApplyError, BackendError
from sipfw.lower.nftables import TABLE, NftPlan, NftSet, NftTextChain, NftTextRule
from sipfw.render.nft import Existing, transaction_text
from sipfw.ruleset.rule import Goto

if TYPE_CHECKING:
    from sipfw.backends.interface import LiveRule, LiveSetState

OLDEST = (1, 0, 6)

# One transaction loads all or nothing, so only another writer can cause this.
_IN_FORCE = "the new table is in force and something changed it; see sipfw verify"


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

    def check(self, plan: NftPlan) -> None:
        """Have nft and the kernel judge the whole transaction; change nothing."""
        self.require()
        self._tool.check(transaction_text(plan, self._existing(plan)))

    def apply(self, plan: NftPlan) -> NftResult:
        """Make the plan live; on failure the old table is in force and a BackendError says why."""
        self.check(plan)
        live = self.listing()
        fresh = [chain for chain in plan.texts if not _same_texts(chain, live)]
        try:
            self._load_texts(fresh, live)
            self._tool.apply(transaction_text(plan, self._existing(plan)))
        except BackendError as error:
            self._undo_texts(fresh, live)
            raise BackendError(error.message, hint=error.hint, restored=True) from error
        self._read_back(plan)
        rules = sum(len(chain.rules) for chain in plan.chains)
        rules += sum(len(chain.rules) for chain in plan.texts)
        return NftResult(rules, len(plan.sets), ())

    def remove(self) -> None:
        """Delete our table; fine when there is none."""
        self._tool.apply(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")

    def listing(self, static_sets: frozenset[str] | None = None) -> NftListing | None:
        """Return what is live, None when we have no table."""
        objects = self._tool.list_table()
        return None if objects is None else live_from_json(objects, static_sets)

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
        counts = _text_counts(live)
        fill_chains(
            {
                chain.name: [_text_rule(chain, rule, counts) for rule in chain.rules]
                for chain in fresh
            }
        )

    def _undo_texts(self, fresh: list[NftTextChain], live: NftListing | None) -> None:
        """Take out what was prepared; nothing leads to it yet."""
        if live is None:
            self.remove()
            return
        now = self.listing()
        known = set() if now is None else set(now.chains)
        added = [name for name in known if name not in live.chains]
        lines = [f"flush chain inet {TABLE} {name}" for name in added]
        lines += [f"delete chain inet {TABLE} {name}" for name in added]
        if lines and fresh:
            self._tool.apply("\n".join(lines) + "\n")

    def _existing(self, plan: NftPlan) -> Existing:
        objects = self._tool.list_table()
        if objects is None:
            return Existing()
        live = live_from_json(objects)
        texts = {chain.name for chain in plan.texts}
        wanted = {chain.name for chain in plan.chains} | texts
        sets = {item.name: item for item in plan.sets}
        kept = {
            name
            for name, state in live.sets.items()
            if name in sets and _same_definition(sets[name], state)
        }
        return Existing(
            # A text chain is never flushed by text: nft could not fill it again.
            chains=tuple(name for name in live.chains if name not in texts),
            obsolete_chains=tuple(name for name in live.chains if name not in wanted),
            kept_sets=frozenset(kept),
            replaced_sets=tuple(name for name in live.sets if name not in kept),
            carried=_carried(objects, [sets[n] for n in live.sets if n in sets and n not in kept]),
            counters=_counters(live),
        )

    def _read_back(self, plan: NftPlan) -> None:
        live = self.listing()
        for chain in plan.chains:
            found = None if live is None else live.chains.get(chain.name)
            comments = [] if found is None else [_comment(rule) for rule in found.rules]
            if comments != [rule.comment for rule in chain.rules]:
                raise ApplyError(
                    f"read back: chain {chain.name} does not hold what was loaded", hint=_IN_FORCE
                )
        for text in plan.texts:
            if not _same_texts(text, live):
                raise ApplyError(
                    f"read back: chain {text.name} does not hold its searches", hint=_IN_FORCE
                )


def _same_texts(chain: NftTextChain, live: NftListing | None) -> bool:
    found = None if live is None else live.chains.get(chain.name)
    if found is None:
        return False
    return [_comment(rule) for rule in found.rules] == [rule.comment for rule in chain.rules]


def _text_rule(
    chain: NftTextChain, rule: NftTextRule, counts: dict[tuple[str, str], tuple[int, int]]
) -> TextRule:
    key = (_stem(chain.name), rule.comment.partition("#")[0])
    packets, octets = counts.get(key, (0, 0))
    return TextRule(rule.comment, rule.pattern, rule.offset, rule.verdict, packets, octets)


def _stem(name: str) -> str:
    """Name a text chain without the digest of its content."""
    return name.partition("_text_")[0]


def _text_counts(live: NftListing | None) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the counters of the live searches, which outlive a change of the list."""
    if live is None:
        return {}
    return {
        (_stem(name), comment): counts
        for (name, comment), counts in _counters(live).items()
        if "_text_" in name
    }


def _carried(objects: list[NftObject], sets: list[NftSet]) -> dict[str, tuple[str, ...]]:
    """Return the elements of dynamic sets that must be made anew, with their remaining time."""
    wanted = {item.name: item for item in sets if "timeout" in item.flags}
    found: dict[str, tuple[str, ...]] = {}
    for item in (o["set"] for o in objects if "set" in o):
        target = wanted.get(item["name"])
        if target is None or target.timeout is None:
            continue
        elements = [each["elem"] for each in item.get("elem", ()) if "elem" in each]
        found[target.name] = tuple(
            f"{each['val']} expires {min(int(each['expires']), target.timeout)}s"
            for each in elements[: target.size]
            if each.get("expires")
        )
    return found


def _comment(rule: LiveRule) -> str:
    return f"sipfw:{rule.rule_id}#{rule.digest}"


def _same_definition(wanted: NftSet, state: LiveSetState) -> bool:
    """Tell whether the elements may stay: nft ignores a new timeout on an existing set."""
    header = dict(zip(state.header[::2], state.header[1::2], strict=False))
    timeout = None if wanted.timeout is None else str(wanted.timeout)
    size = None if wanted.size is None else str(wanted.size)
    return (state.type, header.get("timeout"), header.get("size")) == (wanted.type, timeout, size)


def _counters(live: NftListing) -> dict[tuple[str, str], tuple[int, int]]:
    return {
        (chain.name, f"sipfw:{rule.rule_id}"): (rule.packets, rule.bytes)
        for chain in live.chains.values()
        for rule in chain.rules
        if rule.rule_id is not None
    }
