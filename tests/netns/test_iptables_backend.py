"""The live iptables backend: makes what was asked and touches nothing that is not ours."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from iptables_bench import (
    FOREIGN,
    GUIDE_SCRIPT,
    PLAN,
    Bench,
    foreign_only,
    rule,
    sets,
    table,
    with_extra,
)
from scratch_namespace import NamespaceRunner, scratch_namespace

from sipfw.errors import BackendError
from sipfw.host.runner import Completed
from sipfw.kernel.xtables.ipset import Ipsets
from sipfw.kernel.xtables.legacy import IptablesBackend
from sipfw.kernel.xtables.save_text import parse_save
from sipfw.lower.xtables import Family, XPlan, XSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

pytestmark = pytest.mark.netns


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    lock = str(tmp_path / "xtables.lock")
    monkeypatch.setenv("XTABLES_LOCKFILE", lock)
    with scratch_namespace("backend", lock) as runner:
        yield Bench(runner, IptablesBackend(runner))


def test_apply_makes_rules_jumps_and_sets(bench: Bench) -> None:
    result = bench.backend.apply(PLAN)
    assert result.tables == ("ip raw", "ip6 raw")
    assert result.notes == ()
    live = bench.backend.read()
    assert {chain.name for _, _, chain in live.our_chains()} == {
        "SIP",
        "SIP_TRUSTED",
        "SIP_SCANNER_BLOCK",
    }
    assert [(j.family, j.hook, j.position, j.rule.target) for j in live.our_jumps()] == [
        (Family.IP, "PREROUTING", 1, "SIP"),
        (Family.IP6, "PREROUTING", 1, "SIP"),
    ]
    assert {item.name: item.entries for item in live.sets}["sipfw-peers4"] == 3


def test_apply_twice_gives_the_same_listing(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    first = bench.state()
    bench.backend.apply(PLAN)
    assert bench.state() == first


def test_foreign_rules_and_counters_survive_apply_reapply_and_remove(bench: Bench) -> None:
    bench.load(FOREIGN)
    before = bench.saved()
    bench.backend.apply(PLAN)
    assert foreign_only(bench.saved()) == before
    bench.backend.apply(with_extra(rule("more")))
    assert foreign_only(bench.saved()) == before
    bench.backend.remove()
    assert bench.saved() == before
    assert bench.set_lines() == []
    assert not any(line.startswith("-A") for line in bench.saved(Family.IP6, counters=False))


def test_new_jump_goes_first_and_an_existing_one_stays(bench: Bench) -> None:
    bench.load(FOREIGN)
    bench.backend.apply(PLAN)
    assert bench.backend.read().our_jumps()[0].position == 1
    bench.run.ok(
        "iptables-legacy", "-t", "raw", "-I", "PREROUTING", "-s", "192.0.2.1", "-j", "ACCEPT"
    )
    bench.backend.apply(with_extra(rule("more")))
    jump = bench.backend.read().our_jumps()[0]
    assert jump.position == 2
    assert [item.line for item in jump.before] == ["-A PREROUTING -s 192.0.2.1/32 -j ACCEPT"]
    bench.backend.apply(PLAN, reposition=True)
    assert bench.backend.read().our_jumps()[0].position == 1


def test_doubled_and_stale_jumps_are_cleaned(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    stale = ["-m", "comment", "--comment", "sipfw:old#1", "-j", "SIP"]
    bench.run.ok("iptables-legacy", "-t", "raw", "-A", "PREROUTING", *stale)
    bench.run.ok("iptables-legacy", "-t", "raw", "-A", "OUTPUT", *stale)
    bench.backend.apply(PLAN)
    assert len([j for j in bench.backend.read().our_jumps() if j.family is Family.IP]) == 1


def test_tables_and_chains_that_the_plan_dropped_are_emptied(bench: Bench) -> None:
    bench.backend.apply(XPlan(sets(), (*PLAN.tables, table(Family.IP, name="filter"))))
    small = replace(PLAN.tables[0], chains=PLAN.tables[0].chains[:2])
    bench.backend.apply(XPlan(PLAN.sets, (small, PLAN.tables[1])))
    found = {(f, t, c.name) for f, t, c in bench.backend.read().our_chains()}
    assert (Family.IP, "raw", "SIP_SCANNER_BLOCK") not in found
    assert not any(name == "filter" for _, name, _ in found)
    assert not any("filter" in j.table for j in bench.backend.read().our_jumps())


def test_foreign_rules_in_or_to_our_chains_keep_the_chain_on_remove(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    bench.run.ok("iptables-legacy", "-t", "raw", "-A", "SIP", "-s", "192.0.2.7", "-j", "ACCEPT")
    bench.run.ok("iptables-legacy", "-t", "raw", "-A", "OUTPUT", "-j", "SIP_SCANNER_BLOCK")
    result = bench.backend.remove()
    assert [line for line in bench.saved(counters=False) if line.startswith("-A")] == [
        "-A OUTPUT -j SIP_SCANNER_BLOCK",
        "-A SIP -s 192.0.2.7/32 -j ACCEPT",
    ]
    assert "chain SIP kept, it holds 1 foreign rules" in result.notes[0]
    assert "SIP_SCANNER_BLOCK kept empty" in result.notes[1]


def test_counters_are_carried_over_by_rule_id(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    listing = bench.run.ok("iptables-legacy-save", "-c", "-t", "raw").splitlines()
    counted = [
        line.replace("[0:0]", f"[{index}:{index * 100}]") if line.startswith("[") else line
        for index, line in enumerate(listing)
    ]
    bench.load("\n".join(counted) + "\n")
    expected = rules_with_counters(bench)
    assert len(expected) == 5
    bench.backend.apply(with_extra(rule("scanner.more"), family=Family.IP))
    after = rules_with_counters(bench)
    assert after.pop("scanner.more") == (0, 0)
    assert after == expected


def rules_with_counters(bench: Bench) -> dict[str | None, tuple[int, int]]:
    tables = parse_save(bench.run.ok("iptables-legacy-save", "-c", "-t", "raw"))
    return {r.rule_id: (r.packets, r.bytes) for r in tables[0].rules}


def test_foreign_chain_of_our_name_is_refused(bench: Bench) -> None:
    for command in ("-N SIP", "-A SIP -s 192.0.2.3 -j ACCEPT"):
        bench.run.ok("iptables-legacy", "-t", "raw", *command.split())
    before = bench.state()
    with pytest.raises(BackendError, match="not made by sipfw: chain ip raw SIP") as info:
        bench.backend.apply(PLAN)
    assert "--adopt" in str(info.value)
    assert bench.state() == (before[0], bench.saved(Family.IP6), before[2])
    bench.backend.apply(PLAN, adopt=True)
    assert "192.0.2.3" not in "\n".join(bench.saved())


def test_empty_foreign_chain_counts_only_when_something_jumps_to_it(bench: Bench) -> None:
    bench.run.ok("iptables-legacy", "-t", "raw", "-N", "SIP")
    bench.backend.apply(PLAN)
    bench.backend.remove()
    bench.run.ok("iptables-legacy", "-t", "raw", "-N", "SIP")
    bench.run.ok("iptables-legacy", "-t", "raw", "-A", "OUTPUT", "-j", "SIP")
    with pytest.raises(BackendError, match="ip raw SIP"):
        bench.backend.apply(PLAN)


def test_guide_script_in_filter_is_refused_and_adopted(bench: Bench) -> None:
    bench.load(GUIDE_SCRIPT)
    before = bench.state()
    with pytest.raises(BackendError, match="not made by sipfw: chain ip filter SIP_") as info:
        bench.backend.apply(PLAN)
    assert str(info.value).count("chain ip filter") == 3
    assert "--adopt" in str(info.value)
    assert bench.state() == before
    bench.backend.apply(PLAN, adopt=True)
    lines = bench.saved(counters=False)
    kept = lines[lines.index("*filter") :]
    kept = kept[: kept.index("COMMIT")]
    assert [line for line in kept if line.startswith("-A")] == [
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
        "-A INPUT -j DROP",
    ]
    assert not any("SIP" in line for line in kept)
    assert len(bench.backend.read().our_chains()) == 6


def test_dynamic_set_keeps_what_it_learned(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    bench.run.ok("ipset", "add", "sipfw-banned4", "198.51.100.66", "timeout", "0")
    bench.backend.apply(PLAN)
    assert "add sipfw-banned4 198.51.100.66 timeout 0" in bench.set_lines()
    header = ("family", "inet", "maxelem", "9", "counters")
    changed = XSet("sipfw-banned4", "hash:ip", header, (), static=False)
    result = bench.backend.apply(replace(PLAN, sets=(*PLAN.sets[:2], changed)))
    assert result.notes == ("set sipfw-banned4: new options, 1 elements kept",)
    assert "add sipfw-banned4 198.51.100.66 packets 0 bytes 0" in bench.set_lines()


def test_obsolete_sets_go_and_foreign_sets_stay(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    bench.run.ok("ipset", "create", "theirs", "hash:ip")
    bench.backend.apply(replace(PLAN, sets=PLAN.sets[:2]))
    names = {item.name for item in Ipsets(bench.run).list_sets()}
    assert names == {"sipfw-peers4", "sipfw-peers6", "theirs"}


def test_a_hundred_thousand_elements_load_quickly(bench: Bench) -> None:
    elements = tuple(f"198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(100_000))
    header = ("family", "inet", "maxelem", "131072")
    big = XSet("sipfw-big", "hash:net", header, elements, static=True)
    ipsets = Ipsets(bench.run)
    start = time.monotonic()
    ipsets.load([big])
    snapshot = ipsets.snapshot(["sipfw-big"])
    ipsets.load([replace(big, elements=("192.0.2.1",))])
    assert ipsets.list_sets()[0].entries == 1
    ipsets.restore(snapshot)
    assert ipsets.list_sets()[0].entries == 100_000
    assert time.monotonic() - start < 10


def test_probe_finds_and_tries_extensions_outside_the_live_rules(bench: Bench) -> None:
    bench.load(FOREIGN)
    before = bench.state()
    names = (
        "table",
        "string",
        "hashlimit",
        "recent",
        "connlimit",
        "set",
        "multiport",
        "limit",
        "conntrack",
        "length",
        "mark",
        "addrtype",
        "udp",
        "tcp",
        "CT",
        "SET",
        "LOG",
        "NFLOG",
        "MARK",
        "REJECT",
        "nonsense",
    )
    features = bench.backend.probe(names)
    assert len(features) == 2 * len(names)
    wrong = [f for f in features if (f.found and f.accepted) == (f.name == "nonsense")]
    assert wrong == []
    assert bench.state() == before


class WithoutIpv6(NamespaceRunner):
    """A kernel booted with ipv6.disable=1, as far as ip6tables can tell."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        if argv[0].startswith("ip6tables"):
            if "-t" not in argv:
                return Completed(0, "", "")
            return Completed(1, "", "Cannot initialize: Address family not supported by protocol")
        return super().run(argv, stdin=stdin, timeout=timeout, env=env)


def test_kernel_without_ipv6_gets_the_ipv4_rules_and_a_note(bench: Bench) -> None:
    result = IptablesBackend(WithoutIpv6(bench.run.name, bench.run.lock_file)).apply(PLAN)
    assert result.tables == ("ip raw",)
    assert "no IPv6" in result.notes[0]
    assert "sipfw-peers6" not in "\n".join(bench.set_lines())
    assert not any("SIP" in line for line in bench.saved(Family.IP6))
