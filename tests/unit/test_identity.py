"""Digests and names are made of words alone: a refactoring of sipfw renames no unchanged rule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

from later_version import CHANGED

from sipfw.lower.naming import comment, hashlimit_name, nft_comment, text_chain_name
from sipfw.lower.nftables_plan import NftRule, NftTextRule
from sipfw.lower.xtables import Family, XMatch, XParam, XRule, XTarget
from sipfw.ruleset.rule import Goto

PROGRAM = """\
import json, sys, later_version
changed = later_version.become_later() if sys.argv[1:] else []
import kernel_names
json.dump({"changed": changed, "names": kernel_names.all_names()}, sys.stdout)
"""
RULE = XRule(
    "",
    protocol="udp",
    source="203.0.113.0/24",
    matches=(
        XMatch("string", (XParam("hex-string", ("|41|b c",)),)),
        XMatch("set", (XParam("match-set", ("sipfw-t4", "src"), negate=True),)),
    ),
    target=XTarget("SIP_KNOWN", goto=True),
)
NFT_RULE = NftRule("", "ip saddr 203.0.113.0/24", "drop")
SEARCH = NftTextRule("", b"friendly-scanner", 28, "drop")


def names(*version: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *version],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_no_digest_and_no_name_depends_on_how_the_dataclasses_are_written() -> None:
    now, later = names(), names("later")
    assert now["changed"] == []
    modules = {name.rpartition(".")[0] for name in later["changed"]}
    assert modules >= {
        f"{package}{module}"
        for package, held in zip(
            CHANGED,
            (("match", "rule", "model"), ("xtables", "nftables_plan", "iptables_match")),
            strict=True,
        )
        for module in held
    }
    assert len(now["names"]) == len(later["names"]) >= 9
    for case, found in now["names"].items():
        assert later["names"][case] == found, case


def test_the_digests_of_this_version() -> None:
    """With another value here, the first apply of the new version replaces every rule."""
    assert comment("known", RULE, Family.IP) == "sipfw:known#ec4758a0"
    assert nft_comment("known", NFT_RULE) == "sipfw:known#d50f14f5"
    assert nft_comment("text", SEARCH) == "sipfw:text#98a6faa7"
    search = replace(SEARCH, comment=nft_comment("text", SEARCH))
    assert text_chain_name("SIP_SCANNER4", [search]) == "SIP_SCANNER4_text_bc1f7463"
    params = [XParam("hashlimit-above", ("10/second",)), XParam("hashlimit-burst", ("20",))]
    assert hashlimit_name("invite", params) == "sf-invite-05dfb"


def test_every_word_counts() -> None:
    tcp = replace(RULE, protocol="tcp")
    jump = replace(RULE, target=XTarget("SIP_KNOWN"))
    fewer = replace(RULE, matches=RULE.matches[:1])
    marks = [comment("known", rule, Family.IP) for rule in (RULE, tcp, jump, fewer)]
    marks.append(comment("known", RULE, Family.IP6))
    assert len(set(marks)) == len(marks)
    silent = replace(NFT_RULE, counted=False)
    reset = replace(NFT_RULE, action="reject with tcp reset")
    assert len({nft_comment("known", rule) for rule in (NFT_RULE, silent, reset)}) == 3
    others = (
        replace(SEARCH, pattern=b"friendly-Scanner"),
        replace(SEARCH, offset=48),
        replace(SEARCH, verdict=Goto("drop")),
    )
    assert len({nft_comment("text", rule) for rule in (SEARCH, *others)}) == 4


def test_the_own_comment_is_no_part_of_the_digest() -> None:
    marked = replace(RULE, comment=comment("known", RULE, Family.IP))
    assert comment("known", marked, Family.IP) == marked.comment
