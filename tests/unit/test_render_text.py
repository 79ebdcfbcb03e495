"""Lowered rules as text: quoting, comments that stay comments, probes, the sysctl file."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import SipfwError
from sipfw.lower.xtables import (
    Family,
    XChain,
    XJump,
    XMatch,
    XParam,
    XPlan,
    XRule,
    XSet,
    XTable,
    XTarget,
)
from sipfw.lower.xtables_words import quoted, rule_arguments
from sipfw.render.comments import one_line
from sipfw.render.restore import ipset_text, restore_text
from sipfw.render.script import probe_lines, script_text
from sipfw.render.sysctl import sysctl_text
from sipfw.render.xtables_text import set_add_lines, set_create_line
from sipfw.ruleset.match import PayloadContains
from sipfw.ruleset.model import (
    AddressSet,
    Base,
    Chain,
    Hook,
    Layer,
    Priority,
    Ruleset,
    SetKind,
    Sysctl,
)
from sipfw.ruleset.rule import Drop, Origin, Rule, UpdateSet

if TYPE_CHECKING:
    from pathlib import Path

PEERS = XSet("sipfw-trusted4", "hash:net", ("family", "inet"), ("192.0.2.0/24",), static=True)
BANNED = XSet("sipfw-banned4", "hash:ip", ("family", "inet", "timeout", "60"), (), static=False)
ACCEPT = XRule(
    comment="sipfw:trusted.accept#00000001",
    protocol="udp",
    matches=(
        XMatch("udp", (XParam("dport", ("5060",)),)),
        XMatch("set", (XParam("match-set", ("sipfw-trusted4", "src")),)),
    ),
    target=XTarget("ACCEPT"),
)
BAN = XRule(
    comment="sipfw:ban.add#00000002",
    target=XTarget("SET", (XParam("add-set", ("sipfw-banned4", "src")), XParam("exist"))),
)
JUMP = XJump("INPUT", XRule(comment="sipfw:hook#00000003", target=XTarget("SIP_TRUSTED")))
TABLE = XTable("filter", Family.IP, (XChain("SIP_TRUSTED", (ACCEPT, BAN)),), (JUMP,))
PLAN = XPlan((PEERS, BANNED), (TABLE,))
SETTING = Sysctl("net.netfilter.nf_conntrack_max", 65536, Origin("conntrack.max", None, None))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sip:100@192.0.2.1", "sip:100@192.0.2.1"),
        ("INVITE ", '"INVITE "'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("", '""'),
        ("sipfw:a#1", '"sipfw:a#1"'),
        ("|0d0a|", '"|0d0a|"'),
    ],
)
def test_values_are_quoted_as_iptables_restore_reads_them(value: str, expected: str) -> None:
    assert quoted(value) == expected


def test_a_rule_names_its_parts_in_the_order_of_iptables() -> None:
    rule = replace(
        ACCEPT,
        source="203.0.113.0/24",
        in_interface="eth0",
        matches=(*ACCEPT.matches, XMatch("set", (XParam("update-counters", negate=True),))),
        target=XTarget("SIP_TRUSTED", goto=True),
    )
    assert rule_arguments(rule) == (
        "-s 203.0.113.0/24 -i eth0 -p udp -m udp --dport 5060"
        " -m set --match-set sipfw-trusted4 src -m set ! --update-counters"
        ' -m comment --comment "sipfw:trusted.accept#00000001" -g SIP_TRUSTED'
    )


def test_sets_can_be_built_under_another_name() -> None:
    assert set_create_line(PEERS, "sipfw-trusted4-n") == (
        "create sipfw-trusted4-n hash:net family inet"
    )
    assert set_add_lines(PEERS, "sipfw-trusted4-n") == ["add sipfw-trusted4-n 192.0.2.0/24"]


def test_restore_text_declares_chains_before_rules_and_jumps_last() -> None:
    lines = restore_text(PLAN, Family.IP).splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        "*filter", ":SIP_TRUSTED", "-A", "-A", "-I", "COMMIT",
    ]  # fmt: skip
    assert "COMMIT" not in restore_text(PLAN, Family.IP6)
    assert ipset_text(PLAN).splitlines()[1:2] == ["add sipfw-trusted4 192.0.2.0/24"]


HOSTILE = [
    "a\nrm -rf /",
    "a\r\nb",
    "a\u2028b",
    "a\x00b",
    "a\x1b[2Jb",
    "a\nRULES\n}\nreboot",
    "a\n-A SIP_TRUSTED -j ACCEPT",
    "a\nIPSET\nreboot",
    "a\n" + "x" * 20_000 + "\n-I INPUT -j ACCEPT",
]


def explained(text: str) -> Ruleset:
    """Return a ruleset for PLAN in which every text that a user may choose is this one."""
    origin = Origin(text, text, 7)
    drop = Rule("trusted.accept", (PayloadContains(text.encode()),), Drop(), text, origin)
    ban = Rule("ban.add", (), UpdateSet("banned"), text, origin)
    base = Base(Hook.INPUT, Priority.FILTER)
    chain = Chain("SIP_TRUSTED", Layer.TRUSTED, text, (drop, ban), Priority.FILTER, base)
    sets = [
        AddressSet("trusted", SetKind.NETWORK, text, origin),
        AddressSet("banned", SetKind.HOST, text, origin),
    ]
    return Ruleset((chain,), tuple(sets), ())


def without_comments(script: str) -> list[str]:
    return [line for line in script.split("\n") if not line.startswith("#") or line[:2] == "#!"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_of_a_user_can_leave_its_comment(hostile: str) -> None:
    settings = [replace(SETTING, origin=Origin(word, word)) for word in (hostile, "x")]
    text = script_text(PLAN, settings[:1], notes=[hostile], ruleset=explained(hostile))
    plain = script_text(PLAN, settings[1:], notes=["x"], ruleset=explained("x"))
    assert without_comments(text) == without_comments(plain)
    # What splitlines() takes for an end, a terminal or an old shell may take for one too.
    assert len(text.splitlines()) == text.count("\n")
    assert all(line.isprintable() for line in text.replace("\t", "").split("\n"))
    assert f"\n# {one_line(hostile)}\n" in text
    # iptables-restore of 1.4.21 takes what follows the first 10,239 bytes of a line for a new one.
    rules = text.partition("<<'RULES'")[2].partition("# ---- below here")[0]
    assert max(map(len, rules.split("\n"))) <= 160


@pytest.mark.parametrize("hostile", HOSTILE[:-1])
def test_what_a_user_wrote_is_told_above_chain_rule_and_set(hostile: str) -> None:
    text = script_text(PLAN, [], ruleset=explained(hostile))
    told = one_line(hostile)
    assert f"\n# SIP_TRUSTED: {told}\n" in text
    assert f"\n# {told} ({told}:7: {told})\ncreate sipfw-trusted4 " in text
    assert f"\n# filter INPUT SIP_TRUSTED: {told}\n" in text
    assert f"\n# drops: {told} ({told}:7: {told}); looks for " in text
    assert f"\n# adds to banned: {told} ({told}:7: {told})\n-A SIP_TRUSTED -m comment " in text


def test_the_script_shows_sets_and_rules_as_they_are() -> None:
    text = script_text(PLAN, [SETTING])
    assert "\n:SIP_TRUSTED - [0:0]\n\n# SIP_TRUSTED\n-A SIP_TRUSTED -p udp " in text
    assert "\ncreate sipfw-trusted4 hash:net family inet\nadd sipfw-trusted4 192.0.2.0/24\n" in text
    assert "\nnet.netfilter.nf_conntrack_max = 65536\nSYSCTL\n" in text


@pytest.mark.parametrize("plan", [PLAN, XPlan((), (TABLE,)), XPlan((), ())])
def test_here_documents_are_quoted_and_the_shell_takes_it(plan: XPlan) -> None:
    text = script_text(plan, [])
    assert not re.search(r"<<[^']", text)
    done = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_probes_name_each_need_once_and_touch_no_real_name() -> None:
    mark = '-m comment --comment "sipfw:probe#00000000"'
    twice = replace(TABLE, chains=(XChain("SIP_TRUSTED", (ACCEPT, BAN, ACCEPT)),))
    assert probe_lines(XPlan((), (twice,))) == [
        f"ip filter match:udp -p udp -m udp --dport 5060 {mark} -j RETURN",
        f"ip filter match:set -p udp -m set --match-set sipfw-probe4 src {mark} -j RETURN",
        f"ip filter target:SET {mark} -j SET --add-set sipfw-probe4 src --exist",
    ]


def test_an_option_that_needs_a_newer_kernel_is_a_probe_of_its_own() -> None:
    counted = XMatch("set", (*ACCEPT.matches[1].params, XParam("packets-gt", ("9",))))
    rules = (ACCEPT, replace(ACCEPT, matches=(counted,)))
    lines = probe_lines(XPlan((), (replace(TABLE, chains=(XChain("SIP_TRUSTED", rules),)),)))
    assert [line.split()[2] for line in lines] == ["match:udp", "match:set", "match:set"]
    assert "--packets-gt 9" in lines[-1]


def test_sets_that_would_share_a_temporary_name_are_a_bug() -> None:
    long = "sipfw-0123456789012345678901234"
    twins = [replace(PEERS, name=long[:29] + end) for end in ("5", "6")]
    with pytest.raises(AssertionError, match="temporary name"):
        script_text(XPlan(tuple(twins), ()), [])


def test_the_sysctl_file_says_who_wrote_it() -> None:
    lines = sysctl_text([SETTING]).splitlines()
    assert lines[0].startswith("# Written by sipfw")
    assert [line for line in lines if line[0] != "#"] == ["net.netfilter.nf_conntrack_max = 65536"]


def test_a_template_of_the_operator_wins_and_a_broken_one_is_named(tmp_path: Path) -> None:
    own = tmp_path / "sysctl.conf.j2"
    own.write_text("{% for s in sysctls %}{{ s.name }}={{ s.value }}{% endfor %}")
    assert sysctl_text([SETTING], tmp_path) == "net.netfilter.nf_conntrack_max=65536"
    own.write_text("{% for %}")
    with pytest.raises(SipfwError, match=r"sysctl\.conf\.j2:1"):
        sysctl_text([SETTING], tmp_path)
