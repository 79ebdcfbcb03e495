"""The nftables backend as an operator runs it."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
from test_live_commands import EXAMPLES, POLICY, Host

from sipfw.kernel.nft.way_back import parse_listing
from sipfw.policy.load import shipped_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

BACKEND = ("--backend", "nftables")
FOREIGN = """\
table ip other {
\tchain input {
\t\ttype filter hook input priority 5; policy accept;
\t\tip saddr 198.51.100.1 counter packets 3 bytes 99 drop comment "theirs"
\t}
}
"""

# Applies the same policy with another ban and another list of signatures, while somebody else
# changes the table right after the transaction (and, where asked, keeps nft from loading again).
MEDDLE = """\
import json, sys
from pathlib import Path
from sipfw.kernel.nft.engine import NftablesBackend
from sipfw.host.runner import Completed, SubprocessRunner
from sipfw.compiler.pipeline import compile_policy
from sipfw.errors import BackendError
from sipfw.lower import nftables
from sipfw.kernel.nft.way_back import parse_listing
from sipfw.policy.load import Request, load

policy, then, refuse = sys.argv[1:]
changes = ("bans.duration=2h", "limits.aggregate=9/second", "scanners.user_agents.add=[EvilDialer]")

class Meddler:
    loaded = False
    def run(self, argv, *, stdin="", timeout=30.0, env=None):
        load = argv[:3] == ["nft", "-f", "-"]
        if load and self.loaded and refuse:
            return Completed(1, "", "Error: refused")
        done = SubprocessRunner().run(argv, stdin=stdin, timeout=timeout, env=env)
        # The first text that nft loads prepares the chains of the searches; this one is the rest.
        if load and "set banned4" in stdin and not self.loaded:
            self.loaded = True
            other = SubprocessRunner().run(["nft", "-f", "-"], stdin=then)
            assert other.returncode == 0, other.stderr
        return done

plan = nftables.lower(compile_policy(load(Request(file=Path(policy), settings=changes))))
try:
    NftablesBackend(Meddler()).apply(plan)
except BackendError as error:
    print(json.dumps([type(error).__name__, error.restored, str(error)]))
