"""Whole outputs of a few policies, for a reader to review; and the real parser takes each of them.

A policy whose first line says `--no-ipset` is rendered for a host without ipset, where nftables
needs none; one that has only a first line stands for no policy file.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
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

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/policy.yaml"))
NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Rendered:
    ipset: str
    restore: dict[Family, str]
    script: str
    nft: str


def render(case: str) -> Rendered:
    path = HERE / case / "policy.yaml"
    head, *rest = path.read_text().splitlines()
    assert head.startswith("# ")
    rules = compile_policy(load(Request(path if rest else None)))
    plan = lower(rules, ipset="--no-ipset" not in head)
    return Rendered(
        ipset_text(plan),
        {family: restore_text(plan, family) for family in Family},
        script_text(
            plan,
            rules.sysctls,
            notes=[head.removeprefix("# ")],
            summaries={chain.name: chain.summary for chain in rules.chains},
        ),
        nft_text(lower_nft(rules)),
    )


def files(case: str) -> dict[str, str]:
    rendered = render(case)
    return {
        "ipset.golden": rendered.ipset,
        "restore.v4.golden": rendered.restore[Family.IP],
        "restore.v6.golden": rendered.restore[Family.IP6],
        "firewall.sh.golden": rendered.script,
        "ruleset.nft.golden": rendered.nft,
    }


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, request: pytest.FixtureRequest) -> None:
    for name, text in files(case).items():
        path = HERE / case / name
        if request.config.getoption("--update-golden", default=False):
            path.write_text(text)
        assert text == path.read_text(), f"{case}/{name}: if meant so, --update-golden"


def test_every_golden_has_a_case() -> None:
    expected = {f"{case}/{name}" for case in CASES for name in files(case)}
    assert {str(path.relative_to(HERE)) for path in HERE.rglob("*.golden")} == expected


@pytest.mark.parametrize("seed", ["1", "2"])
def test_output_does_not_depend_on_the_hash_seed(seed: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import test_golden\n"
        "for case in test_golden.CASES:\n"
        "    for text in test_golden.files(case).values(): print(text, end='')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "".join(text for case in CASES for text in files(case).values())


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
    feed(namespace, (HERE / case / "ipset.golden").read_text(), "ipset", "restore")
    for program, digit in (("iptables", 4), ("ip6tables", 6)):
        text = (HERE / case / f"restore.v{digit}.golden").read_text()
        feed(namespace, text, f"{program}-{flavour}-restore", "--noflush")


@pytest.mark.netns
@pytest.mark.parametrize("case", CASES)
def test_nft_takes_it(namespace: str, case: str) -> None:
    feed(namespace, (HERE / case / "ruleset.nft.golden").read_text(), "nft", "-f", "-")
