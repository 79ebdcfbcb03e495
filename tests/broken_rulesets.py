"""Faults put into a ruleset, one at a time: which scenario of `sipfw prove` notices each?

    python tests/broken_rulesets.py [--backend NAME] [WORD ...]

Needs root. Writes the table of docs/prove.md, between its two marks. Words choose the faults whose
name has one of them; then nothing is written. Not a part of `make test`: it takes some minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load
from sipfw.policy.scenario import read_scenarios
from sipfw.prove.play import prove
from sipfw.prove.programme import programme_for
from sipfw.prove.trial import with_trial_peer
from sipfw.prove.verdict import FAILED
from sipfw.resources import package_folder
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.prove.programme import Programme
    from sipfw.prove.verdict import Result
    from sipfw.ruleset.model import Chain, Ruleset
    from sipfw.ruleset.rule import Rule

PAGE = Path(__file__).resolve().parent.parent / "docs" / "prove.md"
MARKS = "<!-- faults -->", "<!-- end of faults -->"
Change = Callable[["Ruleset"], "Ruleset"]


class NoticedError(Exception):
    """A scenario went wrong; the rest need not be played."""

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__(result.label)


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of a ruleset, or values of a policy that are as wrong."""

    name: str
    change: Change = lambda ruleset: ruleset
    settings: tuple[str, ...] = ()


def without(*rules: str) -> Change:
    """Leave rules out."""
    return lambda ruleset: _chains(ruleset, lambda rule: None if rule.id in rules else rule)


def only_ipv4(*rules: str) -> Change:
    """Forget a family."""
    return lambda ruleset: _chains(
        ruleset, lambda rule: replace(rule, family=Family.IP) if rule.id in rules else rule
    )


def behind(rule: str, other: str) -> Change:
    """Move a rule behind another one of its chain."""

    def moved(chain: Chain) -> Chain:
        found = {each.id: each for each in chain.rules}
        if rule not in found or other not in found:
            return chain
        rest = [each for each in chain.rules if each.id != rule]
        place = rest.index(found[other]) + 1
        return replace(chain, rules=(*rest[:place], found[rule], *rest[place:]))

    return lambda ruleset: replace(ruleset, chains=tuple(moved(each) for each in ruleset.chains))


def remembers(name: str, seconds: int) -> Change:
    """Let a set forget too early."""
    return lambda ruleset: replace(
        ruleset,
        sets=tuple(
            replace(each, timeout=seconds) if each.name == name else each for each in ruleset.sets
        ),
    )


def trusted(*networks: str) -> Change:
    """Give the set of trusted peers other members."""
    members = tuple(ip_network(text) for text in networks)
    return lambda ruleset: replace(
        ruleset,
        sets=tuple(
            replace(each, networks=members) if each.name == "trusted" else each
            for each in ruleset.sets
        ),
    )


def _chains(ruleset: Ruleset, change: Callable[[Rule], Rule | None]) -> Ruleset:
    return replace(
        ruleset,
        chains=tuple(
            replace(
                chain,
                rules=tuple(new for rule in chain.rules if (new := change(rule)) is not None),
            )
            for chain in ruleset.chains
        ),
    )


# With these a ban is seldom needed: they bound what it would.
UNBOUNDED = ("limits.recent=null", "limits.hashlimit=null")
# As far as a proof goes: all its strangers come from here.
EVERYBODY = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")

FAULTS = (
    Fault("trusted peers are not let through", without("trusted.accept")),
    Fault("trusted peers over IPv4 only", only_ipv4("trusted.accept")),
    Fault("trusted peers behind the search for probes", behind("trusted.accept", "scanner.probe")),
    Fault("the members of the trusted set are lost", trusted("192.0.2.99/32")),
    Fault("everybody is trusted", trusted(*EVERYBODY)),
    Fault("probes of strangers are let in", without("scanner.options-udp", "scanner.not-sip")),
    Fault("datagrams that are no SIP are let in", without("scanner.not-sip")),
    Fault("short datagrams are let in", without("scanner.short")),
    Fault("no search for texts of scanners", without("scanner.texts")),
    Fault("IPv6 is forgotten", only_ipv4("entry.udp")),
    Fault("the switch's answers teach nothing", without("replies.udp")),
    Fault("a login is not remembered", without("learn.add", "learn.registered")),
    Fault("what the switch asks is not noted", without("replies.asks-udp")),
    Fault("the switch's calls are forgotten before an answer", remembers("asked", 1)),
    Fault(
        "failures ban nobody, and no window of a source",
        without("failure.ban", "unanswered.ban", "wrong.shut"),
        UNBOUNDED,
    ),
    Fault("bans are not asked, and no window of a source", without("identity.banned"), UNBOUNDED),
    Fault("neighbours have no common limit", settings=("limits.per_subnet=null",)),
)


def main(words: list[str]) -> int:
    backend = "nftables"
    if words[:1] == ["--backend"]:
        backend, words = words[1], words[2:]
    chosen = [each for each in FAULTS if not words or any(word in each.name for word in words)]
    if not chosen:
        raise SystemExit(f"no fault is called so: {' '.join(words)}")
    if (found := _noticed(Fault("none"), backend)) is not None:
        sys.stderr.write(f"without a fault: {found.label}: {found.verdict} {found.why}\n")
        return 2
    rows = []
    for fault in chosen:
        started = time.monotonic()
        found = _noticed(fault, backend)
        said = "**nobody**" if found is None else f"`{found.label}`: {_told(found)}"
        sys.stderr.write(f"{fault.name:50} {time.monotonic() - started:4.0f} s  {said}\n")
        rows.append((fault.name, said, found is not None))
    if not words:
        _write(rows)
    return 0 if all(noticed for _, _, noticed in rows) else 1


def _noticed(fault: Fault, backend: str) -> Result | None:
    try:
        prove(programme(fault, backend), _raise_if_wrong)
    except NoticedError as noticed:
        return noticed.result
    return None


def _raise_if_wrong(result: Result) -> None:
    if result.verdict in FAILED:
        raise NoticedError(result)


def programme(fault: Fault, backend: str) -> Programme:
    """Return the programme of the shipped scenarios with a fault in its ruleset."""
    loaded, _ = with_trial_peer(load(Request(profile="default", settings=fault.settings)))
    path = package_folder() / "data" / "scenarios.yaml"
    scenarios = read_scenarios(path.read_bytes(), path.name)
    ruleset = compile_policy(loaded)
    # The addresses are those of the whole ruleset, whatever the fault takes out of a set.
    whole = programme_for(loaded.policy, ruleset, {}, scenarios)
    return replace(whole, ruleset=fault.change(ruleset), backend=backend)


def _told(result: Result) -> str:
    return result.why or f"{result.got} of {result.tried} come in, {result.at_most} may"


def _write(rows: list[tuple[str, str, bool]]) -> None:
    lines = ["| The fault | Noticed by |", "| --- | --- |"]
    lines += [f"| {name} | {said} |" for name, said, _ in rows]
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text("\n".join([before + MARKS[0], "", *lines, "", MARKS[1]]) + after)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
