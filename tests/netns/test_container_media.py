"""RTP of a switch in a container: judged behind DNAT, noted as it leaves the bridge."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, get_args

import pytest
from container import ADDRESS, COMMAND, container
from shared_host import BACKENDS, SharedHost

from lab import Family, Lab, unavailable_reason
from sipfw.ruleset import rule as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Host, Node

pytestmark = pytest.mark.netns

PORT = 12000
RTP = [b"\x80\x00" + bytes(170)] * 10
POLICY = {
    "signalling": {"behind": ["docker*"]},
    "media": {"sources": "expected", "ports": ["11000-13000"]},
}


def published(family: Family) -> str:
    """Return the further rules of a container that has its media ports published."""
    address = ADDRESS[family]
    ports = f"{PORT}:{PORT + 10}"
    target = f"[{address}]" if family == "ip6" else address
    return (
        "*nat\n"
        f"-A DOCKER ! -i docker0 -p udp --dport {ports} -j DNAT --to-destination {target}\nCOMMIT\n"
        "*filter\n"
        f"-A DOCKER -d {address} ! -i docker0 -o docker0 -p udp --dport {ports} -j ACCEPT\nCOMMIT\n"
    )


class Place:
    """The lab with the container, and sipfw at work on the container's host."""

    def __init__(self, lab: Lab, host: SharedHost, switch: Node) -> None:
        self.lab, self.host, self.switch = lab, host, switch

    def says(self, host: Host, family: Family) -> None:
        host.send_udp(self.lab.switch.address_for(host, family), PORT, RTP, source_port=30000)

    def counted(self, rule: str, family: Family) -> int:
        return self.host.kernel.counts(ir.Family(family))[rule].packets


@pytest.fixture(scope="module", params=BACKENDS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(forward=True) as lab:
        host = SharedHost(lab.switch, request.param, tmp_path_factory.mktemp("container"))
        with container(host) as switch:
            for family, command in COMMAND.items():
                host.tool(f"{command}-restore", "--noflush", text=published(family))
            host.apply(POLICY)
            yield Place(lab, host, switch)


@pytest.mark.parametrize("family", get_args(Family))
def test_only_whom_the_container_speaks_to_is_heard(place: Place, family: Family) -> None:
    lab, sink = place.lab, place.switch.udp_sink(PORT)
    place.says(lab.attacker, family)
    place.says(lab.carrier, family)
    assert sink.settle(quiet=0.2) == 0
    assert place.counted("media-behind.drop", family) == 20
    # From its own address, which masquerading changes on the way.
    heard = lab.carrier.udp_sink(20000, family=family)
    place.switch.send_udp(lab.carrier.address(family), 20000, RTP, source_port=PORT + 2)
    assert {each.source for each in heard.wait(10)} == {lab.switch.address_for(lab.carrier, family)}
    assert place.host.kernel.contains("expected", lab.carrier.address(family))
    place.says(lab.carrier, family)
    assert sink.wait(10)[0].source == lab.carrier.address(family)
    place.says(lab.attacker, family)
    assert sink.settle(quiet=0.2) == 10
    sink.close()
    # What the container says to its own host is nobody's business.
    own = lab.switch.udp_sink(PORT)
    place.switch.send_udp(lab.switch.address_for(lab.carrier, family), PORT, RTP)
    assert own.settle(quiet=0.2) == 10
    own.close()
    done = place.host.sipfw("verify")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("family", get_args(Family))
def test_it_is_gone_without_a_trace(place: Place, family: Family) -> None:
    """The last one: remove takes the hook in FORWARD away as well."""
    place.host.must("remove")
    sink = place.switch.udp_sink(PORT)
    place.says(place.lab.attacker, family)
    assert sink.settle(quiet=0.2) == 10
    assert "sipfw" not in place.host.everything().lower()
    sink.close()
