"""`sipfw verify`: options that would go unheard are refused, and nothing to count from is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.expected import Expectation
from sipfw.deploy.applied import Applied, write_applied
from sipfw.errors import Exit
from sipfw.host.files import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

PARTNERS = "--backend and --no-ipset need --policy, --profile, --switch or --set"
EVERYTHING = "--brief is about everything, so it goes without"
KEPT = "--since counts from a kept look at what was applied"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--backend nftables", PARTNERS),
        ("--backend auto", PARTNERS),
        ("--no-ipset", PARTNERS),
        ("--interval 2", "--interval needs --watch"),
        ("--interval 2 --json", "--interval needs --watch"),
        ("--brief --hits", EVERYTHING),
        ("--brief --top 3", EVERYTHING),
        ("--brief --layer banned", EVERYTHING),
        ("--brief --family 4", EVERYTHING),
        ("--brief --since 1h", EVERYTHING),
        ("--since 1h --profile default", KEPT),
        ("--since 1h --watch", KEPT),
    ],
)
def test_an_option_that_goes_unheard_is_refused(words: str, said: str, sipfw: Sipfw) -> None:
    ran = sipfw("verify", *words.split())
    assert ran.code == Exit.USAGE
    if "--json" in words:
        assert json.loads(ran.stdout)["exit"] == Exit.USAGE
    else:
        assert ran.stdout == ""
    assert ran.stderr.startswith(f"Error: {said}")
    assert len(ran.stderr.splitlines()) == 1


def test_a_backend_of_the_environment_is_for_other_commands(
    sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIPFW_BACKEND", "nftables")
    assert "--interval needs --watch" in sipfw("verify", "--interval", "2").stderr


@pytest.mark.parametrize("when", ["last", "10m"])
def test_without_a_reading_there_is_nothing_to_count_from(
    when: str, sipfw: Sipfw, tmp_path: Path
) -> None:
    empty = Expectation((), (), (), ())
    write_applied(Layout(tmp_path), Applied(empty, "profile default", "nftables", 1))
    ran = sipfw("verify", "--root", str(tmp_path), "--since", when)
    assert ran.code == Exit.BACKEND
    assert ran.stderr == (
        "no earlier reading is kept, so there is nothing to count from; "
        "run sipfw verify once after sipfw apply, and count from there\n"
    )
