"""What counts as lost, whose move it was, and a record that anybody may have written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.drift import Drift, DriftKind
from sipfw.compare.foreign import ForeignRule
from sipfw.compare.live import Live, LiveJump, LiveRule
from sipfw.host.files import Layout
from sipfw.ruleset.rule import Family
from sipfw.upkeep.jump_order import behind, moved
from sipfw.upkeep.keep import is_loss, summary
from sipfw.upkeep.restores import (
    Restore,
    Restores,
    read_restores,
    write_restores,
)

if TYPE_CHECKING:
    from pathlib import Path

PASSED = Drift(
    DriftKind.MOVED, "jump", "IPv4 filter INPUT", "a rule before it lets packets pass: x"
)


def _live(before: str, after: str) -> Live:
    rule = LiveRule("hook", "0" * 8, 0, 0, "-A INPUT -j SIPFW_INPUT")

    def rules(lines: str) -> tuple[ForeignRule, ...]:
        return tuple(map(ForeignRule, lines.split()))

    jump = LiveJump(Family.IP, "filter", "INPUT", rule, rules(before), (), rules(after))
    return Live((), (jump,), ())


@pytest.mark.parametrize(
    ("now", "is_moved"),
    [
        (("", "a b c"), False),
        (("c b a", ""), True),
        (("a b", "c"), True),
        (("a", "b c"), False),
        (("new", "a b c"), False),
        (("new a b", "c"), True),
    ],
)
def test_a_jump_is_moved_when_most_rules_have_overtaken_it(
    now: tuple[str, str], is_moved: bool
) -> None:
    known = behind(_live("", "a b c"))
    assert bool(list(moved(_live(*now), [PASSED], known))) is is_moved
    # Rules that let nothing pass may stand where they like.
    assert list(moved(_live(*now), [], known)) == []


@pytest.mark.parametrize(
    ("item", "lost"),
    [
        (Drift(DriftKind.MISSING, "chain", "x"), True),
        (Drift(DriftKind.MISSING, "set element", "x"), True),
        (Drift(DriftKind.CHANGED, "table", "inet sipfw", "dormant"), True),
        (Drift(DriftKind.EXTRA, "rule", "x", "stands twice: y"), True),
        (Drift(DriftKind.EXTRA, "jump", "x", "-A INPUT"), True),
        (Drift(DriftKind.EXTRA, "jump", "x", "not made by sipfw, so it stays: y"), False),
        (Drift(DriftKind.EXTRA, "rule", "x", "-A SIP_TRUSTED -j ACCEPT"), False),
        (Drift(DriftKind.EXTRA, "set element", "x"), False),
        (Drift(DriftKind.CHANGED, "chain", "x", "policy DROP"), False),
        (PASSED, False),
    ],
)
def test_what_others_have_added_is_no_loss(item: Drift, lost: bool) -> None:
    assert is_loss(item) is lost


def test_many_losses_are_told_by_their_kinds() -> None:
    items = [Drift(DriftKind.MISSING, "rule", f"r{n}") for n in range(1200)]
    items.append(Drift(DriftKind.MISSING, "jump", "j"))
    assert summary(items) == "1,200 rules missing, 1 jump missing, rule r0 first"
    assert summary(items[:2]) == "rule r0: missing; rule r1: missing"


def test_the_record_is_kept_short_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert read_restores(layout) == Restores()
    events = tuple(Restore(1000.0 + n, 1, "\x1b[31mx", "restored") for n in range(80))
    write_restores(layout, Restores(80, left=("a",), events=events, behind={"p": ("d",)}))
    found = read_restores(layout)
    assert (found.total, found.left, len(found.events)) == (80, ("a",), 50)
    assert found.events[0].lost == "?[31mx"
    assert found.since(1075.0, 1100.0) == 5
    assert found.since(1075.0, 1077.0) == 3
    path = layout.restores
    assert path.stat().st_mode & 0o777 == 0o600
    data = json.loads(path.read_text())
    for key in set(data) - {"held"}:
        path.write_text(json.dumps({**data, key: None}))
        assert read_restores(layout) == Restores()
    path.write_text("[" * 100_000)
    assert read_restores(layout) == Restores()
