"""Rules of others that are stricter than the policy: which are named, and what opens them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from doctor_host import Fake, saved

from sipfw.compiler.pipeline import compile_policy
from sipfw.errors import BackendError
from sipfw.monitor.doctor.stricter.findings import require_no_loss
from sipfw.monitor.doctor.stricter.losses import losses
from sipfw.monitor.doctor.stricter.openings import commands
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

PEERS: Mapping[str, Any] = {
    "trusted_peers": [{"name": "carrier-a", "signalling": ["203.0.113.10", "203.0.113.64/26"]}]
}
DENIED: Mapping[str, Any] = {**PEERS, "limits": {"unknown_sources": "denied"}}
GUARDED: Mapping[str, Any] = {**PEERS, "admin": {"networks": ["192.0.2.0/28"]}}

JUMP = '-A INPUT -m comment --comment "sipfw:hook.filter.input#1" -j SIPFW_INPUT'
OURS = "-A SIPFW_INPUT -p udp -m multiport --dports 5060 -m comment --comment sipfw:a#1 -j {}"
OPEN = "-A INPUT -p udp -m udp --dport 5060 -j ACCEPT"
REJECT = "-A INPUT -j REJECT --reject-with icmp-host-prohibited"
# What iptables-services of RHEL ships, up to its final REJECT.
RHEL = (
    "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT",
    "-A INPUT -p icmp -j ACCEPT",
    "-A INPUT -i lo -j ACCEPT",
    "-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT",
)
# The frame of ufw's rules, shortened.
UFW = (
    "-A INPUT -j ufw-before-input",
    "-A INPUT -j ufw-after-input",
    "-A ufw-before-input -i lo -j ACCEPT",
    "-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A ufw-before-input -m conntrack --ctstate INVALID -j DROP",
    "-A ufw-before-input -j ufw-not-local",
    "-A ufw-before-input -j ufw-user-input",
    "-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN",
    "-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN",
    "-A ufw-not-local -j DROP",
    "-A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip",
    "-A ufw-skip -j DROP",
    "-A ufw-user-input -p udp -m udp --dport 5080 -j ACCEPT",
)
UFW_CHAINS = "ufw-before-input ufw-after-input ufw-not-local ufw-user-input ufw-skip"
FIVE = "-p udp --dport 5060 -j ACCEPT"
POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Case:
    """Rules of IPv4 in filter, and for each loss: what drops it, and the commands."""

    name: str
    rules: tuple[str, ...]
    losses: tuple[tuple[str, tuple[str, ...]], ...] = ()
    policy: Mapping[str, Any] = field(default_factory=lambda: PEERS)
    drops: bool = False
    chains: str = ""

    def __str__(self) -> str:
        return self.name


SPOKEN: Mapping[str, Any] = {**PEERS, "media": {"sources": "expected"}}

IPTABLES = [
    Case("nothing of others", ()),
    Case("rhel", (*RHEL, REJECT), ((REJECT, (f"-I INPUT 5 {FIVE}",)),)),
    Case("rhel, opened before", (*RHEL, OPEN, REJECT)),
    Case("opened behind", (REJECT, OPEN), ((REJECT, (f"-I INPUT 1 {FIVE}",)),)),
    Case("policy", RHEL, ((POLICY, (f"-A INPUT {FIVE}",)),), drops=True),
    Case("policy, opened", (OPEN,), drops=True),
    Case("policy, all of udp opened", ("-A INPUT -p udp -j ACCEPT",), drops=True),
    Case("policy, all but dns", ("-A INPUT -p udp ! --dport 53 -j ACCEPT",), drops=True),
    Case(
        "an allow-list with all peers, strangers denied",
        tuple(f"-A INPUT -s {item} -j ACCEPT" for item in ("203.0.113.10/32", "203.0.113.64/26")),
        policy=DENIED,
        drops=True,
    ),
    Case(
        "an allow-list that has one peer of two",
        ("-A INPUT -s 203.0.113.64/26 -p udp -j ACCEPT",),
        ((POLICY, (f"-A INPUT -s 203.0.113.10 {FIVE}",)),),
        policy=DENIED,
        drops=True,
    ),
    Case(
        "an allow-list, and strangers admitted",
        ("-A INPUT -s 203.0.113.0/24 -j ACCEPT",),
        ((POLICY, (f"-A INPUT {FIVE}",)),),
        drops=True,
    ),
    Case(
        "an allow-list by set",
        ("-A INPUT -m set --match-set friends src -j ACCEPT",),
        (
            (POLICY, (f"-A INPUT {FIVE}",)),
            ("unsure", (f"-A INPUT -s 203.0.113.10,203.0.113.64/26 {FIVE}",)),
        ),
        drops=True,
    ),
    Case("a blocklist", ("-A INPUT -s 198.51.100.0/24 -j DROP",)),
    Case("a blocklist by set", ("-A INPUT -m set --match-set bad src -j DROP",)),
    Case(
        "a blocked peer",
        ("-A INPUT -s 203.0.113.10/32 -j DROP",),
        (("-A INPUT -s 203.0.113.10/32 -j DROP", (f"-I INPUT 1 -s 203.0.113.10 {FIVE}",)),),
    ),
    Case("its own limit", ("-A INPUT -p udp -m hashlimit --hashlimit-above 9/s -j DROP",)),
    Case("other states", ("-A INPUT -m conntrack --ctstate INVALID -j DROP",)),
    Case("another protocol", ("-A INPUT -p tcp -j DROP", "-A INPUT -p icmp -j DROP")),
    Case("another port", ("-A INPUT -p udp -m multiport --dports 53,5061:5070 -j DROP",)),
    Case(
        "in a chain",
        ("-A INPUT -p tcp -j ACCEPT", "-A INPUT -g MORE", "-A MORE -p udp -j REJECT"),
        (("-A MORE -p udp -j REJECT", (f"-I INPUT 2 {FIVE}",)),),
        chains="MORE",
    ),
    Case(
        "in a chain that returns",
        ("-A INPUT -j MORE", "-A MORE -p udp -j RETURN", "-A MORE -j DROP"),
        chains="MORE",
    ),
    Case("a circle", ("-A INPUT -j A", "-A A -j B", "-A B -j A"), chains="A B"),
    Case(
        "before the jump",
        ("-A INPUT -p udp -j DROP", JUMP, OURS.format("RETURN")),
        (("-A INPUT -p udp -j DROP", ("-D INPUT 1",)),),
        chains="SIPFW_INPUT",
    ),
    Case(
        "ufw",
        UFW,
        ((POLICY, ("ufw allow proto udp from any to any port 5060",)),),
        drops=True,
        chains=UFW_CHAINS,
    ),
    Case(
        "ufw, opened",
        (*UFW, OPEN.replace("INPUT", "ufw-user-input")),
        drops=True,
        chains=UFW_CHAINS,
    ),
    Case(
        "ufw, denied",
        (*UFW, "-A ufw-user-input -p udp -m udp --dport 5060 -j DROP"),
        (
            (
                "-A ufw-user-input -p udp -m udp --dport 5060 -j DROP",
                ("ufw prepend allow proto udp from any to any port 5060",),
            ),
        ),
        drops=True,
        chains=UFW_CHAINS,
    ),
    Case(
        "media of a peer",
        ("-A INPUT -p udp -m udp --dport 12000:12001 -j DROP",),
        (
            (
                "-A INPUT -p udp -m udp --dport 12000:12001 -j DROP",
                (
                    (
                        "-I INPUT 1 -s 203.0.113.10,203.0.113.64/26 -p udp"
                        " --dport 12000:12001 -j ACCEPT"
                    ),
                ),
            ),
        ),
        policy=SPOKEN,
    ),
    Case(
        "half of the media",
        (
            OPEN,
            "-A INPUT -p udp --dport 10000:12000 -j ACCEPT",
            "-A INPUT -p udp -m multiport --dports 12500,13000:14000 -j ACCEPT",
        ),
        (
            (
                POLICY,
                (
                    (
                        "-A INPUT -p udp -m multiport --dports "
                        "12001:12499,12501:12999,14001:20000 -j ACCEPT"
                    ),
                ),
            ),
        ),
        policy=GUARDED,
        drops=True,
    ),
]


def compiled(folder: Path, policy: Mapping[str, Any]) -> Ruleset:
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump({"signalling": {"udp": [5060], "tcp": []}, **policy}))
    return compile_policy(load(Request(file=file)))


def named(fake: Fake, ruleset: Ruleset) -> list[tuple[str, tuple[str, ...]]]:
    """Return for each loss the rule, `policy` or `unsure`, and what opens it."""
    host = fake.host()
    return [
        ((item.rule or POLICY) if item.sure else "unsure", commands(item))
        for item in losses(host.rules, ruleset, host.proc)
    ]


@pytest.mark.parametrize("case", IPTABLES, ids=str)
def test_rules_of_iptables(case: Case, tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    policy = "DROP" if case.drops else "ACCEPT"
    fake.legacy(ip=saved(*case.rules, policy=policy, chains=case.chains))
    found = [
        (what, tuple(item.removeprefix("iptables-legacy ") for item in commands))
        for what, commands in named(fake, compiled(tmp_path, case.policy))
    ]
    assert found == list(case.losses)


def in_nft(*rules: str, policy: str = "accept", more: str = "") -> str:
    lines = "".join(f"\t\t{rule}\n" for rule in rules)
    head = f"type filter hook input priority filter; policy {policy};"
    return f"table inet fw {{\n{more}\tchain in {{\n\t\t{head}\n{lines}\t}}\n}}\n"


INSERT = "nft insert rule inet fw in index {} udp dport 5060 accept"
ADD = "nft add rule inet fw in udp dport 5060 accept"
NFT: Mapping[str, tuple[str, list[tuple[str, tuple[str, ...]]]]] = {
    "policy": (in_nft("ct state established,related accept", policy="drop"), [(POLICY, (ADD,))]),
    "the wiki's": (
        in_nft(
            "ct state vmap { invalid : drop, established : accept, related : accept }",
            'iif "lo" accept',
            "meta l4proto { icmp, ipv6-icmp } accept",
            "tcp dport { 22, 80 } ct state new counter packets 0 bytes 0 accept",
            'log prefix "drop " level warn',
            "reject with icmpx admin-prohibited",
        ),
        [("reject with icmpx admin-prohibited", (INSERT.format(5),))],
    ),
    "opened": (in_nft("udp dport { 5060, 10000-20000 } accept", policy="drop"), []),
    "opened by name": (in_nft('udp dport sip accept comment "for drop"', policy="drop"), []),
    "opened by a map": (
        in_nft(
            "meta l4proto vmap { tcp : drop, udp : jump more }",
            "drop",
            more="\tchain more {\n\t\tudp dport != 53 accept\n\t}\n\n",
        ),
        [],
    ),
    "opened for one family": (
        in_nft("meta nfproto ipv4 udp dport 5060 accept", policy="drop"),
        [(POLICY, ("nft add rule inet fw in meta nfproto ipv6 udp dport 5060 accept",))],
    ),
    "not understood": (in_nft("meta cpu 1 accept", policy="drop"), [("unsure", (ADD,))]),
    "a mark that nobody writes": (
        in_nft("meta mark 0x00000001 accept", policy="drop"),
        [("policy", (ADD,))],
    ),
    "a mark that somebody writes": (
        in_nft("meta mark set 0x00000001", "meta mark 0x00000001 accept", policy="drop"),
        [("unsure", (ADD,))],
    ),
    "a verdict is no value": (in_nft("meta mark drop", "udp sport 9 drop"), []),
    "a blocklist": (in_nft("ip saddr @bad drop", "ip saddr { 198.51.100.0/24 } drop"), []),
    "a range with a peer": (
        in_nft("ip saddr 203.0.113.9-203.0.113.11 drop"),
        [
            (
                "ip saddr 203.0.113.9-203.0.113.11 drop",
                ("nft insert rule inet fw in index 0 ip saddr 203.0.113.10 udp dport 5060 accept",),
            )
        ],
    ),
    "firewalld": (
        in_nft("reject with icmpx admin-prohibited").replace("inet fw", "inet firewalld"),
        [
            (
                "reject with icmpx admin-prohibited",
                ("firewall-cmd --permanent --add-port=5060/udp", "firewall-cmd --reload"),
            )
        ],
    ),
    "ours": (in_nft("drop").replace("inet fw", "inet sipfw"), []),
    "another family": (in_nft("drop").replace("inet fw", "arp fw"), []),
}


@pytest.mark.parametrize("name", NFT)
def test_rules_of_nft(name: str, tmp_path: Path) -> None:
    text, expected = NFT[name]
    fake = Fake(tmp_path)
    fake.nft(text)
    found = named(fake, compiled(tmp_path, PEERS))
    assert [(what, tuple(" ".join(shlex.split(c)) for c in words)) for what, words in found] == (
        expected
    )


def test_tables_of_iptables_nft_are_told_once(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.iptables_nft(ip=saved(REJECT))
    fake.nft(in_nft("reject").replace("inet fw", "ip filter").replace("chain in", "chain INPUT"))
    (loss,) = named(fake, compiled(tmp_path, PEERS))
    assert loss == (REJECT, (f"iptables-nft -I INPUT 1 {FIVE}",))


@pytest.mark.parametrize("table", ["raw", "mangle"])
def test_drops_of_other_tables_are_found(table: str, tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    text = saved("-A PREROUTING -p udp --dport 5060 -j DROP", table=table)
    fake.legacy(ip=text.replace(":INPUT", ":PREROUTING"))
    (loss,) = named(fake, compiled(tmp_path, PEERS))
    assert loss[1] == (f"iptables-legacy -t {table} -I PREROUTING 1 {FIVE}",)


@pytest.mark.parametrize("listens", [True, False])
def test_tcp_counts_where_somebody_listens(listens: bool, tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.legacy(ip=saved(policy="DROP"))
    if listens:
        ends = "00000000:13C4 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 99"
        fake.file("proc/net/tcp", f"head\n   0: {ends}\n")
    ruleset = compiled(tmp_path, {**PEERS, "signalling": {"udp": [], "tcp": [5060]}})
    assert bool(named(fake, ruleset)) is listens


def test_a_warning_says_what_and_how(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.legacy(ip=saved(*RHEL, REJECT))
    (item,) = require_no_loss(fake.host(), compiled(tmp_path, GUARDED))
    assert str(item) == (
        f"warning: other rules: `{REJECT}` of iptables-legacy filter INPUT drops what the policy "
        "admits: RTP to 10000-20000 (IPv4), SIP over UDP to 5060 (IPv4), and sipfw overrules "
        "nobody; to open it: iptables-legacy -I INPUT 5 -p udp -m multiport --dports "
        "10000:20000,5060 -j ACCEPT"
    )


def test_who_lived_by_an_older_sipfw_is_not_cut_off(tmp_path: Path) -> None:
    """Its rules accepted; those of this one leave the packet to the REJECT behind."""
    fake = Fake(tmp_path)
    old = (JUMP, *RHEL, REJECT, OURS.format("ACCEPT"))
    fake.legacy(ip=saved(*old, chains="SIPFW_INPUT"))
    ruleset = compiled(tmp_path, DENIED)
    with pytest.raises(BackendError, match="the sipfw in force accepts it") as refused:
        require_no_loss(fake.host(), ruleset)
    assert f"-I INPUT 6 -s 203.0.113.10,203.0.113.64/26 {FIVE}" in str(refused.value)
    (forced,) = require_no_loss(fake.host(), ruleset, force=True)
    assert forced.message.startswith("FORCED: ")
    # Rules of today's kind change nothing, and what was never accepted is a warning.
    fake.legacy(ip=saved(*old[:-1], OURS.format("RETURN"), chains="SIPFW_INPUT"))
    assert [item.severity for item in require_no_loss(fake.host(), ruleset)] == ["warning"]
    # Opened before the REJECT, nothing is lost.
    opened = (JUMP, *RHEL, OPEN, REJECT, OURS.format("ACCEPT"))
    fake.legacy(ip=saved(*opened, chains="SIPFW_INPUT"))
    assert require_no_loss(fake.host(), ruleset) == []


HOSTILE = (
    '-A INPUT -m comment --comment "-j DROP \\" ; reboot" -j ACCEPT',
    "-A INPUT -p udp --dport 99999 -j DROP",
    "-A INPUT -p udp --dport 9:5 -j DROP",
    "-A INPUT -s nonsense -j DROP",
    "-A INPUT -m tcp --tcp-flags SYN -j DROP",
    "-A INPUT -m set --match-set x -j DROP",
    "-A INPUT -p",
    "-A INPUT !",
    "-A INPUT -j",
    "-A INPUT -j NOWHERE",
)


def test_no_text_of_others_steers_the_terminal(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    line = '-A INPUT -m comment --comment "a\x1b[2J\nb" -j DROP'
    fake.legacy(ip=saved(JUMP, line, OURS.format("ACCEPT"), chains="SIPFW_INPUT"))
    with pytest.raises(BackendError) as refused:
        require_no_loss(fake.host(), compiled(tmp_path, PEERS))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("line", HOSTILE)
def test_nothing_in_a_rule_stops_the_reader(line: str, tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.legacy(ip=saved(line))
    assert named(fake, compiled(tmp_path, PEERS)) == []
    rule = re.sub("^-A INPUT ", "", line)
    fake.legacy()
    fake.nft(in_nft(rule, "vmap", "ct state vmap {", "udp dport 70000 drop", "jump"))
    named(fake, compiled(tmp_path, PEERS))
