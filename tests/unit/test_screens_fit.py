"""Screens at every width: lines break between words, no word is cut, and nothing is lost."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_facts import ENDLESS, facts

from sipfw.cli import bans, doctor, events, feeds, history, plan_view, top, verify_view
from sipfw.cli.output import say_lines, table
from sipfw.cli.screen import grid, screen_width, wrapped
from sipfw.compare.changes import Action, ChainChange, JumpChange, Plan, SetChange, SysctlChange
from sipfw.compare.changes import RuleChange as Change
from sipfw.compare.drift import Drift, DriftKind
from sipfw.compiler.pipeline import compile_policy
from sipfw.feeds.parse import LeftOut
from sipfw.lower.xtables import Family
from sipfw.manual.bans import Ban
from sipfw.monitor.doctor.findings import Diagnosis, DiagnosisState
from sipfw.monitor.events.event import Event, EventKind
from sipfw.monitor.feed_report import FeedReport
from sipfw.monitor.health import judge
from sipfw.monitor.report import Count, RuleReport
from sipfw.monitor.selection import Selection
from sipfw.monitor.summary import summarise
from sipfw.monitor.top.source import DroppedSource
from sipfw.policy.load import Request, load
from sipfw.upkeep.restores import Restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from conftest import Sipfw

WIDTHS = [40, 60, 80, 120, 200]
LONG = "2001:db8:66:1234:5678:9abc:def0:1234"
SENTENCE = (
    "nf_conntrack_sip rewrites what passes here, so calls of phones behind NAT end after 30 s"
)


def _verify() -> Iterable[str]:
    ruleset = compile_policy(load(Request(profile="retail")))
    rules = [
        RuleReport(
            chain.layer.value,
            chain.name,
            rule.id,
            rule.summary,
            str(rule.origin),
            {Family.IP: Count(1_234_567, 987_654_321_000), Family.IP6: Count(12, 3400)},
            "drop",
        )
        for chain in ruleset.chains
        for rule in chain.rules
    ]
    seen = facts(now=time.time()).seen
    return verify_view.as_lines(seen, summarise(rules), rules, selection=Selection())


def _top() -> Iterable[str]:
    now = time.time()
    sources = [
        DroppedSource(
            ip_network(net), "scanner-block", "scanner.tool", SENTENCE, 9, now, now, 70, 3.0
        )
        for net in (f"{LONG}/128", "198.51.100.0/24", "198.51.100.7/32")
    ]
    return top._lines(sources, {"198.51.100.7/32": "scanner.attacker.example"}, more=3)


def _events() -> Iterable[str]:
    now = time.time()
    ban = Event(
        EventKind.BAN,
        ip_network(f"{LONG}/128"),
        "replies",
        "banned",
        SENTENCE,
        "alice",
        now - 900,
        now,
        now + 2700,
        123_456,
        known=True,
        freed="bob",
    )
    return events._lines([ban, replace(ban, source=None, sources=12_345, packets=0)], now)


def _bans() -> Iterable[str]:
    now = time.time()
    found = [
        Ban(ip_address(LONG), "manual", 7200, "guesses passwords", "root by ssh"),
        Ban(ip_address("198.51.100.7"), "replies", None, "", "the packets"),
    ]
    return table([bans._HEAD, *(bans._row(ban, now) for ban in found)], right={1})


def _feeds() -> Iterable[str]:
    rows = [
        FeedReport(
            "droplist",
            "https://lists.example",
            1234567,
            9,
            90000.0,
            3.0,
            SENTENCE,
            expired=False,
            left_out=(LeftOut("comment", 3, 1), LeftOut("private network", 1200, 7)),
            hits=1234,
        ),
        FeedReport("mine", "/b.txt", 3, 0, None, None, None, expired=True, left_out=(), hits=None),
    ]
    return table([feeds._HEAD, *map(feeds._row, rows)], right={1, 2, 5})


def _doctor() -> Iterable[str]:
    fix = "echo 'options nf_conntrack_sip ports=0' > /etc/modprobe.d/sipfw.conf && reboot"
    return doctor.as_lines(
        [
            Diagnosis("sip-helper", DiagnosisState.PROBLEM, SENTENCE, fix),
            Diagnosis("conntrack-timeouts", DiagnosisState.OK, "fine"),
        ]
    )


def _history() -> Iterable[str]:
    found = [replace(item, changed=SENTENCE) for item in facts(now=time.time()).generations]
    events = [Restore(1_780_000_000.0, 3, SENTENCE, "failed: the kernel has no room")]
    yield from table([history._HEAD, *map(history._row, found)], right={1})
    yield from history._told(events)


def _diff() -> Iterable[str]:
    origin = "/etc/sipfw/policy.yaml:12: limits.per_source.rate"
    v4, v6 = Family.IP, Family.IP6
    rule = (Action.CHANGE, v4, "raw", "SIP_RATE_LIMIT", "rate-limit", "rate.per-source")
    members = tuple(f"203.0.113.{n}" for n in range(30))
    return plan_view.as_lines(
        Plan(
            (Change(*rule, SENTENCE, origin, "-A SIP_RATE_LIMIT " * 6),),
            (JumpChange(Action.ADD, v6, "raw", "PREROUTING", SENTENCE, origin),),
            (ChainChange(Action.REMOVE, v4, "raw", "SIP_OLD", "entry", 3),),
            (SetChange(Action.CHANGE, "trusted", SENTENCE, origin, ("size 1 -> 2",), members),),
            (SysctlChange("net.netfilter.nf_conntrack_udp_timeout_stream", None, 60, origin),),
            (SysctlChange("net.netfilter.nf_conntrack_max", 1 << 18, 1 << 20, origin),),
        )
    )


SCREENS: dict[str, Callable[[], Iterable[str]]] = {
    "verify": _verify,
    "top": _top,
    "events": _events,
    "bans": _bans,
    "feeds": _feeds,
    "doctor": _doctor,
    "diff": _diff,
    "history": _history,
}
COMMANDS = {
    "check": ("check", "--explain", "--profile", "retail", "--switch", "freepbx"),
    "why": ("why", LONG, "--offline", "--profile", "retail"),
    "profiles": ("profiles",),
}


def _too_long(lines: Iterable[str], width: int) -> list[str]:
    return [line for line in lines if len(line) > width and " " in line.strip()]


def _words(lines: Iterable[str]) -> set[str]:
    """Return the words, without the marks between the cells of a folded row.

    There a cell that says nothing (`-`) is left out with its name, here that of `per s`.
    """
    return {word.rstrip(";:") for line in lines for word in line.split()} - {"-", "s"}


def _shown(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    say_lines(SCREENS[name]())
    # A rule of another program may hold line separators; the terminal knows only \n.
    return capsys.readouterr().out.split("\n")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_fits(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _shown(name, capsys)
    monkeypatch.setenv("COLUMNS", str(width))
    lines = _shown(name, capsys)
    assert _too_long(lines, width) == []
    # The moment of a look differs from one to the next.
    moment = re.compile(r"\d\d:\d\d:\d\d|^\d+$|\+\d\d:\d\d$")
    assert {word for word in _words(whole) - _words(lines) if not moment.search(word)} == set()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_fits_with_what_it_says_beside(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, sipfw: Sipfw, tmp_path: Path
) -> None:
    arguments = COMMANDS[name]
    root = () if name == "profiles" else ("--root", str(tmp_path))
    whole = sipfw(*arguments, *root)
    monkeypatch.setenv("COLUMNS", str(width))
    ran = sipfw(*arguments, *root)
    for wide, narrow in ((whole.stdout, ran.stdout), (whole.stderr, ran.stderr)):
        assert _too_long(narrow.split("\n"), width) == []
        assert _words(wide.split("\n")) <= _words(narrow.split("\n"))


@pytest.mark.parametrize("width", WIDTHS)
def test_faults_of_a_policy_fit(
    width: int, monkeypatch: pytest.MonkeyPatch, sipfw: Sipfw, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "xyzzy: 1\nmedia: {ports: 9-1, sources: them}\nadmin: {networks: 0.0.0.0/33}\n"
    )
    monkeypatch.setenv("COLUMNS", str(width))
    ran = sipfw("check", "-f", str(policy))
    lines = ran.stderr.split("\n")
    assert _too_long(lines, width) == []
    assert sum(line.startswith(str(policy)) for line in lines) == 4


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("drift", [0, 1, 2, 40, 400])
@pytest.mark.parametrize("problems", [0, 1, 3, 30])
def test_verify_has_room_on_one_screen(
    problems: int,
    drift: int,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    seen = facts(now=time.time(), drift=False).seen
    differs = tuple(
        Drift(DriftKind.MISSING, "rule", f"IPv4 raw SIP_X x.{number}", ENDLESS * (number % 3))
        for number in range(drift)
    )
    report = replace(seen.report, drift=differs)
    losses = tuple(f"{number}: {SENTENCE} {ENDLESS}" for number in range(problems))
    seen = replace(seen, report=report, health=judge(report, losses=losses))
    say_lines(verify_view.one_screen(seen, seen.layers, report.rules))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 - 1 or width < 80
    assert lines[0].startswith("DEGRADED: ")
    assert any(line.startswith("every rule, set and setting: ") for line in lines)
    assert any(line.startswith("scanner-block ") for line in lines)


def test_verify_says_first_that_nothing_is_active(capsys: pytest.CaptureFixture[str]) -> None:
    seen = facts(now=time.time(), drift=False).seen
    gone = [replace(rule, counts={Family.IP: None}) for rule in seen.report.rules]
    report = replace(seen.report, rules=tuple(gone))
    seen = replace(seen, report=report, health=judge(report))
    say_lines(verify_view.one_screen(seen, seen.layers, report.rules))
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("NOT ACTIVE: no rule of sipfw is in the kernel, SIP is unguarded; ")
    assert others == ["every rule, set and setting: sipfw verify --rules"]
    assert seen.health.line.startswith("NOT ACTIVE: ")


def test_without_a_screen_every_line_stays_whole(sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("check", "--explain", "--root", str(tmp_path))
    assert screen_width() is None
    assert any(len(line) > 100 for line in ran.stderr.splitlines())
    assert [line.split()[0] for line in ran.stdout.splitlines()][:2] == ["profile", "switch"]


def test_what_programs_read_is_never_broken(
    monkeypatch: pytest.MonkeyPatch, sipfw: Sipfw, tmp_path: Path
) -> None:
    whole = [sipfw(*words, "--root", str(tmp_path)).stdout for words in _READ_BY_PROGRAMS]
    monkeypatch.setenv("COLUMNS", "40")
    assert [sipfw(*words, "--root", str(tmp_path)).stdout for words in _READ_BY_PROGRAMS] == whole


_READ_BY_PROGRAMS = [
    ("render",),
    ("render", "--format", "nft"),
    ("check", "--explain", "--json"),
    ("why", "198.51.100.7", "--offline", "--json"),
]


def test_a_row_without_room_is_folded_with_the_names_of_its_cells() -> None:
    rows = [("source", "packets", "why"), (LONG, "12", "guesses passwords"), ("::1", "3", "-")]
    assert grid(rows, right={1}, width=40) == [
        ["source"],
        [LONG, "    packets: 12; why: guesses passwords"],
        ["::1", "    packets: 3"],
    ]


def test_texts_are_wrapped_in_their_columns_where_these_stay_wide_enough() -> None:
    rows = [("a", SENTENCE)]
    lines = table(rows, head=False)
    assert lines == [f"a  {SENTENCE}"]
    [wrapped_lines] = grid(rows, head=False, width=40)
    assert {line[:3] for line in wrapped_lines} == {"a  ", "   "}
    assert max(map(len, wrapped_lines)) <= 40


def test_a_word_that_is_wider_than_its_column_may_be_folds_the_table() -> None:
    path = "/etc/sipfw/policies/of/this/host.yaml:12:"
    rows = [("changed", SENTENCE, f"{path} limits"), ("added", "short", "built-in")]
    first, second = grid(rows, head=False, width=60)
    assert first[0] == "changed"
    assert second == ["added", "    short  built-in"]
    assert any(path in line for line in first)


@pytest.mark.parametrize(
    ("columns", "width"),
    [("80", 80), ("7", 20), ("0", None), ("-5", None), ("", None), ("80; reboot", None)],
)
def test_the_width_of_the_screen(
    columns: str, width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert screen_width() == width


_TEXT = st.text(st.characters(codec="ascii", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85"))


@given(text=_TEXT, width=st.integers(20, 60))
def test_any_line_fits_or_is_one_word(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert [line for line in lines if len(line) > width and len(line.split()) > 1] == []
    assert " ".join(lines).split() == text.split()


@given(rows=st.lists(st.tuples(_TEXT, _TEXT, _TEXT), min_size=1), width=st.integers(20, 90))
def test_any_table_fits_and_keeps_its_words(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = [line for row in grid(rows, {1}, head=False, width=width) for line in row]
    assert [line for line in lines if len(line) > width and len(line.split()) > 1] == []
    words = sorted(word for row in rows for cell in row for word in cell.split())
    assert sorted(word for line in lines for word in line.split()) == words
