"""RTP only from those who are spoken to: scans and injected audio die, calls are heard.

The same scenes on each form of the firewall. Packets of a stranger that reach no socket are counted
by the kernel, so that "nothing arrived" is said about all ports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import sip
from packets.media.scene import FIRST, LAST, PORT, RTCP, policy

if TYPE_CHECKING:
    from packets.media.scene import Media

pytestmark = pytest.mark.netns

WITH_LISTS = pytest.mark.parametrize("firewall", ["setless", "nftables"], indirect=True)
BOTH_WORLDS = pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)


def unheard(media: Media) -> int:
    """Return how many datagrams have reached the switch's host at a port where nobody listens."""
    counters = media.lab.switch.counters()
    return counters["Udp6NoPorts" if media.family == "ip6" else "UdpNoPorts"]


def test_only_whom_the_switch_speaks_to_is_heard(media: Media) -> None:
    lab = media.lab
    media.firewall.load(policy("expected"))
    sink, control, before = media.sink(), media.sink(RTCP), unheard(media)
    attacker, carrier = lab.attacker, lab.carrier
    # A scan finds no port, and injected audio no call.
    for port in range(FIRST, LAST, 97):
        media.says(attacker, 1, port)
    assert media.heard_from(sink, attacker, 200) == 0
    assert unheard(media) == before
    assert media.counted("media.drop") == len(range(FIRST, LAST, 97)) + 200
    # Media of a gateway that has not signalled, before the switch has spoken to it.
    assert media.heard_from(sink, carrier) == 0
    media.hears(carrier)
    # From whatever port, and its reports as well.
    assert media.heard_from(sink, carrier) == 10
    assert media.heard_from(sink, carrier, source=30100) == 10
    assert media.heard_from(control, carrier, port=RTCP) == 10
    assert media.heard_from(sink, attacker, 200) == 0
    # What answers the switch's own packets is no exception once it is forgotten.
    media.forget(carrier)
    assert media.heard_from(sink, carrier) == 0
    assert media.heard_from(sink, carrier, port=PORT + 2, source=20000) == 0
    assert unheard(media) == before


def test_one_packet_in_a_while_is_noted(media: Media) -> None:
    media.firewall.load(policy("expected"))
    carrier = media.lab.carrier
    media.hears(carrier, 100)
    assert media.counted("spoken.expected") == 1
    assert media.counted("replies.media-known") == 99
    media.firewall.remove("spoken-to", carrier.address(media.family))
    media.hears(carrier, 100)
    assert media.counted("spoken.expected") == 2
    assert media.firewall.contains("expected", carrier.address(media.family))


@WITH_LISTS
def test_who_is_known_is_heard_at_once(media: Media) -> None:
    lab = media.lab
    peer = {"name": "a", "signalling": ["192.0.2.0/24"], "media": ["203.0.113.0/24"]}
    peer6 = {"name": "b", "signalling": ["2001:db8:2::/64"], "media": ["2001:db8:5::/64"]}
    media.firewall.load(policy("expected", trusted_peers=[peer, peer6]))
    sink = media.sink()
    # By its media network, by its signalling address, by its login.
    assert media.heard_from(sink, lab.carrier) == 10
    assert media.heard_from(sink, lab.office) == 10
    assert media.heard_from(sink, lab.attacker) == 0
    media.logs_in(lab.attacker)
    assert media.heard_from(sink, lab.attacker) == 10


@BOTH_WORLDS
def test_the_hosts_own_questions_are_answered(media: Media) -> None:
    """A resolver is asked from a port that may be one of RTP; nobody else may answer."""
    lab = media.lab
    media.firewall.load(policy("expected"))
    lab.carrier.udp_sink(53, {"*": 200}, media.family)
    asking = lab.switch.udp_socket(PORT)
    asking.send(lab.carrier.address(media.family), 53, _question(media))
    assert len(asking.replies(2.0)) == 1


def _question(media: Media) -> bytes:
    """Return a datagram that a sink answers."""
    own = media.target(media.lab.carrier)
    return sip.request("OPTIONS", source=own, destination=own)


@BOTH_WORLDS
def test_what_is_open_to_everybody_makes_nobody_expected(media: Media) -> None:
    """Its answers go to any stranger who asks, and come from a port that is one of RTP."""
    lab = media.lab
    opened = {"host": {"udp_ports": [f"{PORT + 100}-{PORT + 101}"]}}
    media.firewall.load(policy("expected", **opened))
    sink = media.sink()
    lab.switch.udp_sink(PORT + 100, {"*": 200}, media.family)
    target = media.target(lab.attacker)
    asked = lab.attacker.send_udp(target, PORT + 100, _question(media), replies=2.0)
    assert len(asked) == 1
    assert not media.firewall.contains("expected", lab.attacker.address(media.family))
    assert media.heard_from(sink, lab.attacker) == 0


@BOTH_WORLDS
def test_without_connection_tracking_and_with_the_host_part(media: Media) -> None:
    lab = media.lab
    media.firewall.load(policy("expected", guarded=True, media={"notrack": True}))
    sink = media.sink()
    media.hears(lab.carrier)
    assert media.heard_from(sink, lab.carrier) == 10
    assert media.heard_from(sink, lab.attacker) == 0
    assert media.firewall.tracked() == 0


@WITH_LISTS
@pytest.mark.parametrize("guarded", [False, True], ids=["alone", "guarded"])
def test_peers_guards_without_the_host_part_too(media: Media, guarded: bool) -> None:
    lab = media.lab
    own = lab.office.address(media.family)
    peer = {"name": "a", "signalling": [own], "media": [lab.carrier.address(media.family)]}
    media.firewall.load(policy("peers", guarded=guarded, trusted_peers=[peer]))
    sink = media.sink()
    assert media.heard_from(sink, lab.carrier) == 10
    assert media.heard_from(sink, lab.office) == 10
    assert media.heard_from(sink, lab.attacker) == 0
    media.logs_in(lab.attacker)
    assert media.heard_from(sink, lab.attacker) == 10


@BOTH_WORLDS
def test_peers_lets_answers_in(media: Media) -> None:
    lab = media.lab
    media.firewall.load(policy("peers"))
    lab.attacker.udp_sink(53, {"*": 200}, media.family)
    asking = lab.switch.udp_socket(PORT)
    asking.send(lab.attacker.address(media.family), 53, _question(media))
    assert len(asking.replies(2.0)) == 1
    assert media.counted("media.answers") == 1
