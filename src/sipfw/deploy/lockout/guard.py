"""Would those who are logged in get in again? Asked before a ruleset goes live."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.deploy.lockout.carried import Carrier, Passage
from sipfw.deploy.lockout.carried_guard import judge_passage
from sipfw.deploy.lockout.passages import passages, placed
from sipfw.deploy.lockout.refusals import about, admin_sets, by_sip, cause, decider_of, worst
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.host.network import NetworkFacts
from sipfw.host.proc_net import ways_out
from sipfw.host.sessions import SSH, SSH_PORT, Session, ssh_sessions
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState, Direction, InSet, Interface, L4Proto, Ports
from sipfw.ruleset.rule import Accept, Done
from sipfw.simulate.packet import Packet, TcpFlag

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.model import Ruleset
    from sipfw.simulate.trace import Trace

__all__ = ["Session", "guard", "require_logged_in_kept", "require_no_lockout", "ssh_sessions"]

_HINT = "or apply with --force, with another way into this host at hand"


def guard(
    ruleset: Ruleset, sessions: Sequence[Session], through: Sequence[Passage] = ()
) -> list[Diagnostic]:
    """Return an error for each client that `ruleset` would lock out or cut off.

    `through` are the tunnels and proxies of this host that carry them. A warning says that a
    client gets in on a condition: through one interface, or by what this host keeps open.
    """
    found: list[Diagnostic] = []
    seen = set()
    for session in sorted(sessions, key=lambda item: item.order):
        # One client's connections differ in their source port, which no admin rule looks at.
        key = session.client, session.port, session.interface, session.protocol
        if key not in seen:
            seen.add(key)
            found += _judge(ruleset, session, sessions)
    reached = _admin_ports(ruleset, {item.name for item in admin_sets(ruleset)})
    outside = ways_out() if through else frozenset()
    for passage in through:
        found += judge_passage(ruleset, passage, reached, outside)
    return found


def require_no_lockout(
    ruleset: Ruleset,
    sessions: Sequence[Session],
    through: Sequence[Passage] = (),
    *,
    force: bool = False,
) -> list[Diagnostic]:
    """Return the guard's warnings; BackendError if somebody would be locked out.

    With `force` that is a warning too, in words that cannot be missed.
    """
    found = guard(ruleset, sessions, through)
    errors = [item for item in found if item.severity is Severity.ERROR]
    if errors and not force:
        raise BackendError("\n".join(str(item) for item in errors), hint=_HINT)
    forced = [
        replace(item, message=f"FORCED: {item.message}", severity=Severity.WARNING)
        for item in errors
    ]
    return [*forced, *(item for item in found if item.severity is not Severity.ERROR)]


def require_logged_in_kept(ruleset: Ruleset, *, force: bool) -> list[Diagnostic]:
    """Judge a ruleset by who is logged in now; see `require_no_lockout`."""
    sessions, through, doubts = logged_in(_ssh_ports(ruleset))
    return [*doubts, *require_no_lockout(ruleset, sessions, through, force=force)]


def logged_in(
    fallback_ports: Collection[int] = (SSH_PORT,),
) -> tuple[list[Session], list[Passage], list[Diagnostic]]:
    """Return who is logged in, what carries them on this host, and what could not be looked up."""
    facts = NetworkFacts()
    sessions = [placed(item, facts) for item in ssh_sessions(fallback_ports=fallback_ports)]
    doubts = []
    if any(item.interface != "lo" for item in sessions) and not facts.links:
        text = (
            "`ip -j` of package iproute2 does not tell the interfaces of this host, so nobody "
            "looked whether who is logged in comes through a tunnel"
        )
        doubts.append(Diagnostic(text, severity=Severity.WARNING))
    return sessions, passages(sessions, facts), doubts


def far_ends() -> dict[IpAddress, str]:
    """Return the other ends of the tunnels through which people are logged in, by what they carry.

    A tunnel or proxy that many use may have strangers among them: those are left out.
    """
    found = {}
    for passage in logged_in()[1]:
        ends = {way.far for way in passage.ways if way.far is not None}
        if len(ends) == 1:
            found[ends.pop()] = passage.name
    return found


def _ssh_ports(ruleset: Ruleset) -> set[int]:
    ports = {
        port
        for chain in ruleset.chains
        for rule in chain.rules
        if rule.id == "host.ssh"
        for match in rule.matches
        if isinstance(match, Ports)
        for item in match.ranges
        for port in range(item.first, item.last + 1)
    }
    return {SSH_PORT, *ports}


def _judge(ruleset: Ruleset, session: Session, sessions: Sequence[Session]) -> Iterator[Diagnostic]:
    if session.protocol is IpProto.UDP:
        yield from _over_udp(ruleset, session)
        return
    login = _packet(session, CtState.NEW, TcpFlag.SYN)
    # Where nothing was tracked before, the next segment of an open session is NEW as well: the
    # kernel picks connections up in the middle (nf_conntrack_tcp_loose).
    present = [_packet(session, state, TcpFlag.ACK) for state in (CtState.ESTABLISHED, CtState.NEW)]
    refused = worst(ruleset, login)
    tracked, *others = (worst(ruleset, packet) for packet in present)
    cut = [trace for trace in (tracked, *others) if trace.dropped]
    if refused.dropped and not tracked.dropped:
        yield _refusal(ruleset, session, sessions, refused, "could not log in again")
    elif cut:
        yield _refusal(ruleset, session, sessions, cut[0], "would be cut off")
    elif session.interface not in (None, "lo"):
        yield from _by_interface(ruleset, session, refused)


def _who(session: Session) -> str:
    return f"the {session.service} client {session.client}"


def _over_udp(ruleset: Ruleset, session: Session) -> Iterator[Diagnostic]:
    """Warn of a session over UDP: it began by ssh, which is the way in and judged as such."""
    way = Carrier(IpProto.UDP, session.port, 0, session.client, session.address, session.interface)
    for item in judge_passage(ruleset, Passage(session, "a flow of its own", (way,)), (), ()):
        yield replace(item, severity=Severity.WARNING)


def _by_interface(ruleset: Ruleset, session: Session, entry: Trace) -> Iterator[Diagnostic]:
    """Warn where the interface alone lets the client in: that is a route, and routes change."""
    login = replace(entry.packet, in_interface=None)
    if entry.decider is not None and worst(ruleset, login).dropped:
        yield about(
            entry.decider.origin,
            f"{_who(session)} gets in because its route leads through "
            f"{session.interface}; to let it in from everywhere, {_admin_line(session.client)}",
            Severity.WARNING,
        )


def _packet(session: Session, state: CtState, flag: TcpFlag) -> Packet:
    """Make a segment of the session; what ssh sends is ciphertext, so its payload is unknown."""
    return Packet(
        session.client,
        session.address,
        IpProto.TCP,
        session.client_port,
        session.port,
        flags=frozenset({flag}),
        in_interface=session.interface,
        payload=b"" if flag is TcpFlag.SYN else None,
        state=state,
    )


def _refusal(
    ruleset: Ruleset, session: Session, sessions: Sequence[Session], trace: Trace, fate: str
) -> Diagnostic:
    rule = decider_of(trace)
    remedy = " and ".join(_remedies(ruleset, session, sessions, trace)) or "change that policy line"
    return about(
        cause(ruleset, session.port, trace),
        f"{_who(session)} ({session.found}) {fate} on port {session.port}"
        f"{_elsewhere(ruleset, session)}: {rule.id} drops it; {remedy}",
    )


def _remedies(
    ruleset: Ruleset, session: Session, sessions: Sequence[Session], trace: Trace
) -> list[str]:
    """Return the policy lines that let the session in."""
    if by_sip(ruleset, trace):
        daemon = "sshd" if session.service == SSH else "a login"
        return [f"signalling: take {session.port} out, it is the port of {daemon}"]
    admin = admin_sets(ruleset)
    lines = []
    if not any(session.client in network for item in admin for network in item.networks):
        lines.append(_admin_line(session.client))
    reached = _admin_ports(ruleset, {item.name for item in admin})
    if session.port not in reached:
        # There is one ssh_port; the port of a second sshd must not push out that of the first.
        taken = any(other.port in reached for other in sessions)
        web = taken or session.service != SSH
        field = "admin.web_ports: add" if web else "admin.ssh_port:"
        lines.append(f"{field} {session.port}")
    return lines


def _admin_line(client: IpAddress) -> str:
    return f"admin.networks: add {ip_network(client)}"


def _admin_ports(ruleset: Ruleset, admin: set[str]) -> set[int]:
    """Return the TCP ports that admin networks may reach."""
    return {
        port
        for chain in ruleset.chains
        for rule in chain.rules
        if isinstance(rule.action, Accept | Done)
        and any(isinstance(match, InSet) and match.set in admin for match in rule.matches)
        for match in rule.matches
        if isinstance(match, Ports) and match.proto is L4Proto.TCP
        for item in match.ranges
        for port in range(item.first, item.last + 1)
    }


def _elsewhere(ruleset: Ruleset, session: Session) -> str:
    """Name the interfaces that would let in a client whose own interface is not known."""
    if session.interface is not None:
        return ""
    names = {
        match.name
        for chain in ruleset.chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, Interface) and match.direction is Direction.SOURCE
    } - {"lo"}
    login = _packet(session, CtState.NEW, TcpFlag.SYN)
    passing = [
        name
        for name in sorted(names)
        if not worst(ruleset, replace(login, in_interface=name)).dropped
    ]
    return f" (unless it comes in through {' or '.join(passing)})" if passing else ""
