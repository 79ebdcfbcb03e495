"""The script as something to read: the map, the words above rules, the engine that stays."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.lower.naming import split_comment
from sipfw.policy.load import Request, load
from sipfw.render.comments import comments_of, shown
from sipfw.render.packet_map import map_lines
from sipfw.render.script import ENGINE_PARTS, engine_text, script_text
from sipfw.resources import shipped_folder

if TYPE_CHECKING:
    from sipfw.ruleset.model import Ruleset

BOUNDARY = "\n# ---- below here nothing depends on your policy: "
PROFILES = ("default", "wholesale", "ip-auth")
MARK = re.compile(r'--comment "(sipfw:[^"]+)"')


@cache
def ruleset(profile: str = "default") -> Ruleset:
    return compile_policy(load(Request(profile=profile)))


@cache
def script(profile: str = "default", *, ipset: bool = True, u32: bool = True) -> str:
    rules = ruleset(profile)
    plan = lower(rules, ipset=ipset, u32=u32)
    return script_text(plan, rules.sysctls, ruleset=rules)


def policy_part(text: str) -> str:
    return text.partition(BOUNDARY)[0]


def test_the_engine_is_the_same_byte_for_byte() -> None:
    texts = [script(profile) for profile in PROFILES]
    texts += [script(ipset=False), script(u32=False)]
    engines = {text.partition(BOUNDARY)[2].partition("\n\n")[2] for text in texts}
    assert engines == {engine_text()}
    assert len({policy_part(text) for text in texts}) == len(texts)


def test_the_engine_holds_no_template_and_every_part_of_it() -> None:
    folder = shipped_folder("templates") / "firewall" / "engine"
    assert {path.name for path in folder.iterdir()} == {f"{part}.sh" for part in ENGINE_PARTS}
    for part in ENGINE_PARTS:
        assert (folder / f"{part}.sh").read_text() in engine_text()
    assert not re.search(r"\{\{|\{%", engine_text())


@pytest.mark.parametrize("text", [engine_text(), script(), script("ip-auth", ipset=False)])
def test_shellcheck_is_content_with_engine_and_script(text: str) -> None:
    if shutil.which("shellcheck") is None:
        if os.environ.get("CI"):
            pytest.fail("shellcheck is missing")
        pytest.skip("needs shellcheck")
    argv = ["shellcheck", "--shell=sh", "-"]
    done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False)
    assert done.stdout == ""
    assert "shellcheck disable" not in text


def test_it_says_first_what_it_is_then_the_way_then_the_policy_then_the_engine() -> None:
    places = [
        script().index(text)
        for text in ("written by sipfw", "# The way of a packet", "static_sets() {", BOUNDARY)
    ]
    assert places == sorted(places)
    assert script().index("usage() {") > places[-1]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_map_is_short_and_names_each_layer_where_it_stands(profile: str) -> None:
    rules = ruleset(profile)
    lines = map_lines(rules)
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 160
    hooks = [line.split()[3] for line in lines if not line.startswith("#   ")]
    bases = [f"{chain.name}:" for chain in rules.chains if chain.base is not None]
    assert sorted(hooks) == sorted(bases)
    told = "\n".join(lines)
    for chain in rules.chains:
        assert chain.base is not None or f"#   {chain.layer.value} " in told


@pytest.mark.parametrize("profile", PROFILES)
def test_every_rule_stands_under_words_about_it(profile: str) -> None:
    comments = comments_of(ruleset(profile))
    above: list[str] = []
    seen = 0
    for line in policy_part(script(profile)).split("\n"):
        if line.startswith("#     "):
            above.append(line)
        elif line.startswith("#"):
            above = [line]
        elif line.startswith("-A "):
            mark = MARK.search(line)
            assert mark is not None
            assert split_comment(mark[1]) is not None
            assert tuple(above) == comments.above_rule(mark[1])
            assert above
            seen += 1
    assert seen > 20


def test_parts_of_one_rule_share_its_words() -> None:
    lines = script().split("\n")
    first = next(at for at, line in enumerate(lines) if "aggregate.looked-at/1#" in line)
    assert lines[first - 1].startswith("# sends to SIP_CROWD: unknown source (")
    assert "aggregate.looked-at/2#" in lines[first + 1]


@pytest.mark.parametrize("u32", [True, False])
def test_numbers_and_hex_are_said_in_words(*, u32: bool) -> None:
    lines = script(u32=u32).split("\n")

    def words(rule: str) -> str:
        at = next(at for at, line in enumerate(lines) if f"sipfw:{rule}#" in line)
        return lines[at - 1]

    assert words("banned.register").endswith('; looks for "REGISTER " at the start')
    assert words("scanner.invite").endswith('; looks for one of "INVI", "PRAC" at the start')
    assert words("scanner.ua.sipscan").endswith(r'; looks for "User-Agent: SIPScan\r\n"')
    assert "looks for" not in words("scanner.ua.friendly-scanner")


def test_bytes_are_shown_as_ascii() -> None:
    assert shown(b'a"\\\r\n\t\x00\xff ') == r'"a\"\\\r\n\t\x00\xff "'


@pytest.mark.parametrize("profile", PROFILES)
def test_only_a_rule_that_cannot_be_broken_is_wide(profile: str) -> None:
    for line in policy_part(script(profile)).split("\n"):
        assert len(line) <= 160 or line.startswith(("-A ", "ip raw ", "ip6 raw ", "ip filter "))
