"""The way back of one table: our chains and jumps as they were, all else as it is now."""

from __future__ import annotations

import pytest

from sipfw.kernel.xtables.edit import Adoption, undo
from sipfw.kernel.xtables.save_text import SavedTable, parse_save
from sipfw.lower.xtables import Family

KEY = (Family.IP, "filter")
NOBODY = Adoption()
OUR_JUMP = '-A INPUT -p udp -m comment --comment "sipfw:jump#1" -j SIP'
NEW_JUMP = '-A INPUT -p udp -m comment --comment "sipfw:jump#2" -j SIP'
OUR_RULE = '-A SIP -m comment --comment "sipfw:end#1" -j DROP'
NEW_RULE = '-A SIP -m comment --comment "sipfw:end#2" -j DROP'


def rule(number: int, chain: str = "INPUT") -> str:
    return f"-A {chain} -s 192.0.2.{number}/32 -j DROP"


def table(*rules: str, chains: tuple[str, ...] = ("SIP",)) -> SavedTable:
    heads = [":INPUT ACCEPT [7:70]", *(f":{chain} - [0:0]" for chain in chains)]
    counted = [line if line.startswith("[") else f"[0:0] {line}" for line in rules]
    return parse_save("\n".join(["*filter", *heads, *counted, "COMMIT", ""]))[0]


def loaded(now: SavedTable, lines: list[str]) -> dict[str, list[str]]:
    """Do to a table what iptables-restore --noflush does, as far as the edits need it."""
    chains = {chain.name: [r.line for r in chain.rules] for chain in now.chains}
    for line in lines:
        words = line.partition("] ")[2].split() if line.startswith("[") else line.split()
        if line.startswith(":"):
            if words[1] == "-":
                chains[words[0][1:]] = []
        elif words[0] == "-F":
            chains[words[1]] = []
        elif words[0] == "-X":
            assert not chains.pop(words[1])
        elif words[0] == "-D":
            chains[words[1]].remove(" ".join(["-A", *words[1:]]))
        elif words[0] == "-I":
            at = int(words[2]) - 1
            assert at <= len(chains[words[1]])
            chains[words[1]].insert(at, " ".join(["-A", words[1], *words[3:]]))
        else:
            chains[words[1]].append(" ".join(words))
    return chains


A, B, C, NEW = rule(1), rule(2), rule(3), rule(9)


@pytest.mark.parametrize(
    ("before", "now", "after"),
    [
        # Nobody wrote but we.
        ([A, OUR_JUMP, B], [A, NEW_JUMP, B], [A, OUR_JUMP, B]),
        ([A, OUR_JUMP, B], [A, B], [A, OUR_JUMP, B]),
        ([A, B], [NEW_JUMP, A, B], [A, B]),
        # We moved it.
        ([A, OUR_JUMP, B], [OUR_JUMP, A, B], [A, OUR_JUMP, B]),
        # Somebody put rules in; those before our jump stay before it.
        ([OUR_JUMP, A], [NEW, NEW_JUMP, A], [NEW, OUR_JUMP, A]),
        ([OUR_JUMP, A], [NEW_JUMP, NEW, A, NEW], [OUR_JUMP, NEW, A, NEW]),
        ([A, OUR_JUMP], [A, NEW_JUMP, NEW], [A, OUR_JUMP, NEW]),
        ([OUR_JUMP, A], [NEW, A], [NEW, OUR_JUMP, A]),
        # Somebody took rules out.
        ([A, B, OUR_JUMP, C], [B, NEW_JUMP, C], [B, OUR_JUMP, C]),
        ([A, B, OUR_JUMP, C], [C], [OUR_JUMP, C]),
        ([A, B, OUR_JUMP, C], [A], [A, OUR_JUMP]),
        ([A, B, OUR_JUMP, C], [], [OUR_JUMP]),
        ([A, OUR_JUMP], [NEW], [OUR_JUMP, NEW]),
        # Equal rules of others.
        ([A, OUR_JUMP, A], [A, A, NEW_JUMP], [A, OUR_JUMP, A]),
    ],
)
def test_our_jump_stands_between_its_old_neighbours(
    before: list[str], now: list[str], after: list[str]
) -> None:
    old, new = table(*before, OUR_RULE), table(*now, OUR_RULE)
    assert loaded(new, undo(KEY, old, new, NOBODY).lines)["INPUT"] == after


