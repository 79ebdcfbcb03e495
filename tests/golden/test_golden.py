"""Outputs of a few policies, for a reader to review; and the real parser takes each of them.

Two cases stand in full. Of every other there is what it changes in the base case, so that a
reviewer sees what a key of the policy does: lines with `-` are gone, those with `+` are new, and
those with a blank name the chain or set in which they stand. One script stands whole, with the
engine, which is the same for every policy.

A policy whose first line says `--no-ipset` is rendered for a host without ipset, where nftables
needs none; one that has only a first line stands for no policy file.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.lower.nftables import lower as lower_nft
from sipfw.lower.xtables import Family
from sipfw.policy.load import Request, load
from sipfw.render.nft import nft_text
from sipfw.render.restore import ipset_text, restore_text
from sipfw.render.script import script_text
from sipfw.render.sysctl import sysctl_text

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/policy.yaml"))
BASE = "10-default"
# Denied strangers leave so little of the base that a difference would be longer than the whole.
IN_FULL = (BASE, "70-denied")
WHOLE_SCRIPT = "70-denied"
NUMBERS = itertools.count(1)

# A line that opens a chain or set of nft text; a line of iptables names its chain itself.
_PLACE = re.compile(r"^\t(chain|set) \S+ \{")


@functools.cache
def render(case: str) -> dict[str, str]:
    """Return all outputs of a case in full, by the name of their files."""
    # Comments name the policy's file as it was given.
    with contextlib.chdir(HERE / case):
        path = Path("policy.yaml")
        head, *rest = path.read_text().splitlines()
        assert head.startswith("# ")
        rules = compile_policy(load(Request(path if rest else None)))
    plan = lower(rules, ipset="--no-ipset" not in head)
    note = head.removeprefix("# ")
    return {
        "ipset": ipset_text(plan),
        "restore.v4": restore_text(plan, Family.IP),
        "restore.v6": restore_text(plan, Family.IP6),
        "ruleset.nft": nft_text(lower_nft(rules)),
        "sysctl.conf": sysctl_text(rules.sysctls),
        "firewall.sh": script_text(plan, rules.sysctls, notes=[note], ruleset=rules),
    }


def changes(before: str, after: str) -> str:
    """Return the lines that differ."""
    old, new = before.splitlines(), after.splitlines()
    lines: list[str] = []
    named = ""
    for tag, old_first, old_end, new_first, new_end in difflib.SequenceMatcher(
        None, old, new
    ).get_opcodes():
        if tag == "equal":
            continue
        place = next((line for line in reversed(new[:new_first]) if _PLACE.match(line)), "")
        if place != named:
            lines.append(f" {place}")
            named = place
        lines += [f"-{line}" for line in old[old_first:old_end]]
        lines += [f"+{line}" for line in new[new_first:new_end]]
    return "".join(f"{line}\n" for line in lines)


def files(case: str) -> dict[str, str]:
    """Return the expected files of a case."""
    found = {}
    for name, text in render(case).items():
        if name == "firewall.sh":
            if case == WHOLE_SCRIPT:
                found[f"{name}.golden"] = text
        elif case in IN_FULL:
            found[f"{name}.golden"] = text
        else:
            found[f"{name}.diff.golden"] = changes(render(BASE)[name], text)
    return found


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, request: pytest.FixtureRequest) -> None:
    for name, text in files(case).items():
        path = HERE / case / name
        if request.config.getoption("--update-golden", default=False):
            path.write_text(text)
        assert text == path.read_text(), f"{case}/{name}: if meant so, --update-golden"


def test_every_golden_has_a_case(request: pytest.FixtureRequest) -> None:
    expected = {f"{case}/{name}" for case in CASES for name in files(case)}
    found = {str(path.relative_to(HERE)) for path in HERE.rglob("*.golden")}
    if request.config.getoption("--update-golden", default=False):
        for name in found - expected:
            (HERE / name).unlink()
        found &= expected
    assert found == expected


def test_base_and_difference_give_the_whole_again() -> None:
    before = render(BASE)["restore.v4"].splitlines()
    for case in CASES:
        after = render(case)["restore.v4"].splitlines()
        told = changes(render(BASE)["restore.v4"], render(case)["restore.v4"]).splitlines()
        gone = [line[1:] for line in told if line.startswith("-")]
        new = [line[1:] for line in told if line.startswith("+")]
        assert sorted([*before, *new]) == sorted([*after, *gone])


@pytest.mark.parametrize("seed", ["1", "2"])
def test_output_does_not_depend_on_the_hash_seed(seed: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import test_golden\n"
        "for case in test_golden.CASES:\n"
        "    for text in test_golden.render(case).values(): print(text, end='')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "".join(text for case in CASES for text in render(case).values())


@pytest.fixture
def namespace() -> Iterator[str]:
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("netns tests need root")
        pytest.skip("needs root")
    name = f"sipfw-golden-{os.getpid()}-{next(NUMBERS)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def feed(namespace: str, text: str, *argv: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *argv],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.netns
@pytest.mark.parametrize("flavour", ["legacy", "nft"])
@pytest.mark.parametrize("case", CASES)
def test_the_real_parser_takes_it(namespace: str, case: str, flavour: str) -> None:
    texts = render(case)
    feed(namespace, texts["ipset"], "ipset", "restore")
    for program, digit in (("iptables", 4), ("ip6tables", 6)):
        feed(namespace, texts[f"restore.v{digit}"], f"{program}-{flavour}-restore", "--noflush")


@pytest.mark.netns
@pytest.mark.parametrize("case", CASES)
def test_nft_takes_it(namespace: str, case: str) -> None:
    feed(namespace, render(case)["ruleset.nft"], "nft", "-f", "-")
