"""Faults put into the lowering for nftables, one at a time: which fast test notices each?

    python tests/mutants.py [WORD ...]

Every mutant must be noticed without a kernel, in seconds: packet tests notice most of them too,
but after minutes. Words choose the mutants whose name has one of them. Not a part of `make test`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOWER = Path("src", "sipfw", "lower")
# In the order in which they are asked: the narrowest first.
TESTS = (
    "tests/lowering/test_matches.py",
    "tests/lowering/test_actions.py",
    "tests/lowering",
    "tests/golden",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/unit/test_nft_plan*.py")),
)
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file of `sipfw.lower`; `old` is there once."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "in_set() without the second set",
        "nftables_match.py",
        'f"{key} @{name}{SUFFIX[family]}" for name, _ in parts(item, family)]',
        'f"{key} @{name}{SUFFIX[family]}" for name, _ in parts(item, family)[:1]]',
    ),
    Mutant(
        "icmp and icmpv6 swapped",
        "nftables_match.py",
        "'icmp' if family is Family.IP else 'icmpv6'",
        "'icmpv6' if family is Family.IP else 'icmp'",
    ),
    Mutant(
        "dport for sport everywhere",
        "nftables_match.py",
        'side = "dport" if match.direction is Direction.DESTINATION else "sport"',
        'side = "dport"',
    ),
    Mutant(
        "aggregate cap inverted",
        "nftables_match.py",
        'f"limit rate {match.rate} burst',
        'f"limit rate over {match.rate} burst',
    ),
    Mutant("ct state negated", "nftables_match.py", 'f"ct state {', 'f"ct state != {'),
    Mutant(
        "negation of a payload lost",
        "nftables_match.py",
        'operator = "!= " if match.negate else ""',
        'operator = ""',
    ),
    Mutant(
        "wrong IPv6 mask",
        "nftables_match.py",
        "groups, rest = divmod(bits, 16)",
        "groups, rest = divmod(bits + 16, 16)",
    ),
    Mutant(
        "port side of endpoints swapped",
        "nftables_match.py",
        'side = "sport" if direction is Direction.SOURCE else "dport"',
        'side = "dport" if direction is Direction.SOURCE else "sport"',
    ),
    Mutant(
        "too short payloads forgotten",
        "nftables_match.py",
        'return [" ".join(words), f"udp length < {_UDP_HEADER + len(match.pattern)}"]',
        'return [" ".join(words)]',
    ),
    Mutant(
        "one byte more is short",
        "nftables_match.py",
        'f"udp length < {_UDP_HEADER + match.payload_bytes}"',
        'f"udp length <= {_UDP_HEADER + match.payload_bytes}"',
    ),
    Mutant(
        "limit of a source inverted",
        "nftables.py",
        'limit = f"limit rate over {match.rate}',
        'limit = f"limit rate {match.rate}',
    ),
    Mutant(
        "buckets by port without the port",
        "nftables.py",
        'key, kind = f"{key} . th sport", [*kind, "inet_service"]',
        "pass",
    ),
    Mutant(
        "ban counted from the wrong end",
        "nftables.py",
        "key = set_key(self._ruleset.set(match.set), match.direction, family)",
        "key = set_key(self._ruleset.set(match.set), Direction.SOURCE, family)",
    ),
    Mutant(
        "a goto that comes back", "nftables.py", 'f"goto {action.chain}', 'f"jump {action.chain}'
    ),
    Mutant(
        "words of TCP taken for UDP",
        "nftables_lean.py",
        "if behind and between and not behind[-1].matches:",
        "if behind and not behind[-1].matches:",
    ),
    Mutant(
        "families of a hook swapped",
        "nftables_hooks.py",
        '{Family.IP: "ipv4", Family.IP6: "ipv6"}',
        '{Family.IP: "ipv6", Family.IP6: "ipv4"}',
    ),
    Mutant(
        "endpoints of another transport kept",
        "inline_small_sets.py",
        "return bool(wanted and stated) and wanted.isdisjoint(stated)",
        "return False",
    ),
)


def main(words: list[str]) -> int:
    chosen = [each for each in MUTANTS if not words or any(word in each.name for word in words)]
    if not chosen:
        raise SystemExit(f"no mutant is called so: {' '.join(words)}")
    with tempfile.TemporaryDirectory(prefix="sipfw-mutants-") as folder:
        copy = Path(folder)
        # The package finds its templates and profiles beside its source.
        for name in ("src", "templates", "profiles"):
            shutil.copytree(ROOT / name, copy / name)
        if not _report("(none)", _killer(copy), expected=None):
            return 2
        survivors = [each for each in chosen if not _dies(each, copy)]
    sys.stdout.write(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants die\n")
    return 1 if survivors else 0


def _dies(mutant: Mutant, copy: Path) -> bool:
    file = copy / LOWER / mutant.file
    healthy = file.read_text()
    if healthy.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: not once in {mutant.file}: {mutant.old!r}")
    file.write_text(healthy.replace(mutant.old, mutant.new))
    try:
        return _report(mutant.name, _killer(copy), expected="a test")
    finally:
        file.write_text(healthy)


def _report(name: str, found: tuple[str | None, float], *, expected: str | None) -> bool:
    test, seconds = found
    told = test or ("SURVIVES" if expected else "all tests pass")
    sys.stdout.write(f"{name:38} {seconds:5.1f} s  {told}\n")
    sys.stdout.flush()
    return (test is None) is (expected is None)


def _killer(copy: Path) -> tuple[str | None, float]:
    """Return the first test that fails on this copy, and how long it took to come to it."""
    started = time.monotonic()
    path = os.pathsep.join((str(copy / "src"), str(ROOT / "tests")))
    options = ("-q", "-x", "--tb=no", "-p", "no:cacheprovider", "-m", "not netns")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *TESTS],
        cwd=ROOT,
        # Two versions of a file may have the same size and the same second.
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Anything but passed and failed, such as a mutant that cannot be imported, proves nothing.
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout + done.stderr)
    failed = FAILED.search(done.stdout)
    return failed[1] if done.returncode and failed else None, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
