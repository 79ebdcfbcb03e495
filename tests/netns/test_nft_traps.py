"""What nft 1.0.6 and nf_tables do that nobody expects, and that sipfw does not fall for it.

| trap | test |
|---|---|
| a table's flags spoil the JSON of the whole ruleset | test_foreign_tables_with_flags |
| a table with the flag `dormant` is listed as ever | test_a_table_put_to_sleep_... |
| JSON leaves out comments of tables and chains | test_every_rule_carries_its_mark |
| JSON leaves out the flag `dynamic` | test_an_unchanged_policy_makes_nothing_anew |
| text shows `1h1m1s` where JSON has seconds | same, with odd lengths |
| `nft -f` cannot load the text searches it lists | same, they keep their handles |
| another timeout of a set is ignored | test_a_new_ban_length_and_size_are_in_force |
| another size of a set is taken | same |
| other flags of a set are `File exists` | test_a_set_with_other_flags_is_made_anew |
| another priority of a chain is EOPNOTSUPP | test_a_hook_at_another_place_is_put_right |
| intervals must not overlap | test_networks_inside_one_another |
| auto-merge would rewrite neighbours | test_neighbouring_networks_stay_two |
| a full set ends the rule | test_a_full_ban_set_still_drops |
| an element keeps the limit it was made with | test_a_failure_before_the_change_... |
| payload of a short datagram matches nothing | test_a_short_datagram_of_a_banned_source |
| a comment has at most 128 bytes | test_the_longest_signature_is_taken |
| no `destroy`, `last`, one-line chains | test_the_rendered_file_is_taken |
| `ct original proto-dst` may lose its protocol in a listing | test_nft_reads_its_own_listing |
| the string match may be missing | test_without_text_searches_... |
| packets meet two rulesets | netns/test_swaps |
| a full bucket set limits nobody | unit/test_nft_plan, ..._flood_cannot_fill_... |
| no verdict behind a change of a set | unit/test_nft_plan, test_nothing_stands_behind_... |
| `dynamic` with `interval` is EOPNOTSUPP | unit/test_nft_plan, ..._hold_no_intervals |
| `@ih` needs kernel 5.16 | unit/test_nft_plan, test_udp_is_compared_... |
| nft too old | unit/test_nft_plan, test_an_old_nft_is_refused_by_name |
| errors in JSON have no line | netns/test_nft_text_rules, test_nfts_errors_quote_... |
| a batch with one bad rule | netns/test_nft_text_rules, test_one_bad_rule_... |
| a text over two fragments | netns/test_nft_text_rules, test_a_text_across_... |
| xt_string_info ends in a pointer | unit/test_nft_netlink, ..._160_bytes_... |
| remarks on stderr | unit/test_nft_netlink, test_a_listing_survives_... |
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from namespace_thread import thread_inside
from test_live_commands import POLICY as FULL_POLICY
from test_live_commands import Host

from lab import Lab, sip, unavailable_reason
from packets.phone import REGISTRAR, Phone
from sipfw.compare.drift import drift
from sipfw.compiler.pipeline import compile_policy
from sipfw.kernel.backend import Options
from sipfw.kernel.nft.backend import NftBackend
from sipfw.lower.nftables import lower
from sipfw.policy.load import Request, load, shipped_profiles
from sipfw.render.nft import nft_text

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

    from sipfw.compare.expected import Expectation

pytestmark = pytest.mark.netns

BACKEND = ("--backend", "nftables")
CARRIER = {"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::/64"]}
BANNED = "192.0.2.100"
# Every kind of peer, without the profile that it names first.
BODY = FULL_POLICY.partition("\n")[2]
INVITE = b"INVITE sip:100@198.51.100.1 SIP/2.0\r\nUser-Agent: PolycomVVX\r\n\r\n"


CRASHED = 70


@dataclass(frozen=True)
class NftHost(Host):
    """The lab's switch: nft as its operator has it, and sipfw from a thread in its namespace.

    A process for each apply takes most of a second; what the command does besides is the subject
    of test_live_nftables.
    """

    inside: ThreadPoolExecutor

    def must(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.ended(self.sipfw(*words), code)

    def ended(
        self, done: subprocess.CompletedProcess[str], code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        if done.returncode == CRASHED:
            pytest.fail(done.stderr)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def apply(self, **policy: Any) -> Expectation:
        """Apply a policy and return what is live now."""
        # JSON is YAML, without the anchors that a YAML writer may put in.
        text = json.dumps({"trusted_peers": [CARRIER], **policy})
        ruleset = compile_policy(load(Request(file=Path(self.policy(text)))))
        change = self.inside.submit(NftBackend().apply, ruleset, Options()).result()
        assert change.warnings == ()
        return change.expectation

    def drift(self, expectation: Expectation) -> list[str]:
        """Return what `sipfw verify` would name."""
        live = self.inside.submit(NftBackend().live, expectation).result()
        return [str(each) for each in drift(expectation, live)]

    def nft(self, *words: str, stdin: str = "") -> str:
        done = self.run("nft", *words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def objects(self, kind: str) -> list[dict[str, Any]]:
        listing = json.loads(self.nft("-j", "list", "table", "inet", "sipfw"))["nftables"]
        return [each[kind] for each in listing if kind in each]

    def set(self, name: str) -> dict[str, Any]:
        return next(each for each in self.objects("set") if each["name"] == name)

    def holds(self, name: str, address: str) -> bool:
        words = ("get", "element", "inet", "sipfw", name, f"{{ {address} }}")
        return self.run("nft", *words).returncode == 0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("attacker", "office")) as built:
        yield built


@pytest.fixture
def host(lab: Lab, tmp_path: Path) -> Iterator[NftHost]:
    with thread_inside(lab.switch.namespace) as inside:
        built = NftHost(lab.switch.namespace, tmp_path, inside)
        yield built
        built.nft("flush", "ruleset")
    lab.reset()


def test_foreign_tables_with_flags(host: NftHost) -> None:
    sleeping = "table ip theirs {\n\tflags dormant\n\tchain c {\n\t}\n}\n"
    host.nft("-f", "-", stdin=sleeping)
    host.apply()
    wanted = host.apply(bans={"duration": "2h"})
    assert host.drift(wanted) == []
    assert "flags dormant" in host.nft("list", "table", "ip", "theirs")


def put_to_sleep(host: NftHost) -> None:
    host.nft("-f", "-", stdin="table inet sipfw {\n\tflags dormant\n}\n")


def test_a_table_put_to_sleep_wakes_with_the_next_apply(host: NftHost) -> None:
    host.apply()
    put_to_sleep(host)
    assert "dormant" in host.nft("list", "table", "inet", "sipfw")
    host.apply()
    assert "dormant" not in host.nft("list", "table", "inet", "sipfw")


def test_a_table_put_to_sleep_is_drift(host: NftHost) -> None:
    wanted = host.apply()
    put_to_sleep(host)
    assert host.drift(wanted) == ["table inet sipfw: changed, dormant: no packet reaches sipfw"]


def test_every_rule_carries_its_mark(host: NftHost) -> None:
    host.apply()
    rules = host.objects("rule")
    assert len(rules) > 60
    assert [rule for rule in rules if not rule.get("comment", "").startswith("sipfw:")] == []


def test_an_unchanged_policy_makes_nothing_anew(host: NftHost) -> None:
    odd: dict[str, Any] = {
        "bans": {"duration": 3661},
        "learning": {"registered_ttl": 90061, "window": 59},
    }
    host.apply(**odd)

    def handles() -> list[tuple[str, int]]:
        searches = [rule for rule in host.objects("rule") if "_text_" in rule["chain"]]
        assert searches
        sets = [(item["name"], item["handle"]) for item in host.objects("set")]
        return [*sets, *((rule["chain"], rule["handle"]) for rule in searches)]

    before = handles()
    host.apply(**odd)
    assert handles() == before


def test_a_new_ban_length_and_size_are_in_force(host: NftHost) -> None:
    host.apply(bans={"duration": "1h", "size": 1000})
    host.nft("add element inet sipfw banned4 { 198.51.100.9 }")
    for duration, size in ((7200, 5000), (600, 10)):
        wanted = host.apply(bans={"duration": duration, "size": size})
        banned = host.set("banned4")
        assert (banned["timeout"], banned["size"]) == (duration, size)
        assert host.holds("banned4", "198.51.100.9")
        assert host.drift(wanted) == []


LIKE_BANNED = "type ipv4_addr\n\t\tsize 65536\n\t\tflags timeout\n\t\ttimeout 3600s"


@pytest.mark.parametrize(
    ("name", "definition"),
    [("banned4", LIKE_BANNED), ("trusted4", "type ipv4_addr")],
    ids=["dynamic", "interval"],
)
def test_a_set_with_other_flags_is_made_anew(host: NftHost, name: str, definition: str) -> None:
    text = f"table inet sipfw {{\n\tset {name} {{\n\t\t{definition}\n\t}}\n}}\n"
    host.nft("-f", "-", stdin=text)
    assert host.drift(host.apply()) == []


def hooks(host: NftHost) -> dict[str, tuple[str, int]]:
    bases = [chain for chain in host.objects("chain") if "hook" in chain]
    return {chain["name"]: (chain["hook"], chain["prio"]) for chain in bases}


@pytest.mark.parametrize(
    "hook",
    ["", "\t\ttype filter hook prerouting priority -299; policy accept;\n"],
    ids=["none", "priority"],
)
def test_a_hook_at_another_place_is_put_right(host: NftHost, hook: str) -> None:
    host.apply()
    wanted = hooks(host)
    (name,) = [name for name, place in wanted.items() if place == ("prerouting", -300)]
    host.nft(f"flush chain inet sipfw {name}; delete chain inet sipfw {name}")
    host.nft("-f", "-", stdin=f"table inet sipfw {{\n\tchain {name} {{\n{hook}\t}}\n}}\n")
    assert hooks(host) != wanted
    host.apply()
    assert hooks(host) == wanted


OVERLAPPING = [
    pytest.param(
        [
            {"name": "any", "signalling": ["0.0.0.0/0"], "allow_any": True, "source_ports": [5060]},
            {"name": "one", "signalling": ["203.0.113.10"], "source_ports": [5060]},
        ],
        id="ports",
    ),
    pytest.param(
        [
            {"name": "any", "signalling": ["0.0.0.0/0", "::/0"], "allow_any": True},
            {"name": "one", "signalling": ["203.0.113.10"], "tier": "small"},
        ],
        id="networks",
    ),
]


@pytest.mark.parametrize("peers", OVERLAPPING)
def test_networks_inside_one_another(host: NftHost, peers: list[dict[str, object]]) -> None:
    assert host.drift(host.apply(trusted_peers=peers)) == []


def test_neighbouring_networks_stay_two(host: NftHost) -> None:
    halves = ["203.0.113.0", "203.0.113.1", "203.0.113.2/31"]
    ports = {"name": "ports", "signalling": ["192.0.2.0/25", "192.0.2.128"], "source_ports": [5060]}
    wanted = host.apply(trusted_peers=[{"name": "halves", "signalling": halves}, ports])
    assert "auto-merge" not in host.nft("list", "table", "inet", "sipfw")
    assert host.drift(wanted) == []
    host.nft("delete element inet sipfw trusted-ports4 { 192.0.2.128 . udp . 5060 }")
    (found,) = host.drift(wanted)
    assert found.startswith("set element trusted-ports4 192.0.2.128 . udp . 5060: missing (")
    assert found.endswith(": trusted_peers)")


def test_a_full_ban_set_still_drops(host: NftHost, lab: Lab) -> None:
    per_source = {"rate": "1/minute", "burst": 5}
    only = {"recent": None, "hashlimit": None, "per_subnet": None, "per_source": per_source}
    host.apply(limits=only, bans={"size": 1})
    host.nft("add element inet sipfw banned4 { 198.51.100.9 }")
    sink = lab.switch.udp_sink(5060)
    lab.attacker.send_udp(lab.switch.address_for(lab.attacker), 5060, [INVITE] * 20)
    assert sink.settle() == 5
    assert not host.holds("banned4", lab.attacker.address4)


def test_a_failure_before_the_change_is_one_failure(host: NftHost, lab: Lab) -> None:
    host.apply()
    lab.switch.udp_sink(5060, REGISTRAR)
    phone = Phone(lab, lab.office, "ip", 5080)
    assert phone.ask() == 401
    host.apply(learning={"window": 120})
    assert phone.ask() == 401
    assert not host.holds("banned4", lab.office.address4)
    assert phone.login() == [401, 200]


def test_a_short_datagram_of_a_banned_source(host: NftHost, lab: Lab) -> None:
    host.apply()
    host.nft(f"add element inet sipfw banned4 {{ {BANNED} }}")
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.office)
    lab.office.send_udp(target, 5060, [b"", b"x", b"REGISTE", b"\r\n\r\n"])
    assert sink.settle() == 0


def test_the_longest_signature_is_taken(host: NftHost) -> None:
    texts = ["longest-" * 15 + end for end in ("abcdefg", "hijklmn")]
    assert {len(text) for text in texts} == {127}
    assert host.drift(host.apply(scanners={"user_agents": {"add": texts}})) == []
    assert host.nft("list", "table", "inet", "sipfw").count("scanner.ua.user-longest") == 4


def test_the_rendered_file_is_taken(host: NftHost, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    for profile in shipped_profiles():
        policy.write_text(f"profile: {profile}\n{BODY}")
        text = nft_text(lower(compile_policy(load(Request(file=policy)))))
        host.nft("-f", "-", stdin=text)


PEERS = [
    {"name": "sockets", "signalling": ["203.0.113.20", "2001:db8:7::1"], "source_ports": [5060]},
    {"name": "plain", "signalling": ["203.0.113.21"], "transports": ["tcp"]},
    {"name": "encrypted", "signalling": ["203.0.113.22"], "transports": ["tls"]},
]
MANY = [
    {"name": f"p{n}", "signalling": [f"198.51.100.{n}"], "source_ports": [5060, 5061]}
    for n in range(1, 20)
]


@pytest.mark.parametrize("more", [[], MANY], ids=["written out", "in sets"])
def test_nft_reads_its_own_listing(host: NftHost, more: list[dict[str, object]]) -> None:
    """A way back loads it; no text searches, which it cannot read in any case."""
    host.apply(
        signalling={"tcp": [5060, 5070], "tls": [5061], "ws": [8088]},
        trusted_peers=[CARRIER, *PEERS, *more],
        scanners={"signatures": False},
        learning={"enabled": False},
        bans={"probation": False},
    )
    listing = host.nft("list", "table", "inet", "sipfw")
    assert listing.count("ct original proto-dst") > 10
    assert "xt match" not in listing
    host.nft("-c", "-f", "-", stdin=f"delete table inet sipfw\n{listing}")


def without_permission_to_probe(host: NftHost, *words: str) -> str:
    """Run sipfw where the probe of the string match must fail; nftables itself works."""
    command = [sys.executable, "-m", "sipfw", words[0], "--root", str(host.root), *words[1:]]
    done = host.run("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", *command)
    return host.ended(done).stderr


def apply_without_searches(host: NftHost, *words: str) -> str:
    return without_permission_to_probe(host, "apply", *BACKEND, "--policy", host.policy(), *words)


WARNING = "no text searches on this kernel (no permission"


def test_without_text_searches_the_rest_stands(host: NftHost, lab: Lab) -> None:
    said = apply_without_searches(host)
    assert WARNING in said
    assert "scanner signatures are left out" in said
    assert not [chain for chain in host.objects("chain") if "_text_" in chain["name"]]
    host.must("verify")
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.office)
    messages = [
        sip.request(method, source=BANNED, destination=target, user_agent="friendly-scanner")
        for method in ("OPTIONS", "REGISTER")
    ]
    lab.office.send_udp(target, 5060, [b"garbage of a stranger", *messages])
    assert [each.payload for each in sink.wait(1)] == messages[1:]
    assert sink.settle() == 1
    # The searches come back with the kernel's ability, and go with it.
    host.apply()
    assert [chain for chain in host.objects("chain") if "_text_" in chain["name"]]
    apply_without_searches(host)
    assert not [chain for chain in host.objects("chain") if "_text_" in chain["name"]]


def test_a_dry_run_tells_of_missing_text_searches(host: NftHost) -> None:
    assert WARNING in apply_without_searches(host, "--dry-run")


def test_without_text_searches_logins_do_not_ban(host: NftHost, lab: Lab) -> None:
    assert WARNING in apply_without_searches(host, "--set", "limits.recent=null")
    lab.switch.udp_sink(5060, REGISTRAR)
    for port in range(5080, 5092):
        Phone(lab, lab.office, "ip", port).login()
    # Not their answers: a banned source may still try a REGISTER now and then.
    assert not host.holds("banned4", lab.office.address4)
