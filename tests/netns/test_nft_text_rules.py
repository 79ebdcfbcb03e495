"""Text rules with the real kernel and real packets: what they find, and that no moment is open."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from lab import Family, Lab, unavailable_reason
from sipfw.errors import BackendError
from sipfw.host.runner import Completed, SubprocessRunner
from sipfw.kernel.netlink import socket as nft_netlink
from sipfw.kernel.netlink.rules import (
    TextRule,
    fill_chain,
    fill_chains,
    read_chain,
    text_match_available,
)
from sipfw.kernel.nft.tool import ListedChain, NftTool, live_from_json
from sipfw.ruleset.rule import Goto, Jump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

pytestmark = pytest.mark.netns

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
HEADERS = {"ip": 28, "ip6": 48}
UA = b"REGISTER sip:x SIP/2.0\r\nUser-Agent: Friendly-SCANNER\r\n\r\n"
GOOD = b"REGISTER sip:x SIP/2.0\r\nUser-Agent: Polycom\r\n\r\n"
both_families = pytest.mark.parametrize("family", ["ip", "ip6"])
# `aside` counts what comes back from the text chains; defragmentation needs a ct expression.
TABLE = """
add table inet sipfw
delete table inet sipfw
table inet sipfw {
    chain text4 {
    }
    chain text6 {
    }
    chain ban {
        counter drop comment "sipfw:ban#00000001"
    }
    chain note {
        counter
    }
    chain pre {
        type filter hook prerouting priority -300; policy accept;
        meta l4proto { udp, tcp } th dport 5060 counter comment "sipfw:all#00000002"
        meta nfproto ipv4 th dport 5060 jump text4
        meta nfproto ipv6 th dport 5060 jump text6
        th dport 5060 counter comment "sipfw:aside#00000003"
    }
    chain tracked {
        type filter hook input priority 0; policy accept;
        ct state invalid drop
    }
}
"""


def text_rule(number: int = 1, pattern: bytes = b"friendly-scanner", **more: Any) -> TextRule:
    fields: dict[str, Any] = {"from_offset": 28, "verdict": "drop", **more}
    return TextRule(f"sipfw:scanner.ua.{number}#0123abcd", pattern, **fields)


def many(count: int, *last: TextRule) -> list[TextRule]:
    return [*(text_rule(n, b"nothing-%d" % n) for n in range(count)), *last]


@dataclass
class Wrapped:
    """A runner that puts words before every command."""

    words: Sequence[str]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        return SubprocessRunner().run([*self.words, *argv], stdin=stdin, timeout=timeout, env=env)


@dataclass
class Firewalled:
    """The lab with our table on the switch, and ways to look at it."""

    lab: Lab
    tool: NftTool

    def inside(self, job: Callable[[], T]) -> T:
        """Run a job in the switch's namespace: netlink sockets belong to their thread's."""
        with ThreadPoolExecutor(1, initializer=self._enter) as pool:
            return pool.submit(job).result()

    def _enter(self) -> None:
        with Path("/run/netns", self.lab.switch.namespace).open("rb") as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            # Only this thread moves; os.setns came with Python 3.12.
            assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0, os.strerror(
                ctypes.get_errno()
            )

    def fill(self, family: Family, *rules: TextRule) -> None:
        placed = [replace(rule, from_offset=HEADERS[family]) for rule in rules]
        self.inside(lambda: fill_chain(f"text{family.removeprefix('ip') or 4}", placed))

    def chain(self, name: str) -> ListedChain:
        return live_from_json(self.tool.list_table() or []).chains[name]

    def packets(self, rule_id: str) -> int:
        rules = [rule for name in ("pre", "ban") for rule in self.chain(name).rules]
        return next(rule.packets for rule in rules if rule.rule_id == rule_id)

    def target(self, family: Family) -> str:
        return self.lab.switch.address_for(self.lab.attacker, family)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("attacker",)) as built:
        yield built


@pytest.fixture
def switch(lab: Lab) -> Iterator[Firewalled]:
    tool = NftTool(Wrapped(["ip", "netns", "exec", lab.switch.namespace]))
    tool.apply(TABLE)
    yield Firewalled(lab, tool)
    lab.reset()


@both_families
def test_a_user_agent_is_found_in_any_case_of_letters(switch: Firewalled, family: Family) -> None:
    switch.fill(family, text_rule(pattern=b"fRIENDLY-scanner"))
    sink = switch.lab.switch.udp_sink(5060)
    switch.lab.attacker.send_udp(switch.target(family), 5060, [UA, GOOD, UA.upper(), UA.lower()])
    assert [each.payload for each in sink.wait(1)] == [GOOD]
    assert sink.settle() == 1
    assert switch.packets("all") == 4
    assert switch.chain("text6" if family == "ip6" else "text4").rules[0].packets == 3


def test_a_pattern_before_the_offset_is_not_searched(switch: Firewalled) -> None:
    sink = switch.lab.switch.udp_sink(5060)
    for offset, delivered in ((28, 0), (29, 1)):
        rule = text_rule(pattern=UA[:9], from_offset=offset)
        switch.inside(lambda rule=rule: fill_chain("text4", [rule]))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        switch.lab.attacker.send_udp(switch.target("ip"), 5060, UA)
        assert sink.settle() == delivered


@both_families
def test_a_segment_with_the_text_never_arrives(switch: Firewalled, family: Family) -> None:
    switch.fill(family, text_rule())
    sink = switch.lab.switch.tcp_sink(5060)
    connection = switch.lab.attacker.tcp_connect(switch.target(family), 5060)
    connection.send(GOOD)
    assert sink.wait(1)[0].payload == GOOD
    connection.send(UA)
    assert sink.settle() == 1
    assert switch.chain("text6" if family == "ip6" else "text4").rules[0].packets >= 1


@both_families
def test_a_text_across_two_fragments_is_found(switch: Firewalled, family: Family) -> None:
    switch.fill(family, text_rule())
    sink = switch.lab.switch.udp_sink(5060)
    target, attacker = switch.target(family), switch.lab.attacker
    for payload, delivered in ((b"x" * 3000, 1), (b"x" * 1390 + b"Friendly-Scanner", 1)):
        whole = payload.ljust(3000, b"y")
        assert attacker.send_fragments(target, 5070, 5060, whole, [1400, 2400]) == 3
        assert sink.settle() == delivered
    assert switch.packets("all") == 2


def test_no_packet_slips_through_while_chains_are_replaced(switch: Firewalled) -> None:
    first, second = many(30, text_rule()), [text_rule(2)]
    switch.inside(lambda: fill_chains({"text4": first, "text6": second}))
    sink = switch.lab.switch.udp_sink(5060)
    sources = [f"198.51.100.{n % 60 + 2}" for n in range(20_000)]
    swaps = 0
    with (
        ThreadPoolExecutor(1) as sender,
        ThreadPoolExecutor(1, initializer=switch._enter) as filler,
    ):
        flood = sender.submit(
            switch.lab.attacker.spoof_udp, sources, switch.target("ip"), 5070, 5060, UA, pps=15_000
        )
        while not flood.done():
            rules = second if swaps % 2 else first
            filler.submit(fill_chains, {"text4": rules, "text6": rules}).result()
            swaps += 1
        assert flood.result() == 20_000
    assert sink.settle() == 0
    assert switch.packets("all") == 20_000
    assert switch.packets("aside") == 0
    assert swaps > 20


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (text_rule(9, verdict=Jump("nowhere")), "rule 3 of 4 (sipfw:scanner.ua.9#0123abcd)"),
        (text_rule(9, verdict=Goto("text4")), "comes back here"),
        (text_rule(9, verdict=Jump("pre")), "base chain"),
    ],
)
def test_one_bad_rule_changes_nothing_in_any_chain(
    switch: Firewalled, bad: TextRule, says: str
) -> None:
    old = {"text4": many(50), "text6": many(5)}
    switch.inside(lambda: fill_chains(old))
    before = switch.tool.list_table()
    new = [text_rule(), text_rule(2), bad, text_rule(4)]
    with pytest.raises(BackendError) as caught:
        switch.inside(lambda: fill_chains({"text6": [text_rule()], "text4": new}))
    assert says in str(caught.value)
    assert switch.tool.list_table() == before
    assert switch.inside(lambda: read_chain("text4")) == tuple(old["text4"])


@pytest.mark.parametrize(
    ("chain", "table", "says"),
    [("none", "sipfw", "there is no such chain"), ("text4", "x", "there is no table inet x")],
)
def test_a_missing_place_is_named(switch: Firewalled, chain: str, table: str, says: str) -> None:
    with pytest.raises(BackendError, match=says):
        switch.inside(lambda: fill_chain(chain, [text_rule()], table=table))


def test_the_listing_shows_comments_and_carried_counters(switch: Firewalled) -> None:
    rules = [text_rule(1, packets=7, bytes=900), text_rule(2, verdict="accept")]
    switch.fill("ip", *rules)
    sink = switch.lab.switch.udp_sink(5060)
    switch.lab.attacker.send_udp(switch.target("ip"), 5060, [UA] * 3)
    assert sink.settle() == 0
    first, second = switch.chain("text4").rules
    assert (first.rule_id, first.digest) == ("scanner.ua.1", "0123abcd")
    assert (first.packets, first.bytes) == (10, 900 + 3 * (28 + len(UA)))
    assert (second.rule_id, second.packets) == ("scanner.ua.2", 0)
    assert '"drop":null' in first.line
    assert "10" not in first.line
    shown = switch.lab.switch.run(["nft", "list", "chain", "inet", "sipfw", "text4"]).stdout
    assert 'packets 10 bytes 1152 drop comment "sipfw:scanner.ua.1#0123abcd"' in shown
    carried = switch.inside(lambda: read_chain("text4"))
    assert carried == (replace(rules[0], packets=10, bytes=1152), rules[1])
    switch.inside(lambda: fill_chain("text4", carried))
    assert switch.inside(lambda: read_chain("text4")) == carried


@both_families
def test_jump_goto_return_and_accept_lead_where_they_say(
    switch: Firewalled, family: Family
) -> None:
    switch.fill(
        family,
        text_rule(1, b"to-return", verdict="return"),
        text_rule(2, b"to-accept", verdict="accept"),
        text_rule(3, b"to-goto", verdict=Goto("note")),
        text_rule(4, b"to-jump", verdict=Jump("note")),
        text_rule(5, b"to-", verdict=Goto("ban")),
    )
    sink = switch.lab.switch.udp_sink(5060)
    words = [b"to-return", b"to-accept", b"to-goto", b"to-jump"]
    switch.lab.attacker.send_udp(switch.target(family), 5060, words)
    # The end of `note` is the end of the text chain after goto, but not after jump.
    assert {each.payload for each in sink.wait(3)} == {b"to-return", b"to-accept", b"to-goto"}
    assert sink.settle() == 3
    chain = switch.chain("text6" if family == "ip6" else "text4")
    assert [rule.packets for rule in chain.rules] == [1, 1, 1, 1, 1]
    assert (switch.packets("ban"), switch.packets("aside")) == (1, 2)


def test_a_hundred_rules_are_quick_and_thousands_fit_in_one_batch(switch: Firewalled) -> None:
    started = time.monotonic()
    switch.fill("ip", *many(100))
    # About 0.01 s on a quiet machine.
    assert time.monotonic() - started < 1.0
    rules = many(3000)
    switch.inside(lambda: fill_chain("text4", rules))
    assert switch.inside(lambda: read_chain("text4")) == tuple(rules)
    switch.inside(lambda: fill_chain("text4", []))
    assert switch.inside(lambda: read_chain("text4")) == ()


def test_lost_answers_are_asked_for_again(
    switch: Firewalled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receive buffer for one answer: the kernel itself reports ENOBUFS."""
    opened: list[int] = []
    real = nft_netlink._open

    def counted(send_room: int, receive_room: int) -> Any:
        opened.append(receive_room)
        return real(send_room, receive_room)

    monkeypatch.setattr(nft_netlink, "_open", counted)
    monkeypatch.setattr(nft_netlink, "_ANSWER_COST", 1)
    monkeypatch.setattr(nft_netlink, "_SMALLEST_BUFFER", 2048)
    switch.inside(lambda: fill_chain("text4", many(50)))
    assert len(opened) > 1
    assert len(switch.chain("text4").rules) == 50


