"""What becomes of chains that are not wanted any more, and of jumps that shall go first."""

from __future__ import annotations

from sipfw.kernel.xtables.edit import Adoption, change
from sipfw.kernel.xtables.save_text import SavedTable, parse_save
from sipfw.kernel.xtables.standing import foreign_chains, leaving
from sipfw.lower.xtables import Family, XChain, XJump, XRule, XTable, XTarget

OURS = '-m comment --comment "sipfw:end#1" -j DROP'
JUMP = '-A INPUT -m comment --comment "sipfw:jump#1" -j SIP'
THEIRS = "-A INPUT -s 192.0.2.1/32 -j DROP"


def table(*rules: str) -> SavedTable:
    names = dict.fromkeys(rule.split()[1] for rule in rules)
    heads = [f":{name} {'ACCEPT' if name == 'INPUT' else '-'} [0:0]" for name in names]
    return parse_save("\n".join(["*filter", *heads, *rules, "COMMIT", ""]))[0]


def fates(live: SavedTable, gone: str, **known: list[str]) -> dict[str, list[str]]:
    """Return the notes on each chain in `gone`; none on one that goes."""
    chains = [chain for chain in live.chains if chain.name in gone.split()]
    taken, rewritten = known.get("taken", []), known.get("rewritten", [])
    found = leaving(live.chains, chains, taken, rewritten)
    assert all(each.goes is not bool(each.notes("")) for each in found)
    return {each.chain.name: each.notes("ip filter") for each in found}


def test_a_rule_in_it_or_a_jump_to_it_keeps_a_chain() -> None:
    live = table(f"-A A {OURS}", f"-A B {OURS}", "-A B -j ACCEPT", "-A INPUT -j C", f"-A C {OURS}")
    assert fates(live, "A B C") == {
        "A": [],
        "B": ["ip filter: chain B kept, it holds 1 foreign rules"],
        "C": ["ip filter: chain C kept empty, foreign rules in INPUT jump to it"],
    }


def test_what_is_emptied_with_it_keeps_no_chain() -> None:
    live = table(f"-A A {OURS}", f"-A SIP {OURS}", "-A SIP -j A", "-A PASTED -j A")
    note = "ip filter: chain A kept empty, foreign rules in SIP, PASTED jump to it"
    assert fates(live, "A") == {"A": [note]}
    assert fates(live, "A PASTED", taken=["PASTED"], rewritten=["SIP"]) == {"A": [], "PASTED": []}


def test_a_jump_that_is_cut_keeps_no_chain() -> None:
    live = table(f"-A A {OURS}", "-A A -j PASTED", "-A PASTED -j ACCEPT")
    assert fates(live, "A")["A"] == ["ip filter: chain A kept, it holds 1 foreign rules"]
    assert fates(live, "A PASTED", taken=["PASTED"]) == {"A": [], "PASTED": []}


def wanted() -> XTable:
    end = XRule("sipfw:end#1", target=XTarget("DROP"))
    jump = XJump("INPUT", XRule("sipfw:jump#1", target=XTarget("SIP")))
    return XTable("filter", Family.IP, (XChain("SIP", (end,)),), (jump,))


def test_a_chain_of_a_wanted_name_is_foreign_if_it_is_used() -> None:
    assert foreign_chains(wanted(), table("-A SIP -j ACCEPT").chains) == ["SIP"]
    assert foreign_chains(wanted(), table(f"-A SIP {OURS}", "-A SIP -j ACCEPT").chains) == []
    empty = parse_save("*filter\n:INPUT ACCEPT [0:0]\n:SIP - [0:0]\nCOMMIT\n")[0]
    assert foreign_chains(wanted(), empty.chains) == []
    called = parse_save("*filter\n:INPUT ACCEPT [0:0]\n:SIP - [0:0]\n-A INPUT -j SIP\nCOMMIT\n")
    assert foreign_chains(wanted(), called[0].chains) == ["SIP"]


def test_the_jump_moves_to_the_head_when_it_shall() -> None:
    live = table(THEIRS, JUMP, f"-A SIP {OURS}")
    stays = change(wanted(), live, live, Adoption())
    assert stays.lines == []
    moved = change(wanted(), live, live, Adoption(), reposition=True)
    assert moved.lines == [
        JUMP.replace("-A", "-D", 1),
        JUMP.replace("-A INPUT", "-I INPUT 1", 1),
    ]
