"""What logging does to a ruleset: a log before each drop of the named layers, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.expected import expect
from sipfw.compiler.logged import log_prefixes
from sipfw.compiler.pipeline import compile_policy
from sipfw.compiler.without_string_match import without_string_match
from sipfw.diagnostics import Severity
from sipfw.kernel.xtables.legacy import _extensions
from sipfw.kernel.xtables.libiptc.limits import plan_faults
from sipfw.lower import iptables, nftables
from sipfw.lower.iptables import all_rules
from sipfw.lower.xtables import Family as XFamily
from sipfw.policy.load import Request, load, shipped_profiles
from sipfw.policy.logging import LoggedLayer
from sipfw.policy.signatures import shipped_signatures
from sipfw.render.script import probe_lines
from sipfw.ruleset.codec import DecodeError, decode, encode
from sipfw.ruleset.lint import back_from_text, lint
from sipfw.ruleset.match import RateWithin
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority, Ruleset
from sipfw.ruleset.rule import Action, Drop, Goto, Log, Origin, Reset, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.compare.expected import Expectation

LAYERS = ", ".join(LoggedLayer)
# Everything that may bring a rule that drops, and texts of an operator who means harm.
POLICY = """\
admin: {networks: [192.0.2.0/28]}
media: {sources: expected}
signalling: {udp: [5060], tcp: [5060], tls: [5061]}
trusted_peers:
  - {name: plain, signalling: [203.0.113.10, '2001:db8:5::/64'], tier: premium}
scanners:
  user_agents:
    add: ['EvilDialer "; flush ruleset #', "EvilDialer $(reboot) `id` %s", "evil  dialer -- | '"]
