"""What keeps packets from the switch and is no rule: with packets, and what `why` says of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from namespace_thread import thread_inside
from others_scene import PEERS, OthersScene, own_proc

from lab import Lab, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

PEER = PEERS["ip"]
# Behind the carrier's link, and no route leads there.
NOWHERE = "192.0.2.77"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OthersScene]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with (
        Lab(hosts=("carrier", "attacker")) as lab,
        thread_inside(lab.switch.namespace) as inside,
    ):
        yield OthersScene(lab, inside, own_proc(tmp_path_factory.mktemp("proc")))


def reaches(scene: OthersScene, source: str) -> bool:
    switch = scene.lab.switch
    target = switch.address_for(scene.lab.carrier)
    if not scene.sinks:
        scene.sinks.append(switch.udp_sink(5060))
    (sink,) = scene.sinks
    sink.clear()
    for _ in range(4):
        # The first frame between two hosts may wait for a neighbour that is not known yet.
        scene.lab.carrier.spoof_udp([source], target, 5060, 5060, b"OPTIONS sip:a SIP/2.0\r\n\r\n")
        if sink.settle(quiet=0.5) > 0:
            sink.clear()
            return True
    return False


def test_nobody_listens_until_somebody_does(scene: OthersScene) -> None:
    assert scene.course_of(PEER).unheard == "nobody listens on udp port 5060"
    scene.sinks.append(scene.lab.switch.udp_sink(5060))
    assert scene.course_of(PEER).unheard is None
    assert reaches(scene, PEER)


def test_no_route_leads_back(scene: OthersScene) -> None:
    scene.run(
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.carrier.rp_filter=0;"
        " ip route del default"
    )
    assert reaches(scene, NOWHERE)
    course = scene.course_of(NOWHERE)
    assert course.end is None
    assert course.answers is not None
    assert course.answers.place == f"the routes of this host: none leads to {NOWHERE}"
    scene.run("for i in carrier attacker; do sysctl -qw net.ipv4.conf.$i.rp_filter=2; done")
    try:
        assert not reaches(scene, NOWHERE)
        assert scene.course_of(NOWHERE).end == course.answers
    finally:
        scene.run(
            "for i in carrier attacker; do sysctl -qw net.ipv4.conf.$i.rp_filter=0; done;"
            " ip route add default via 198.51.100.66 dev attacker"
        )


def test_an_answer_that_would_leave_elsewhere(scene: OthersScene) -> None:
    scene.run(
        f"ip route add {PEER}/32 via 198.51.100.66 dev attacker;"
        " sysctl -qw net.ipv4.conf.carrier.rp_filter=1"
    )
    try:
        assert not reaches(scene, PEER)
        (end,) = scene.course_of(PEER).possible
        assert end.when == ("the case that it comes in through carrier",)
        assert end.mend == "sysctl -w net.ipv4.conf.carrier.rp_filter=2"
        scene.run(end.mend)
        assert reaches(scene, PEER)
        assert scene.course_of(PEER).possible == ()
    finally:
        scene.run(f"ip route del {PEER}/32; sysctl -qw net.ipv4.conf.carrier.rp_filter=0")


def test_a_filter_of_tc_is_named(scene: OthersScene) -> None:
    assert scene.course_of(PEER).notes == ()
    scene.run("tc qdisc add dev carrier clsact")
    assert scene.course_of(PEER).notes == ()
    # This one lets all pass: what it does, no listing says.
    match = "protocol ip u32 match ip dport 5060 0xffff flowid 1:1"
    scene.run(f"tc filter add dev carrier ingress {match}")
    try:
        course = scene.course_of(PEER)
        assert course.notes == ("filters of tc at the ingress of carrier are not read",)
    finally:
        scene.run("tc qdisc del dev carrier clsact")
