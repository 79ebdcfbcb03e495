"""A real registrar behind the firewall: guessers, an office with one wrong password, open flows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from lab import sip
from packets.registrar import PORT, DigestPhone, Registrar, needs, password

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = [pytest.mark.netns, needs("kamailio")]

USER = "100"
GUESSES = 500
GUESSER_PORT = 5099
FAILURES = 8
SIGNATURES_OF_SVCRACK = ["friendly-scanner", "sipvicious-svcrack-contact"]

TWO_BACKENDS = pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)

# A banned source may send a login every five seconds from one port, and two at once.
LOGIN_BURST = 2
LOGIN_SECONDS = 5
# And ten REGISTERs without credentials a second, twenty at once: they guess nothing.
BARE_BURST = 20
BARE_PER_SECOND = 10


@pytest.fixture
def registrar(lab: Lab, tmp_path: Path) -> Iterator[Registrar]:
    with Registrar(lab, tmp_path) as running:
        yield running


def guess(lab: Lab, folder: Path) -> subprocess.Popen[str]:
    """Let svcrack try 500 wrong passwords and then the right one, all from one port."""
    words = [f"wrong-{number}" for number in range(GUESSES)]
    wordlist = folder / "words"
    wordlist.write_text("\n".join([*words, password(USER)]) + "\n")
    # Without -n: SIPVicious 0.3.3 ends with a KeyError when it shall reuse a nonce.
    command = ["svcrack", "-P", str(GUESSER_PORT), "-u", USER, "-d", str(wordlist)]
    target = lab.switch.address_for(lab.attacker)
    return lab.attacker.popen([*command, target], env={"HOME": str(folder)}, cwd=str(folder))


def wait_for_requests(firewall: Firewall, count: int) -> None:
    deadline = time.monotonic() + 20
    while firewall.counted("entry.udp", "ip") < count:
        assert time.monotonic() < deadline, "the tool sends too little"
        time.sleep(0.2)


@needs("svcrack")
def test_without_a_firewall_svcrack_finds_the_password(
    lab: Lab, registrar: Registrar, tmp_path: Path
) -> None:
    printed, _ = guess(lab, tmp_path).communicate(timeout=30)
    assert password(USER) in printed
    assert len(registrar.verdicts(401)) > GUESSES
    assert registrar.verdicts(200)


@needs("svcrack")
@TWO_BACKENDS
def test_a_disguised_svcrack_is_banned_after_the_failures_of_the_policy(
    lab: Lab, firewall: Firewall, registrar: Registrar, tmp_path: Path
) -> None:
    disguise: Mapping[str, Any] = {"user_agents": {"remove": SIGNATURES_OF_SVCRACK}}
    firewall.load(
        {"profile": "retail", "scanners": disguise, "learning": {"failures": FAILURES}},
    )
    started = time.monotonic()
    tool = guess(lab, tmp_path)
    # As many as all its guesses would have been.
    wait_for_requests(firewall, GUESSES)
    tool.kill()
    registrar.settle()
    elapsed = time.monotonic() - started
    counts = firewall.counts("ip")
    reached = registrar.verdicts()
    assert {each.source_port for each in reached} == {GUESSER_PORT}
    assert {each.status for each in reached} == {401}
    assert firewall.contains("banned", lab.attacker.address4)
    # The rule that bans counts the failure that led to the ban and every later one.
    judged = sum(counts[name].packets for name in ("login.accept", "guesses.probation"))
    assert judged - counts["failure.ban"].packets == FAILURES - 1
    # All the same requests, as the firewall saw them: before the ban, and on probation.
    bare, logins = counts["banned.probation"].packets, counts["guesses.probation"].packets
    bare += counts["repeated.probation"].packets
    before = counts["rate.accept"].packets + counts["login.accept"].packets
    assert before + bare + logins == len(reached)
    assert logins <= LOGIN_BURST + elapsed / LOGIN_SECONDS
    assert bare <= BARE_BURST + elapsed * BARE_PER_SECOND
    assert not registrar.verdicts(200)


@needs("svcrack")
def test_svcrack_as_it_comes_reaches_nobody(
    lab: Lab, firewall: Firewall, registrar: Registrar, tmp_path: Path
) -> None:
    firewall.load({"profile": "retail"})
    # It sends one request and then waits ten seconds for an answer.
    tool = guess(lab, tmp_path)
    wait_for_requests(firewall, 1)
    tool.kill()
    registrar.settle()
    assert registrar.verdicts() == []
    assert firewall.counted("scanner.ua.friendly-scanner", "ip") >= 1


def phones_of_the_office(lab: Lab) -> tuple[list[DigestPhone], DigestPhone]:
    """Return nine phones behind one address, and a tenth that has a wrong password."""
    phones = [DigestPhone(lab, lab.office, f"{200 + n}", 7000 + n) for n in range(9)]
    return phones, DigestPhone(lab, lab.office, "209", 7009, mistaken=True)


def register_in_rounds(phones: list[DigestPhone], mistaken: DigestPhone, pause: float) -> None:
    """Let all register and do so again three times; the mistaken one comes before each of them."""
    for _ in range(1 + 3):
        for phone in phones:
            mistaken.register(timeout=0.1)
            assert phone.register(expires=3) == [401, 200], phone.user
        time.sleep(pause)


@TWO_BACKENDS
def test_one_wrong_password_costs_the_office_no_phone(
    lab: Lab, firewall: Firewall, registrar: Registrar
) -> None:
    firewall.load({"profile": "retail"})
    office = lab.office.address4
    phones, mistaken = phones_of_the_office(lab)
    # The first registration has run out when the last one is made.
    register_in_rounds(phones, mistaken, pause=0.6)
    assert [phone.user for phone in phones if not registrar.has(phone.user)] == []
    assert not registrar.has(mistaken.user)
    assert len(registrar.verdicts(200, office)) == 4 * 9
    # Its two requests reached the registrar every time until its port was shut after twenty
    # wrong passwords; after that the bare ones do.
    refused = [each for each in registrar.verdicts(401, office) if each.source_port == 7009]
    assert 4 * 9 + 20 <= len(refused) <= 2 * 4 * 9
    assert firewall.contains("learned", office)
    assert not firewall.contains("banned", office)
    assert firewall.counted("failure.ban", "ip") == 0


def test_a_wrong_password_that_was_alone_all_night_keeps_no_phone_out(
    lab: Lab, firewall: Firewall, registrar: Registrar
) -> None:
    firewall.load({"profile": "retail"})
    office = lab.office.address4
    phones, mistaken = phones_of_the_office(lab)
    while not firewall.contains("banned", office):
        assert mistaken.register() == [401, 401]
    assert phones[0].register(expires=2) == [401, 200]
    assert not firewall.contains("banned", office)
    register_in_rounds(phones, mistaken, pause=0.0)
    assert [phone.user for phone in phones if not registrar.has(phone.user)] == []
    assert firewall.contains("learned", office)
    assert not firewall.contains("banned", office)


# Whoever is banned below may use ssh, so only the ban of signalling can stop it.
OPEN_HOST: Mapping[str, Any] = {
    "admin": {"networks": ["198.51.100.0/24", "2001:db8:66::/64"]},
    "learning": {"failures": FAILURES},
}
RTP_PORT = 12000
SSH_PORT = 22


def tracked(lab: Lab, protocol: str, family: Family, source_port: int) -> str:
    """Return the switch's conntrack entry of one flow of the attacker."""
    which = ["-f", "ipv6" if family == "ip6" else "ipv4", "-p", protocol]
    ends = ["-s", lab.attacker.address(family), "--sport", str(source_port)]
    return lab.switch.run(["conntrack", "-L", *which, *ends]).stdout