def test_a_chain_with_other_rules_is_not_read_as_text_rules(switch: Firewalled) -> None:
    with pytest.raises(BackendError, match="chain ban: rule 1 is not a text rule"):
        switch.inside(lambda: read_chain("ban"))


def test_nfts_errors_quote_our_line_and_a_missing_table_is_none(switch: Firewalled) -> None:
    text = "table inet sipfw {\n\tchain x {\n\t\tudp dport 70000 drop\n\t}\n}\n"
    for feed in (switch.tool.check, switch.tool.apply):
        with pytest.raises(BackendError, match="line 3: Service out of range: udp dport 70000"):
            feed(text)
    with pytest.raises(BackendError, match=r"line 2: No such file .*: add rule inet sipfw none"):
        switch.tool.apply("add chain inet sipfw x\nadd rule inet sipfw none drop\n")
    assert "x" not in live_from_json(switch.tool.list_table() or []).chains
    switch.tool.check("delete table inet sipfw\n")
    assert switch.tool.list_table() is not None
    switch.tool.apply("delete table inet sipfw\n")
    assert switch.tool.list_table() is None
    assert switch.tool.version() >= (1, 0)


def test_the_text_match_is_probed_without_a_trace(switch: Firewalled) -> None:
    before = Path("/proc/self/ns/net").readlink(), switch.tool.list_table()
    inside = Wrapped(["ip", "netns", "exec", switch.lab.switch.namespace])
    found = text_match_available(inside)
    assert (found.ok, found.reason) == (True, "")
    assert (Path("/proc/self/ns/net").readlink(), switch.tool.list_table()) == before


@pytest.mark.parametrize("capability", ["sys_admin", "net_admin"])
def test_the_probe_knows_missing_permission(lab: Lab, capability: str) -> None:
    del lab
    words = ["setpriv", f"--bounding-set=-{capability}", "--inh-caps=-all"]
    found = text_match_available(Wrapped(words))
    assert not found.ok
    assert "no permission" in found.reason


def test_a_probe_that_dies_says_how(lab: Lab) -> None:
    del lab
    code = "import sys; sys.exit('out of order')"
    found = text_match_available(Wrapped([sys.executable, "-c", code]))
    assert (found.ok, found.reason) == (False, "the probe failed: out of order")
