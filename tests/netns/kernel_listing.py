"""What the kernel of this network namespace holds, by its own tools, in an order of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TypedDict

from small_rulesets import SETTING


class Listing(TypedDict):
    """Rules and sets without counters and learned elements, and the one setting of the tests."""

    rules: list[str]
    setting: str


def listing() -> Listing:
    setting = Path("/proc/sys") / SETTING.replace(".", "/")
    return {
        "rules": [*_legacy(), *_sets(), *_nft()],
        "setting": setting.read_text().strip() if setting.exists() else "",
    }


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def _legacy() -> list[str]:
    """Tables stand in the order of their creation; one without any rule is as good as none."""
    lines = []
    for tool in ("iptables-legacy-save", "ip6tables-legacy-save"):
        for table in re.split(r"^COMMIT\n", _run(tool), flags=re.MULTILINE):
            name = re.search(r"^\*\S+", table, re.MULTILINE)
            rules = re.findall(r"^-A .*|^:\S+ -", table, re.MULTILINE)
            lines += [f"{tool} {name[0]} {rule}" for rule in rules if name is not None]
    return _in_order(lines)


def _in_order(lines: list[str]) -> list[str]:
    """Sort by table and chain, keep the order of the rules within a chain."""
    return sorted(lines, key=lambda line: line.split()[:4] if " -A " in line else line.split()[:3])


def _sets() -> list[str]:
    lines = _run("ipset", "save").splitlines()
    # initval is random, and bucketsize the kernel's own choice.
    return sorted(re.split(r" (?:initval|bucketsize) ", line)[0] for line in lines)


def _nft() -> list[str]:
    """Blocks of a table stand in the order of their creation."""
    text = _run("nft", "-s", "list", "ruleset")
    blocks = re.split(r"\n\t(?=chain |set )|\n(?=table )|\n\n", text.replace("\n}\n", "\n"))
    return sorted(block.strip() for block in blocks if block.strip())