def everything_but_signalling_gets_through(lab: Lab, family: Family) -> None:
    target = lab.switch.address_for(lab.attacker, family)
    media, ssh = lab.switch.udp_sink(RTP_PORT), lab.switch.tcp_sink(SSH_PORT)
    lab.attacker.send_udp(target, RTP_PORT, [bytes(172)] * 10)
    assert media.settle() == 10
    lab.attacker.tcp_connect(target, SSH_PORT).send(b"SSH-2.0-lab\r\n")
    assert ssh.wait(1)[0].payload == b"SSH-2.0-lab\r\n"


def test_a_ban_ends_an_answered_udp_flow(
    lab: Lab, firewall: Firewall, family: Family, registrar: Registrar
) -> None:
    firewall.load(OPEN_HOST)
    guesser = DigestPhone(lab, lab.attacker, USER, GUESSER_PORT, family=family, mistaken=True)
    while not firewall.contains("banned", lab.attacker.address(family)):
        assert guesser.register() == [401, 401]
    flow = tracked(lab, "udp", family, GUESSER_PORT)
    assert f"sport={GUESSER_PORT}" in flow
    assert "[UNREPLIED]" not in flow
    reached = len(registrar.verdicts())
    guesser.send("INVITE")
    registrar.settle()
    assert len(registrar.verdicts()) == reached
    assert firewall.counted("banned.drop", family) == 1
    everything_but_signalling_gets_through(lab, family)
    # The flow was tracked all the time.
    assert "[UNREPLIED]" not in tracked(lab, "udp", family, GUESSER_PORT)


def test_a_ban_ends_an_open_tcp_connection(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load(OPEN_HOST)
    sink = lab.switch.tcp_sink(PORT, {"REGISTER": 401})
    target, own = lab.switch.address_for(lab.attacker, family), lab.attacker.address(family)
    connection = lab.attacker.tcp_connect(target, PORT)
    ssh = lab.switch.tcp_sink(SSH_PORT)
    session = lab.attacker.tcp_connect(target, SSH_PORT)
    register = sip.request("REGISTER", source=own, destination=target, transport="TCP")
    connection.send(register)
    assert b"SIP/2.0 401" in connection.received()
    firewall.add("banned-tcp", own)
    assert "ESTABLISHED" in tracked(lab, "tcp", family, connection.source_port)
    connection.send(register)
    assert connection.received(timeout=0.3) == b""
    assert sink.count() == 1
    assert firewall.counted("streams.drop", family) >= 1
    # A session that was open before the ban goes on.
    session.send(b"ls\n")
    assert ssh.wait(1)[0].payload == b"ls\n"
    ssh.close()
    everything_but_signalling_gets_through(lab, family)
    assert "ESTABLISHED" in tracked(lab, "tcp", family, connection.source_port)
