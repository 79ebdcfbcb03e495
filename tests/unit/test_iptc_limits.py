from __future__ import annotations

import pytest

from sipfw.kernel.xtables.libiptc.limits import (
    network,
    pattern_bytes,
    referenced_sets,
    table_faults,
)
from sipfw.lower.xtables import Family, XChain, XJump, XMatch, XParam, XRule, XTable, XTarget


def table(rule: XRule, *, family: Family = Family.IP, chain: str = "SIP") -> XTable:
    return XTable("raw", family, (XChain(chain, (rule,)),), ())


def match(extension: str, option: str, *values: str) -> XRule:
    return XRule("sipfw:a#1", matches=(XMatch(extension, (XParam(option, values),)),))


def target(extension: str, option: str, *values: str) -> XRule:
    return XRule("sipfw:a#1", target=XTarget(extension, (XParam(option, values),)))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (match("udp", "dport", "70000"), "0 to 65535"),
        (match("udp", "dport", "5069:5060"), "low:high"),
        (match("udp", "dport", "1:2:3"), "low:high"),
        (match("udp", "dport", "+5"), "low:high"),
        (match("multiport", "dports", ",".join(["1:2"] * 8)), "at most 15 slots"),
        (match("string", "string", "x" * 129), "128 bytes"),
        (match("string", "string", ""), "1 to 128"),
        (match("string", "hex-string", f"|{'61' * 128}|"), "127 bytes"),
        (match("string", "hex-string", "|6|"), "pairs of hex digits"),
        (match("string", "hex-string", "a\\b"), "backslash"),
        (match("string", "algo", "fast"), "bm kmp"),
        (match("recent", "name", "x" * 200), "199 bytes"),
        (match("hashlimit", "hashlimit-name", "a/b"), "must not contain"),
        (match("hashlimit", "hashlimit-above", "0/sec"), "rate"),
        (match("hashlimit", "hashlimit-srcmask", "33"), "0 to 32"),
        (match("hashlimit", "hashlimit-mode", "srcip,src"), "'src' is not one of"),
        (match("set", "match-set", "x" * 32, "src"), "31 bytes"),
        (match("set", "match-set"), "needs a value"),
        (match("comment", "comment", "!"), "not a possible value"),
        (match("comment", "comment", "a\nb"), "not a possible value"),
        (target("LOG", "log-prefix", "x" * 30), "29 bytes"),
        (target("NFLOG", "nflog-prefix", "x" * 64), "63 bytes"),
        (target("NFLOG", "nflog-group", "65536"), "0 to 65535"),
        (target("MARK", "set-xmark", "0x1/0x1ffffffff"), "32 bits"),
        (target("SET", "timeout", "3000000"), "0 to 2147483"),
        (target("DROP", "x", "y"), "takes no options"),
        (XRule("sipfw:a#1", target=XTarget("NOTRACK")), "CT with notrack"),
        (XRule("sipfw:a#1", target=XTarget("ELSEWHERE", goto=True)), "goto needs a chain"),
        (XRule("a#1"), "comment must be"),
        (XRule("sipfw:" + "x" * 250), "comment must be"),
        (XRule("sipfw:a#1", protocol="dccp"), "protocol"),
        (XRule("sipfw:a#1", source="2001:db8::1"), "not an address of family ip"),
        (XRule("sipfw:a#1", destination="192.0.2.256"), "destination"),
        (XRule("sipfw:a#1", in_interface="a234567890123456"), "15 characters"),
    ],
)
def test_fault_is_found_and_placed(rule: XRule, says: str) -> None:
    faults = table_faults(table(rule))
    assert len(faults) == 1
    assert says in faults[0]
    assert faults[0].startswith(f"ip raw SIP: rule {rule.comment!r}")


@pytest.mark.parametrize(
    "chain", ["x" * 29, "with blank", "-x", "DROP", "PREROUTING", "ACCEPT", ""]
)
def test_bad_chain_names(chain: str) -> None:
    assert "chain name" in table_faults(table(XRule("sipfw:a#1"), chain=chain))[0]


def test_masks_follow_the_family() -> None:
    rule = match("hashlimit", "hashlimit-srcmask", "64")
    assert table_faults(table(rule, family=Family.IP6)) == []


def test_table_and_hook_must_fit() -> None:
    jump = XJump("INPUT", XRule("sipfw:j#1", target=XTarget("SIP")))
    assert table_faults(XTable("raw", Family.IP, (), (jump,))) == [
        "ip raw: no built-in chain INPUT"
    ]
    assert "only raw, mangle and filter" in table_faults(XTable("nat", Family.IP, (), ()))[0]


def test_chain_without_rules_would_not_be_ours() -> None:
    empty = XTable("raw", Family.IP, (XChain("SIP", ()),), ())
    assert "cannot carry our mark" in table_faults(empty)[0]


def test_network_is_normalised() -> None:
    assert network("203.0.113.9/24", Family.IP) == (False, "203.0.113.0/24")
    assert network("! 2001:db8::1", Family.IP6) == (True, "2001:db8::1/128")


def test_hex_patterns() -> None:
    assert pattern_bytes("hex-string", "a|62 63|d|0D|") == b"abcd\r"
    assert pattern_bytes("string", "|61|") == b"|61|"


def test_sets_of_matches_targets_and_jumps() -> None:
    rules = (match("set", "match-set", "a", "src"), target("SET", "add-set", "b", "src"))
    jump = XJump("OUTPUT", match("set", "match-set", "c", "dst"))
    found = referenced_sets(XTable("raw", Family.IP, (XChain("SIP", rules),), (jump,)))
    assert found == {"a", "b", "c"}