"""
MEDDLING = {
    "chain emptied": "flush chain inet sipfw SIP_TRUSTED4",
    "rule let in": "add rule inet sipfw SIP_TRUSTED6 accept",
    "hook emptied": "flush chain inet sipfw raw_prerouting",
    "table gone": "delete table inet sipfw",
    "set and chain added": (
        "add set inet sipfw mine { type ipv4_addr; }\nadd chain inet sipfw more\n"
        "flush chain inet sipfw SIP_TRUSTED4"
    ),
}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-nft-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Host(name, tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def nft(host: Host, *words: str, stdin: str = "") -> str:
    done = host.run("nft", *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_goes_live_verifies_and_goes(host: Host, example: Path) -> None:
    host.must("apply", *BACKEND, "--policy", str(example))
    assert "the live firewall is the applied one" in host.must("verify").stdout
    host.must("verify", *BACKEND, "--policy", str(example))
    host.must("remove")
    assert nft(host, "list", "tables") == ""


def test_every_profile_replaces_the_one_before(host: Host) -> None:
    for profile in shipped_profiles():
        host.must("apply", *BACKEND, "--policy", host.policy(), "--profile", profile)
        host.must("verify")


def test_bans_and_counters_survive_another_list_of_signatures(host: Host) -> None:
    policy = host.policy()
    host.must("apply", *BACKEND, "--policy", policy)
    nft(host, "add element inet sipfw banned4 { 198.51.100.9 }")
    change = ("--set", "scanners.user_agents.add=[EvilDialer]", "--set", "bans.duration=2h")
    host.must("apply", *BACKEND, "--policy", policy, *change)
    assert "198.51.100.9" in nft(host, "list", "set", "inet", "sipfw", "banned4")
    ids = {rule["id"] for rule in json.loads(host.must("verify", "--json").stdout)["rules"]}
    assert "scanner.ua.user-evildialer" in ids


def test_a_foreign_table_and_its_counter_survive(host: Host) -> None:
    nft(host, "-f", "-", stdin=FOREIGN)
    before = nft(host, "list", "table", "ip", "other")
    host.must("apply", *BACKEND, "--policy", host.policy())
    host.must("apply", *BACKEND, "--policy", host.policy(), "--set", "limits.aggregate=9/second")
    assert nft(host, "list", "table", "ip", "other") == before
    host.must("remove")
    assert nft(host, "list", "table", "ip", "other") == before


def test_the_other_backend_is_refused_while_one_is_live(host: Host) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    done = host.must("apply", "--policy", host.policy(), code=4)
    assert "sipfw is live in nftables already" in done.stderr
    assert host.saved() == []


TAMPERING = {
    "flush chain inet sipfw SIP_TRUSTED4": ("missing", "rule", "trusted.udp"),
    "insert rule inet sipfw SIP_SOURCES6 accept": ("extra", "rule", "SIP_SOURCES"),
    "flush chain inet sipfw raw_prerouting": ("missing", "jump", "raw_prerouting"),
    "add element inet sipfw trusted4 { 198.51.100.99 }": (
        "extra",
        "set element",
        "trusted4 198.51.100.99",
    ),
    "add set inet sipfw mine { type ipv4_addr; }": ("extra", "set", "mine"),
}


@pytest.mark.parametrize("command", TAMPERING)
def test_tampering_is_named_and_mended(host: Host, command: str) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    nft(host, command)
    kind, what, where = TAMPERING[command]
    found = json.loads(host.must("verify", "--json", code=1).stdout)["drift"]
    assert [d for d in found if (d["kind"], d["what"]) == (kind, what) and where in d["where"]]
    # Without --adopt an apply keeps away from a set that it did not make (test_strangers).
    adopt = ("--adopt",) if "mine" in command else ()
    host.must("apply", *BACKEND, "--policy", host.policy(), *adopt)
    host.must("verify")


HOOK = "raw_prerouting"
ELSEWHERE = "type filter hook prerouting priority -299; policy accept;"
# What somebody does to the base chain, and the kinds of drift in each family.
HOOK_TAMPERING = {
    "delete rule inet sipfw raw_prerouting handle {ip}": ({"missing"}, set()),
    "delete rule inet sipfw raw_prerouting handle {ip6}": (set(), {"missing"}),
    "replace rule inet sipfw raw_prerouting handle {ip6} meta nfproto ipv6 counter "
    'goto SIPFW_OUTPUT6 comment "{mark6}"': (set(), {"changed"}),
    "add rule inet sipfw raw_prerouting meta nfproto ipv4 counter "
    'goto SIPFW_PREROUTING4 comment "{mark}"': ({"extra"}, set()),
    "insert rule inet sipfw raw_prerouting udp dport 5060 accept": (
        {"extra", "moved"},
        {"extra", "moved"},
    ),
    "add rule inet sipfw raw_prerouting udp dport 5060 accept": ({"extra"}, {"extra"}),
    "flush chain inet sipfw raw_prerouting; delete chain inet sipfw raw_prerouting; "
    f"add chain inet sipfw raw_prerouting {{{{ {ELSEWHERE} }}}}; "
    "add rule inet sipfw raw_prerouting meta nfproto ipv4 counter goto SIPFW_PREROUTING4 comment "
    '"{mark}"': ({"missing", "extra"}, {"missing"}),
}


OTHER_TEXT = """\
import sys
from sipfw.kernel.netlink.rules import fill_chain, read_chain
for name in sys.argv[1:]:
    rules = [
        type(each)(each.comment, each.pattern.swapcase()[::-1], each.from_offset, each.verdict)
        for each in read_chain(name)
    ]
    fill_chain(name, rules)