@pytest.mark.parametrize(
    "now", [[NEW, A, OUR_JUMP, B], [A, NEW, OUR_JUMP, B], [A, OUR_JUMP, NEW], [OUR_JUMP, NEW]]
)
def test_a_jump_that_stands_right_is_not_touched(now: list[str]) -> None:
    old = table(A, OUR_JUMP, B, OUR_RULE)
    assert not undo(KEY, old, table(*now, OUR_RULE), NOBODY, legacy=True).lines


def test_our_chain_gets_its_counters_back_and_built_in_ones_keep_theirs() -> None:
    old, new = table(f"[5:50] {OUR_RULE}", A), table(NEW_RULE, A, NEW)
    lines = undo(KEY, old, new, NOBODY, legacy=True).lines
    assert lines == [":SIP - [0:0]", ":INPUT ACCEPT [7:70]", f"[5:50] {OUR_RULE}"]
    assert undo(KEY, old, new, NOBODY).lines == [":SIP - [0:0]", f"[5:50] {OUR_RULE}"]


def test_a_rule_of_others_in_our_chain_is_put_back_where_its_listing_is_exact() -> None:
    theirs = rule(1, "SIP")
    old, new = table(theirs, OUR_RULE), table(NEW_RULE)
    exact = undo(KEY, old, new, NOBODY, legacy=True)
    assert loaded(new, exact.lines)["SIP"] == [theirs, OUR_RULE]
    assert not exact.notes
    other = undo(KEY, old, new, NOBODY)
    assert loaded(new, other.lines)["SIP"] == [OUR_RULE]
    assert other.notes == [f"not put back, since it is not sipfw's: {theirs}"]


@pytest.mark.parametrize("legacy", [True, False])
def test_what_others_hung_on_our_new_chain_stays(legacy: bool) -> None:
    """A rule of theirs in it, or one that leads to it."""
    old = table(A, chains=())
    inside = table(A, NEW_JUMP, NEW_RULE, rule(9, "SIP"))
    edit = undo(KEY, old, inside, NOBODY, legacy=legacy)
    assert loaded(inside, edit.lines) == {"INPUT": [A], "SIP": [rule(9, "SIP")]}
    assert edit.notes == ["ip filter: chain SIP kept, it holds 1 foreign rules"]
    leading = table(A, NEW_JUMP, "-A INPUT -p tcp -j SIP", NEW_RULE)
    edit = undo(KEY, old, leading, NOBODY, legacy=legacy)
    assert loaded(leading, edit.lines) == {"INPUT": [A, "-A INPUT -p tcp -j SIP"], "SIP": []}
    assert edit.notes == [
        "ip filter: chain SIP kept empty, foreign rules in INPUT jump to it",
    ]


def test_our_new_chains_go_even_if_they_lead_to_each_other() -> None:
    step = '-A SIP -m comment --comment "sipfw:step#1" -j SIP_END'
    end = '-A SIP_END -m comment --comment "sipfw:end#1" -j DROP'
    new = table(A, NEW_JUMP, step, end, chains=("SIP", "SIP_END"))
    edit = undo(KEY, table(A, chains=()), new, NOBODY, legacy=True)
    assert loaded(new, edit.lines) == {"INPUT": [A]}
    assert not edit.notes


def test_a_chain_that_was_taken_over_comes_back_with_the_jumps_to_it() -> None:
    theirs, jump = rule(1, "SIP"), "-A INPUT -p udp -j SIP"
    old = table(A, jump, B, f"[4:40] {theirs}")
    new = table(NEW_JUMP, A, NEW, B, NEW_RULE)
    edit = undo(KEY, old, new, Adoption(frozenset({"SIP"})), legacy=True)
    assert loaded(new, edit.lines) == {"INPUT": [A, jump, NEW, B], "SIP": [theirs]}
    assert f"[4:40] {theirs}" in edit.lines
