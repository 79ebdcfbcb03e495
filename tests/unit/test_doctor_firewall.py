"""Doctor: sipfw's own part, right and wrong."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from doctor_host import NOW, Fake, by_name, saved

from sipfw.compare.expected import Expectation, ExpectedChain, ExpectedRule
from sipfw.compare.live import Live, LiveChain, LiveRule
from sipfw.deploy import journal as journals
from sipfw.deploy.applied import Applied, write_applied
from sipfw.deploy.journal import Journal, Phase, boottime
from sipfw.errors import BackendError
from sipfw.host.files import Layout
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor import checks_firewall as checks
from sipfw.monitor.doctor.examine import examine
from sipfw.monitor.doctor.findings import CannotTellError, DiagnosisState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RULE = ExpectedRule("trusted.accept", "00000001", "a peer", "policy")
WANTED = Expectation(
    (ExpectedChain(Family.IP, "raw", "SIP_TRUSTED", "trusted", (RULE,)),), (), (), ()
)
GOOD = LiveRule("trusted.accept", "00000001", 0, 0, "accept")
OTHER = LiveRule(None, None, 0, 0, "drop")


def _live(*rules: LiveRule) -> Callable[[Applied], Live]:
    chain = LiveChain(Family.IP, "raw", "SIP_TRUSTED", rules)
    return lambda _: Live((chain,) if rules else (), (), ())


def _never(_: Applied) -> Live:
    pytest.fail("the kernel was asked")


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def _layout(fake: Fake) -> Layout:
    return Layout(fake.folder / "root")


def _apply(fake: Fake, *, backend: str = "nftables", generation: int | None = 3) -> None:
    layout = _layout(fake)
    write_applied(layout, Applied(WANTED, "policy.yaml", backend, generation))
    os.utime(layout.applied, (NOW - 7200, NOW - 7200))


OURS = '-A PREROUTING -m comment --comment "sipfw:entry#01234567" -j SIPFW_PREROUTING'
FOREIGN = "-A INPUT -p tcp --dport 22 -j ACCEPT"
OUR_TABLE = "table inet sipfw {\n\tchain a {\n\t\taccept\n\t}\n}\n"


@pytest.mark.parametrize(
    ("legacy", "nft_flavour", "nft", "state"),
    [
        ("", "", "", DiagnosisState.OK),
        (saved(FOREIGN), "", "", DiagnosisState.OK),
        ("", saved(FOREIGN), OUR_TABLE, DiagnosisState.OK),
        (saved(FOREIGN), saved(FOREIGN), "", DiagnosisState.PROBLEM),
        (saved(FOREIGN), "", OUR_TABLE, DiagnosisState.WARNING),
        (saved(OURS, table="raw"), saved(FOREIGN), "", DiagnosisState.WARNING),
        (saved(OURS, table="raw"), "", OUR_TABLE, DiagnosisState.PROBLEM),
    ],
)
def test_the_split(
    legacy: str, nft_flavour: str, nft: str, state: DiagnosisState, fake: Fake
) -> None:
    fake.legacy(legacy)
    fake.iptables_nft(nft_flavour)
    fake.nft(nft)
    found = checks.backend(fake.host())
    assert found.state is state
    assert (found.fix is None) is (state is DiagnosisState.OK)


def test_a_host_without_legacy_tables_is_not_asked_for_them(fake: Fake) -> None:
    fake.iptables_nft(saved(FOREIGN))
    fake.file("proc/net/ip_tables_names", "")
    _apply(fake, backend="iptables")
    found = by_name(examine(fake.host(read_live=_never)))
    assert found["live"].state is DiagnosisState.PROBLEM
    assert not [words for words in fake.programs.asked if "legacy" in words]


def test_no_packet_filter_at_all(fake: Fake) -> None:
    fake.programs.answers.clear()
    assert checks.backend(fake.host()).sentence == "this host has neither iptables nor nft"


def test_never_applied(fake: Fake) -> None:
    found = checks.last_apply(fake.host())
    assert (found.state, found.fix) == (DiagnosisState.WARNING, "sipfw apply")
    assert checks.live(fake.host()).state is DiagnosisState.OK
    fake.nft(OUR_TABLE)
    assert "rules of sipfw are live in nftables" in checks.last_apply(fake.host()).sentence


def test_when_it_was_applied(fake: Fake) -> None:
    _apply(fake)
    assert checks.last_apply(fake.host()).sentence == "generation 3, nftables, 2 h ago"
    late = checks.last_apply(fake.host(now=NOW + 3 * 86400))
    assert late.sentence == "generation 3, nftables, 3 d 2 h ago"
    early = checks.last_apply(fake.host(now=NOW - 86400))
    assert (early.state, early.fix) == (DiagnosisState.WARNING, "timedatectl set-ntp true")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"source": "\x1b[2J"}', "[" * 100_000])
def test_a_damaged_record(text: str, fake: Fake) -> None:
    fake.file("root/var/lib/sipfw/applied.json", text)
    found = by_name(examine(fake.host()))
    assert (found["last-apply"].state, found["last-apply"].fix) == (
        DiagnosisState.PROBLEM,
        "sipfw apply",
    )
    assert found["live"].state is DiagnosisState.UNKNOWN
    assert found["last-apply"].sentence.isprintable()


def test_a_record_of_an_unknown_backend_starts_nothing(fake: Fake) -> None:
    _apply(fake)
    path = _layout(fake).applied
    path.write_text(json.dumps({**json.loads(path.read_text()), "backend": "ebpf"}))
    assert checks.last_apply(fake.host()).state is DiagnosisState.PROBLEM


@pytest.mark.parametrize(
    ("rules", "said"),
    [((GOOD,), "is the applied"), ((), "not in"), ((OTHER,), "not in"), ((GOOD, OTHER), "in 1 ")],
)
def test_whether_it_is_live(rules: tuple[LiveRule, ...], said: str, fake: Fake) -> None:
    _apply(fake)
    found = checks.live(fake.host(read_live=_live(*rules)))
    state = DiagnosisState.OK if rules == (GOOD,) else DiagnosisState.PROBLEM
    assert found.state is state
    assert said in found.sentence
    assert found.fix == (None if state is DiagnosisState.OK else "sipfw restore")


def test_a_record_without_a_generation_needs_an_apply(fake: Fake) -> None:
    _apply(fake, generation=None)
    assert checks.live(fake.host(read_live=_live())).fix == "sipfw apply"


def test_a_kernel_that_does_not_answer_is_unknown(fake: Fake) -> None:
    def refuse(_: Applied) -> Live:
        raise BackendError("nft: no answer within 30 s, ended")

    _apply(fake)
    found = by_name(examine(fake.host(read_live=refuse)))["live"]
    assert (found.state, found.sentence) == (
        DiagnosisState.UNKNOWN,
        "nft: no answer within 30 s, ended",
    )


def test_without_root_it_is_unknown_what_is_live(fake: Fake) -> None:
    _apply(fake)
    with pytest.raises(CannotTellError, match="use sudo"):
        checks.live(fake.host(is_root=False))


def _journal(**values: object) -> Journal:
    known = {"phase": Phase.WAITING, "deadline": boottime() + 60, "group": 1}
    return Journal("apply", 1, 2, ("nftables",), **{**known, **values})  # type: ignore[arg-type]  # each of its field's type


def test_nothing_is_pending(fake: Fake) -> None:
    assert checks.pending(fake.host()).state is DiagnosisState.OK


def test_a_change_that_waits(fake: Fake) -> None:
    journals.write(_layout(fake), _journal())
    found = checks.pending(fake.host())
    assert (found.state, found.fix) == (DiagnosisState.WARNING, "sipfw confirm")
    assert found.sentence.startswith("generation 2 waits to be confirmed, ")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"deadline": boottime() - 60}, "not confirmed in time"),
        ({"boot": "another"}, "the host was restarted before its end"),
        ({"phase": Phase.CHANGING}, "sipfw apply ended before it was done"),
    ],
)
def test_a_change_without_an_end(values: dict[str, object], reason: str, fake: Fake) -> None:
    journals.write(_layout(fake), _journal(**values))
    found = checks.pending(fake.host())
    assert (found.state, found.fix) == (DiagnosisState.PROBLEM, "sipfw rollback")
    assert found.sentence == f"generation 2 was left without an end: {reason}"


def test_a_change_that_somebody_makes_right_now(fake: Fake) -> None:
    journals.write(_layout(fake), _journal(phase=Phase.CHANGING))
    (fake.folder / "proc/1").mkdir()
    assert checks.pending(fake.host()).state is DiagnosisState.WARNING


def test_a_way_back_that_was_begun(fake: Fake) -> None:
    layout = _layout(fake)
    journals.write(layout, _journal())
    journals.turn_back(layout)
    assert checks.pending(fake.host()).state is DiagnosisState.PROBLEM


@pytest.mark.parametrize(
    ("mode", "state"),
    [
        (0o700, DiagnosisState.OK),
        (0o711, DiagnosisState.PROBLEM),
        (0o755, DiagnosisState.PROBLEM),
        (0o770, DiagnosisState.PROBLEM),
    ],
)
def test_who_may_read_the_state(mode: int, state: DiagnosisState, fake: Fake) -> None:
    folder = _layout(fake).state
    assert checks.state_folder(fake.host()).state is DiagnosisState.OK
    folder.mkdir(parents=True)
    folder.chmod(mode)
    found = checks.state_folder(fake.host())
    assert found.state is state
    assert (found.fix is None) is (state is DiagnosisState.OK)


def test_whose_the_state_is(fake: Fake) -> None:
    _layout(fake).state.mkdir(parents=True, mode=0o700)
    found = checks.state_folder(fake.host(owner=os.geteuid() + 1))
    assert found.state is DiagnosisState.PROBLEM
    assert f"belongs to user id {os.geteuid()}" in found.sentence


def test_a_file_in_its_place(fake: Fake) -> None:
    fake.file("root/var/lib/sipfw", "")
    assert checks.state_folder(fake.host()).state is DiagnosisState.PROBLEM