tiers: {enforce: true}
limits: {methods: {register: {rate: 1/second, burst: 5}, other: {rate: 1/second, burst: 5}}}
"""
# A reset is a drop with an answer.
DROPS = Drop | Reset
PREFIX = re.compile(r"sipfw [a-z0-9.~-]{1,22} ")


def compiled(folder: Path, more: str = "", profile: str = "default") -> Ruleset:
    file = folder / "policy.yaml"
    file.write_text(POLICY + more, encoding="utf-8")
    return compile_policy(load(Request(file, profile)))


def logging(layers: str = LAYERS, more: str = "") -> str:
    return f"logging: {{layers: [{layers}]{more}}}\n"


def rules(ruleset: Ruleset) -> Iterator[tuple[Chain, Rule]]:
    return ((chain, rule) for chain in ruleset.chains for rule in chain.rules)


def logs(ruleset: Ruleset) -> dict[str, Log]:
    return {r.id: r.action for _, r in rules(ruleset) if isinstance(r.action, Log)}


def drops(ruleset: Ruleset) -> dict[str, Layer]:
    return {r.id: c.layer for c, r in rules(ruleset) if isinstance(r.action, DROPS)}


@pytest.mark.parametrize("profile", shipped_profiles())
def test_off_by_default(profile: str, tmp_path: Path) -> None:
    assert logs(compiled(tmp_path, profile=profile)) == {}


@pytest.mark.parametrize("profile", shipped_profiles())
def test_every_drop_of_every_layer_can_be_logged(profile: str, tmp_path: Path) -> None:
    plain = compiled(tmp_path, profile=profile)
    full = compiled(tmp_path, logging(), profile)
    assert lint(full) == []
    assert list(back_from_text(full)) == []
    assert drops(full) == {f"log.{name}.drop": layer for name, layer in drops(plain).items()}
    assert set(logs(full)) == {f"log.{name}.note" for name in drops(plain)}


@pytest.mark.parametrize("profile", shipped_profiles())
def test_every_other_rule_stays_as_it_is(profile: str, tmp_path: Path) -> None:
    plain = {r.id: (c.name, r) for c, r in rules(compiled(tmp_path, profile=profile))}
    full = {r.id: (c.name, r) for c, r in rules(compiled(tmp_path, logging(), profile))}
    for name, (chain, rule) in plain.items():
        assert full[name][0] == chain
        # Its matches stay where they are: they are asked once, before the log.
        assert replace(full[name][1], action=rule.action, origin=rule.origin) == rule
        if isinstance(rule.action, DROPS):
            assert full[f"log.{name}.drop"][1].action == rule.action
        else:
            assert full[name][1].action == rule.action


def test_a_log_chain_asks_nothing_but_its_own_bucket(tmp_path: Path) -> None:
    full = compiled(tmp_path, logging("banned", ", rate: 3/hour, burst: 2"))
    rule = next(rule for _, rule in rules(full) if rule.id == "banned.drop")
    assert isinstance(rule.action, Goto)
    chain = full.chain(rule.action.chain)
    note, drop = chain.rules
    assert (chain.layer, chain.priority, chain.base) == (Layer.BANNED, Priority.RAW, None)
    (bucket,) = note.matches
    assert isinstance(bucket, RateWithin)
    assert (str(bucket.rate), bucket.burst) == ("3/hour", 2)
    assert (note.action, drop.action) == (Log("sipfw banned.drop "), Drop())
    assert (drop.matches, drop.summary) == ((), rule.summary)
    assert note.summary == "logged as 'sipfw banned.drop', at most 3/hour"


def test_only_the_named_layers(tmp_path: Path) -> None:
    full = compiled(tmp_path, logging("trusted, learned"))
    assert set(logs(full)) == {
        "log.trusted.tier-premium.note",
        "log.learned.moved.note",
        "log.learned.ceiling.note",
        "log.tools.port.note",
        "log.tools.unchallenged.note",
        "log.tools.new-port.note",
        "log.asked.moved.note",
        "log.asked.forged.note",
        "log.registered.ceiling.note",
        "log.login.shut.note",
        "log.login.no-register.note",
        "log.asked.ceiling.note",
    }


def test_a_reset_is_logged_and_stays_a_reset(tmp_path: Path) -> None:
    full = compiled(tmp_path, logging("rate-limit"))
    rule = next(rule for _, rule in rules(full) if rule.id == "stream-data.answer")
    assert isinstance(rule.action, Goto)
    chain = full.chain(rule.action.chain)
    note, reset = chain.rules
    assert (chain.layer, chain.priority) == (Layer.RATE, Priority.FILTER)
    assert (note.action, reset.action) == (Log("sipfw stream-data.answer "), Reset())
    lowered = iptables.lower(full)
    (first, second) = [
        rule
        for table, name, rule in all_rules(lowered)
        if name == chain.name and table.family is XFamily.IP
    ]
    assert first.target is not None
    assert (first.target.name, first.protocol) == ("LOG", None)
    assert second.target is not None
    assert (second.target.name, second.protocol) == ("REJECT", "tcp")


def test_a_reader_of_nflog_is_told_its_group(tmp_path: Path) -> None:
    groups = {log.group for log in logs(compiled(tmp_path, logging(more=", to: nflog"))).values()}
    assert groups == {5}


def test_a_log_keeps_its_chain_and_line_when_other_rules_change(tmp_path: Path) -> None:
    one = compiled(tmp_path, logging("scanner-block"))
    other = compiled(tmp_path, logging("scanner-block") + "bans: {enabled: false}\n")
    comments = [{rule.comment for _, _, rule in all_rules(iptables.lower(r))} for r in (one, other)]
    assert not {c for c in comments[0] ^ comments[1] if "log." in c}


def test_chains_of_a_layer_stay_together(tmp_path: Path) -> None:
    """`verify` writes a heading wherever the layer changes."""

    def headings(ruleset: Ruleset) -> list[Layer]:
        layers = [chain.layer for chain in ruleset.chains]
        return [layer for place, layer in enumerate(layers) if layers[:place][-1:] != [layer]]

    assert headings(compiled(tmp_path, logging())) == headings(compiled(tmp_path))


def test_prefixes_are_short_plain_and_unlike(tmp_path: Path) -> None:
    found = [log.prefix for log in logs(compiled(tmp_path, logging())).values()]
    assert len(found) > 40
    assert len(set(found)) == len(found)
    assert [prefix for prefix in found if not PREFIX.fullmatch(prefix)] == []
    assert any("~" in prefix for prefix in found)


def test_every_shipped_signature_has_a_prefix_of_its_own() -> None:
    ids = [f"scanner.{kind}.{s.id}" for s in shipped_signatures() for kind in ("ua", "line")]
    assert len(set(log_prefixes(ids).values())) == len(ids)


def test_a_prefix_tells_a_whole_id_where_there_is_room() -> None:
    assert log_prefixes(["a" * 22, "a" * 23]) == {
        "a" * 22: f"sipfw {'a' * 22} ",
        "a" * 23: f"sipfw {'a' * 15}~897d3e ",
    }


def test_ids_whose_digits_are_the_same_get_more_of_them() -> None:
    seen: dict[str, str] = {}
    for number in range(100_000):
        name = f"scanner.ua.user-one-of-many-{number}"
        (prefix,) = log_prefixes([name]).values()
        if prefix in seen:
            break
        seen[prefix] = name
    else:
        pytest.fail("no two ids with the same six digits")
    both = log_prefixes([seen[prefix], name, "banned.drop"])
    assert len(set(both.values())) == 3
    assert all(PREFIX.fullmatch(item) for item in both.values())
    assert both["banned.drop"] == "sipfw banned.drop "


@pytest.mark.parametrize("reader", ["log", "nflog"])
def test_both_lowered_forms_are_sound(reader: str, tmp_path: Path) -> None:
    full = compiled(tmp_path, logging(more=f", to: {reader}"))
    plan = iptables.lower(full)
    assert plan_faults(plan) == []
    target = reader.upper()
    assert target in _extensions(plan)
    assert {f"ip raw target:{target}", f"ip6 raw target:{target}"} <= {
        " ".join(line.split()[:3]) for line in probe_lines(plan)
    }
    group = "" if reader == "log" else " group 5"
    words = {rule.action for chain in nftables.lower(full).chains for rule in chain.rules}
    assert f'log prefix "sipfw host.drop "{group}' in words


def counted_as_drops(expectation: Expectation) -> set[tuple[str, str]]:
    return {
        (chain.layer, rule.id.partition("/")[0])
        for chain in expectation.chains
        for rule in chain.rules
        if rule.action == "drop"
    }


def test_each_drop_is_counted_as_a_drop_of_its_layer_once(tmp_path: Path) -> None:
    plain, full = compiled(tmp_path), compiled(tmp_path, logging())
    wanted = {(layer.value, f"log.{name}.drop") for name, layer in drops(plain).items()}
    assert counted_as_drops(expect(full, iptables.lower(full))) == wanted
    assert counted_as_drops(expect(full, nftables.lower(full))) == wanted


def test_a_kernel_without_text_searches_keeps_no_log_of_them(tmp_path: Path) -> None:
    bare = without_string_match(compiled(tmp_path, logging()))
    assert lint(bare) == []
    assert not any("scanner.ua" in name for name in logs(bare))
    assert "log.banned.drop.note" in logs(bare)


def test_a_record_comes_back_equal(tmp_path: Path) -> None:
    full = compiled(tmp_path, logging(more=", to: nflog"))
    assert decode(encode(full)) == full


def one_rule(*actions: Action) -> Ruleset:
    origin = Origin("logging", "policy.yaml")
    found = tuple(Rule(f"r{n}", (), action, "a rule", origin) for n, action in enumerate(actions))
    base = Base(Hook.PREROUTING, Priority.RAW)
    return Ruleset((Chain("A", Layer.ENTRY, "", found, Priority.RAW, base),), (), ())


@pytest.mark.parametrize(
    "log",
    [
        Log('sipfw x" accept comment "'),
        Log("sipfw x"),
        Log("sipfw " + "x" * 23 + " "),
        Log(""),
        Log("sipfw a b "),
        Log("sipfw x ", 0),
        Log("sipfw x ", 65536),
        Log("sipfw x ", -1),
    ],
    ids=repr,
)
def test_a_record_that_somebody_has_edited_is_refused(log: Log) -> None:
    with pytest.raises(DecodeError):
        decode(encode(one_rule(log)))
    assert decode(encode(one_rule(Log("sipfw x ", 1))))


def test_two_rules_with_one_prefix_are_a_bug() -> None:
    assert lint(one_rule(Log("sipfw x "), Log("sipfw y "))) == []
    assert lint(one_rule(Log("sipfw x "), Log("sipfw x ", 5))) == ["2 rules log as 'sipfw x '"]


def test_a_log_of_a_layer_that_drops_nothing_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("trusted_peers: []\n" + logging("banned, host"))
    (found,) = [d for d in load(Request(file)).remarks if d.field.startswith("logging")]
    assert found.severity is Severity.WARNING
    assert "'host' drops nothing here" in found.message


def test_every_layer_that_drops_is_offered(tmp_path: Path) -> None:
    names = {layer.value for layer in drops(compiled(tmp_path)).values()}
    assert names == {layer.value for layer in LoggedLayer}
    assert {layer.value for layer in Layer} - names == {"replies"}