"""


def test_another_text_under_the_old_comment_is_named_and_mended(host: Host) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    before = content(host)["patterns", ""]
    (name, *_) = re.findall(
        r"chain (\w+_text_\w+)", host.run("nft", "list", "table", "inet", "sipfw").stdout
    )
    assert host.python(OTHER_TEXT, name).returncode == 0
    assert content(host)["patterns", ""] != before
    assert "searches " in host.must("verify", code=1).stdout
    assert (
        "edited since the apply"
        in host.must("diff", *BACKEND, "--policy", host.policy(), code=1).stdout
    )
    host.must("apply", *BACKEND, "--policy", host.policy())
    host.must("verify")
    assert content(host)["patterns", ""] == before


def test_a_hook_is_named_by_family(host: Host) -> None:
    """One table serves both families, and a fault of one must not hide behind the other."""
    host.must("apply", *BACKEND, "--policy", host.policy())
    before = nft(host, "list", "table", "inet", "sipfw")
    for command, expected in HOOK_TAMPERING.items():
        listing = json.loads(nft(host, "-j", "-a", "list", "chain", "inet", "sipfw", HOOK))
        first, second = [each["rule"] for each in listing["nftables"] if "rule" in each]
        values = {
            "ip": first["handle"],
            "ip6": second["handle"],
            "mark": first["comment"],
            "mark6": second["comment"],
        }
        nft(host, "-f", "-", stdin=command.format(**values) + "\n")
        found = json.loads(host.must("verify", "--json", code=1).stdout)["drift"]
        assert {each["what"] for each in found} == {"jump"}
        for family, kinds in zip(("IPv4", "IPv6"), expected, strict=True):
            mine = {each["kind"] for each in found if f"{family} sipfw {HOOK}" in each["where"]}
            assert mine == kinds, command
        restored = f"flush chain inet sipfw {HOOK}\ndelete chain inet sipfw {HOOK}\n"
        (block,) = [each for each in parse_listing(before) if each.name == HOOK]
        lines = "\n".join(block.lines)
        restored += f"table inet sipfw {{\n\tchain {HOOK} {{\n{lines}\n\t}}\n}}\n"
        nft(host, "-f", "-", stdin=restored)
    host.must("verify")


def test_dry_run_changes_nothing(host: Host) -> None:
    done = host.must("apply", *BACKEND, "--policy", host.policy(), "--dry-run")
    assert "into nftables" in done.stdout
    assert nft(host, "list", "tables") == ""


def test_dry_run_shows_what_would_change(host: Host) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    before = nft(host, "-s", "list", "ruleset")
    other = host.policy(POLICY.replace("203.0.113.10", "203.0.113.77"))
    done = host.must("apply", *BACKEND, "--policy", other, "--dry-run")
    assert "203.0.113.77" in done.stderr
    assert "203.0.113.10" in done.stderr
    assert nft(host, "-s", "list", "ruleset") == before


def content(host: Host) -> dict[tuple[str, str], str]:
    """Return the table by object, without what only time changes; searches by pattern as well."""
    shown = nft(host, "list", "table", "inet", "sipfw")
    found = {
        (block.kind, block.name): re.sub(r" expires \w+", "", "\n".join(block.lines))
        for block in parse_listing(shown)
    }
    names = sorted(name for _, name in found if "_text_" in name)
    found["patterns", ""] = host.python(PATTERNS, *names).stdout
    assert found["patterns", ""].count("[(b'") == len(names)
    return found


PATTERNS = """\
import sys
from sipfw.kernel.netlink.rules import read_chain
for name in sys.argv[1:]:
    print([(rule.pattern, rule.from_offset, rule.verdict) for rule in read_chain(name)])
"""


def meddled(host: Host, then: str, refuse: str = "") -> tuple[str, bool, str]:
    done = host.python(MEDDLE, host.policy(), then, refuse)
    assert done.returncode == 0, done.stderr
    kind, restored, message = json.loads(done.stdout)
    return kind, restored, message


@pytest.mark.parametrize("name", MEDDLING)
def test_a_read_back_that_fails_brings_the_old_table_back(host: Host, name: str) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    nft(host, "add element inet sipfw banned4 { 198.51.100.9 timeout 30m }")
    nft(host, "add element inet sipfw learned6 { 2001:db8::9 }")
    before = content(host)
    assert "198.51.100.9 timeout 30m" in before["set", "banned4"]
    kind, restored, message = meddled(host, MEDDLING[name])
    assert (kind, restored) == ("ApplyError", True)
    assert "somebody else changed" in message
    assert message.endswith("the table from before is in force again")
    assert content(host) == before
    host.must("apply", *BACKEND, "--policy", host.policy())


def test_a_first_apply_that_is_meddled_with_leaves_no_table(host: Host) -> None:
    nft(host, "-f", "-", stdin=FOREIGN)
    kind, restored, message = meddled(host, MEDDLING["chain emptied"])
    assert (kind, restored) == ("ApplyError", True)
    assert message.endswith("there is no table of sipfw, as before")
    assert nft(host, "list", "tables") == "table ip other\n"


def test_a_way_back_that_fails_says_what_is_in_force(host: Host) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    kind, restored, message = meddled(host, MEDDLING["chain emptied"], "refuse")
    assert (kind, restored) == ("ApplyError", False)
    assert "going back failed: nft: Error: refused" in message
    assert "in force is the new table but for chain SIP_TRUSTED4" in message
    *_, gone = meddled(host, MEDDLING["table gone"], "refuse")
    assert "no table of sipfw is in force: SIP is unguarded" in gone
