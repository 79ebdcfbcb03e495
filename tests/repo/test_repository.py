"""Promises about the repository itself: sizes, addresses, the changelog, the examples."""

from __future__ import annotations

import ast
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest

from sipfw import __version__
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.policy.load import Request, load
from sipfw.ruleset.lint import lint

_ROOT = Path(__file__).parents[2]
_SOURCES = sorted((_ROOT / "src").rglob("*.py"))
_EXAMPLES = sorted((_ROOT / "examples").glob("*.yaml"))

_DOCUMENTATION = [
    ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
# Addresses that belong to nobody: loopback, link-local, multicast, 0.0.0.0, broadcast, mapped,
# benchmarks (RFC 2544).
_NOBODYS = [
    ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10")
] + [ip_network("ff00::/8"), ip_network("198.18.0.0/15")]

# Files whose subject is address space as such, or a message that a tool really sends.
_ABOUT_ADDRESSES = {
    "tests/errors/test_generated_files.py": "5,000 networks need more than three /24",
    "tests/lowering/test_actions.py": "40,000 networks need more than three /24",
    "tests/unit/test_answers.py": "private addresses, and 10,000 of an answer, are the subject",
    "tests/netns/test_names.py": "private addresses are refused",
    "docs/decisions/0017-names.md": "private networks are the subject",
    "tests/unit/test_names_cache.py": "private addresses are refused",
    "tests/errors/peer-internet-in-halves": "half of the Internet is the fault",
    "tests/unit/test_feed_parse.py": "private and too wide networks are the subject",
    "tests/errors/peer-internet-in-pieces": "a part of the Internet is the fault",
    "tests/unit/test_feed_lists.py": "a network that is too much is the subject",
    "tests/unit/test_feed_places.py": "private networks and their disguises are the subject",
    "tests/lab/flood/": "floods come from everywhere",
    "tests/packets/flood/test_memory.py": "a set is filled with more than three /24",
    "tests/repo/test_repository.py": "this list",
}

# What a tool or a phone really sends cannot be written otherwise.
_SENT_SO = {
    "13.3.1.1": "a section of RFC 3261",
    "1.1.1.1": "SIPVicious, From, To and Contact",
    "192.168.1.45": "Mr.SIP, SDP origin",
    "108.86.0.45": "a Yealink firmware version",
}

_FOUR = re.compile(r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)")
_SIX = re.compile(
    r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){1,7}(?::|[0-9a-fA-F]{1,4})[0-9a-fA-F:]*(?![\w:])"
)


def test_no_source_file_is_longer_than_400_lines() -> None:
    sizes = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _SOURCES}
    assert {path: size for path, size in sizes.items() if size > 400} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{path.relative_to(_ROOT)}:{node.lineno} {node.name}"
        for path in _SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and _length(node) > 60
    ]
    assert long == []


def _length(node: ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_every_module_says_what_it_holds() -> None:
    silent = [
        str(path.relative_to(_ROOT))
        for path in _SOURCES
        if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []


def test_the_changelog_has_the_version() -> None:
    text = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?v?{re.escape(__version__)}\b", text, re.MULTILINE)


def test_there_are_examples() -> None:
    assert len(_EXAMPLES) >= 3


@pytest.mark.parametrize("example", _EXAMPLES, ids=lambda path: path.stem)
def test_each_example_compiles(example: Path) -> None:
    ruleset = compile_policy(load(Request(example)))
    assert lint(ruleset) == []
    assert lower(ruleset).tables


def _texts() -> list[Path]:
    folders = ("docs", "examples", "tests", "profiles", "templates")
    endings = {".py", ".md", ".yaml", ".stderr", ".golden", ".j2", ".sh"}
    files = [path for name in folders for path in (_ROOT / name).rglob("*")]
    return [*(path for path in files if path.suffix in endings), _ROOT / "README.md"]


def _addresses(text: str) -> set[IPv4Address | IPv6Address]:
    found = set()
    for word in (*_FOUR.findall(text), *_SIX.findall(text)):
        try:
            found.add(ip_address(word))
        except ValueError:
            continue
    return found


def _belongs(address: IPv4Address | IPv6Address, networks: list[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _foreign(path: Path) -> list[str]:
    """Return the addresses in a file that may be somebody's."""
    fine = [*_DOCUMENTATION, *_NOBODYS]
    return [
        str(address)
        for address in _addresses(path.read_text(encoding="utf-8", errors="replace"))
        if str(address) not in _SENT_SO and not _belongs(address, fine)
    ]


def test_only_addresses_for_documentation_are_written_down() -> None:
    named = {str(path.relative_to(_ROOT)): sorted(_foreign(path)) for path in _texts()}
    about = tuple(_ABOUT_ADDRESSES)
    assert {
        name: found for name, found in named.items() if found and not name.startswith(about)
    } == {}


def test_no_text_holds_a_path_of_a_developers_machine() -> None:
    own = Path(__file__)
    telling = re.compile(r"/(?:work|root|home)/[a-z]|/tmp/v/")
    found = [
        f"{path.relative_to(_ROOT)}: {match[0]}"
        for path in [*_texts(), *_SOURCES]
        if path != own
        for match in telling.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


def test_make_runs_every_file_that_needs_namespaces() -> None:
    (named,) = re.findall(r"^NETNS_TESTS := (.+)$", (_ROOT / "Makefile").read_text(), re.MULTILINE)
    # In two parts, so that this file is not one of them.
    mark = "pytest.mark." + "netns"
    needing = [path for path in (_ROOT / "tests").rglob("*.py") if mark in path.read_text()]
    folders = [_ROOT / name for name in named.split()]
    assert len(needing) > 80
    assert [path for path in needing if not any(map(path.is_relative_to, folders))] == []
