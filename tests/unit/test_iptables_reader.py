"""Reading iptables and ipset: an ipset that does not answer is no missing set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.changes import Settings
from sipfw.compare.diff import make_plan
from sipfw.compare.drift import drift
from sipfw.compare.expected import ExpectedSet
from sipfw.deploy.activate import NOTHING
from sipfw.errors import BackendError, Exit
from sipfw.host.runner import Completed, MissingProgramError
from sipfw.kernel.xtables.reader import IptablesReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sipfw.compare.changes import Plan
    from sipfw.compare.expected import Expectation
    from sipfw.compare.live import Live
    from sipfw.kernel.xtables.tools import Tables
    from sipfw.ruleset.rule import Family


class NoTables:
    """iptables of a host without rules."""

    def existing(self, family: Family) -> Tables:
        del family
        return {}


class Broken:
    """A runner whose ipset does not work."""

    def __init__(self, answer: BackendError | Completed) -> None:
        self._answer = answer

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        del stdin, timeout, env
        assert argv[0] == "ipset"
        if isinstance(self._answer, BackendError):
            raise self._answer
        return self._answer


WITH_SETS = replace(NOTHING, sets=(ExpectedSet("sipfw-banned4", "hash:ip", (), "banned", None),))
CASES = [
    (
        MissingProgramError("ipset: program not found", hint="install package ipset"),
        "ipset: program not found; install package ipset",
    ),
    (
        BackendError("ipset: may not be executed"),
        "ipset: may not be executed; make sure that `ipset list -n` works for root",
    ),
    (
        Completed(1, "", "Kernel error received: Operation not permitted"),
        (
            "ipset: cannot list sets: Kernel error received: Operation not permitted; "
            "make sure that `ipset list -n` works for root"
        ),
    ),
]


def _plan(wanted: Expectation, live: Live) -> Plan:
    return make_plan(wanted, live, Settings({}, {}, frozenset()), before=NOTHING, set_origins={})


@pytest.mark.parametrize(("answer", "said"), CASES)
def test_rules_with_sets_cannot_be_judged_without_ipset(
    answer: BackendError | Completed, said: str
) -> None:
    live = IptablesReader(Broken(answer), NoTables()).live(frozenset(), frozenset())
    for compare in (drift, _plan):
        with pytest.raises(BackendError) as caught:
            compare(WITH_SETS, live)
        assert str(caught.value) == f"the sets of the firewall cannot be read: {said}"
        assert caught.value.exit_code == Exit.BACKEND


@pytest.mark.parametrize("answer", [case[0] for case in CASES])
def test_a_firewall_without_sets_needs_no_ipset(answer: BackendError | Completed) -> None:
    live = IptablesReader(Broken(answer), NoTables()).live(frozenset(), frozenset())
    assert drift(NOTHING, live) == []
