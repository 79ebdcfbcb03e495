"""Each kind of rule that others write, with packets: the walk of `why` says what happens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from foreign_cases import Case, Kind
from kinds_of_rules import IPV4, IPV6
from namespace_thread import thread_inside
from others_scene import OthersScene, own_proc

from lab import Lab, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.namespaces import Family
    from sipfw.monitor.why.others import Course

pytestmark = pytest.mark.netns

CASES = [*(("ip6", case) for case in IPV6), *(("ip", case) for case in IPV4)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OthersScene]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("carrier",)) as lab, thread_inside(lab.switch.namespace) as inside:
        sinks = [lab.switch.udp_sink(5060, "echo-status")]
        lab.switch.tcp_sink(22)
        yield OthersScene(lab, inside, own_proc(tmp_path_factory.mktemp("proc")), sinks)


@pytest.mark.parametrize(("family", "case"), CASES, ids=str)
def test_the_walk_says_what_arrives(scene: OthersScene, family: Family, case: Case) -> None:
    scene.run(case.commands)
    try:
        # There is no RTP here.
        lost = case.lost - {"media"}
        assert scene.lost(family) == lost
        courses = scene.courses(family)
        certain, possible = said(courses)
        if case.kind is Kind.UNSURE:
            assert not certain
            assert possible >= lost
            assert possible
        else:
            assert (certain, possible) == (lost, frozenset())
    finally:
        scene.clear()


def said(courses: dict[str, Course]) -> tuple[frozenset[str], frozenset[str]]:
    """Return what is lost for certain, and what may be."""
    sip, ssh = courses["sip"], courses["ssh"]
    return (
        _services(sip.end, sip.answers, ssh.end or ssh.answers),
        _services(sip.possible, sip.answers_possible, ssh.possible or ssh.answers_possible),
    )


def _services(questions: object, answers: object, ssh: object) -> frozenset[str]:
    lost = {"sip", "answers"} if questions else {"answers"} if answers else set()
    return frozenset(lost | ({"ssh"} if ssh else set()))
