"""Would those who are logged in by ssh get in again? Asked before a ruleset goes live."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.deploy.ssh_sessions import SSH_PORT, Session, ssh_sessions
from sipfw.diagnostics import Diagnostic, Location, Severity
from sipfw.errors import BackendError
from sipfw.ruleset.match import CtState, Direction, InSet, Interface, L4Proto, Ports
from sipfw.ruleset.model import Layer
from sipfw.ruleset.rule import Accept
from sipfw.walk.evaluate import evaluate
from sipfw.walk.packet import IpProto, Packet, TcpFlag
from sipfw.walk.state import Limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.ruleset.model import AddressSet, Ruleset
    from sipfw.ruleset.rule import Origin, Rule
    from sipfw.walk.packet import IpAddress
    from sipfw.walk.trace import Trace

__all__ = ["Session", "guard", "require_no_lockout", "spare_logged_in", "ssh_sessions"]

_HINT = "or apply with --force, with another way into this host at hand"


def guard(ruleset: Ruleset, sessions: Sequence[Session]) -> list[Diagnostic]:
    """Return an error for each ssh client that `ruleset` would lock out or cut off.

    A warning says that a client gets in through one interface only.
    """
    found: list[Diagnostic] = []
    seen = set()
    for session in sorted(sessions, key=lambda item: item.order):
        # One client's connections differ in their source port, which no admin rule looks at.
        key = session.client, session.port, session.interface
        if key not in seen:
            seen.add(key)
            found += _judge(ruleset, session, sessions)
    return found


def require_no_lockout(
    ruleset: Ruleset, sessions: Sequence[Session], *, force: bool = False
) -> list[Diagnostic]:
    """Return the guard's warnings; BackendError if somebody would be locked out.

    With `force` that is a warning too, in words that cannot be missed.
    """
    found = guard(ruleset, sessions)
    errors = [item for item in found if item.severity is Severity.ERROR]
    if errors and not force:
        raise BackendError("\n".join(str(item) for item in errors), hint=_HINT)
    forced = [
        replace(item, message=f"FORCED: {item.message}", severity=Severity.WARNING)
        for item in errors
    ]
    return [*forced, *(item for item in found if item.severity is not Severity.ERROR)]


def spare_logged_in(ruleset: Ruleset, *, force: bool) -> list[Diagnostic]:
    """Judge a ruleset by who is logged in now; see `require_no_lockout`."""
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
    sessions = ssh_sessions(fallback_ports={SSH_PORT, *ports})
    return require_no_lockout(ruleset, sessions, force=force)


def _judge(ruleset: Ruleset, session: Session, sessions: Sequence[Session]) -> Iterator[Diagnostic]:
    login = _packet(session, CtState.NEW, TcpFlag.SYN)
    # Where nothing was tracked before, the next segment of an open session is NEW as well: the
    # kernel picks connections up in the middle (nf_conntrack_tcp_loose).
    present = [_packet(session, state, TcpFlag.ACK) for state in (CtState.ESTABLISHED, CtState.NEW)]
    refused = _worst(ruleset, login)
    tracked, *others = (_worst(ruleset, packet) for packet in present)
    cut = [trace for trace in (tracked, *others) if trace.dropped]
    if refused.dropped and not tracked.dropped:
        yield _refusal(ruleset, session, sessions, refused, "could not log in again")
    elif cut:
        yield _refusal(ruleset, session, sessions, cut[0], "would be cut off")
    elif session.interface not in (None, "lo"):
        yield from _by_interface(ruleset, session, refused)


def _by_interface(ruleset: Ruleset, session: Session, entry: Trace) -> Iterator[Diagnostic]:
    """Warn where the interface alone lets the client in: that is a route, and routes change."""
    login = replace(entry.packet, in_interface=None)
    if entry.decider is not None and _worst(ruleset, login).dropped:
        yield _about(
            entry.decider.origin,
            f"the ssh client {session.client} gets in because its route leads through "
            f"{session.interface}; to let it in from everywhere, {_admin_line(session.client)}",
            Severity.WARNING,
        )


def _about(origin: Origin, message: str, severity: Severity = Severity.ERROR) -> Diagnostic:
    return Diagnostic(message, origin.field, Location(origin.file, origin.line), severity)


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


def _worst(ruleset: Ruleset, packet: Packet) -> Trace:
    """Walk within all limits and beyond them: a busy session must not depend on a limit."""
    trace = evaluate(ruleset, packet)
    if trace.dropped or not trace.assumptions:
        return trace
    return evaluate(ruleset, packet, assume=Limit.EXCEEDED)


def _refusal(
    ruleset: Ruleset, session: Session, sessions: Sequence[Session], trace: Trace, fate: str
) -> Diagnostic:
    rule = trace.decider
    if rule is None:
        raise AssertionError("a dropped packet has a rule that dropped it")
    remedy = " and ".join(_remedies(ruleset, session, sessions, trace)) or "change that policy line"
    return _about(
        _cause(ruleset, session, trace) or rule.origin,
        f"the ssh client {session.client} ({session.found}) {fate} on port {session.port}"
        f"{_elsewhere(ruleset, session)}: {rule.id} drops it; {remedy}",
    )


def _cause(ruleset: Ruleset, session: Session, trace: Trace) -> Origin | None:
    """Return the policy line to change: seldom that of the rule that drops at the end."""
    if _by_sip(ruleset, trace):
        ways = (step.rule for step in trace.steps if step.matched)
        return next((rule.origin for rule in ways if _asks_for(rule, session.port)), None)
    return next((item.origin for item in _admin_sets(ruleset)), None)


def _by_sip(ruleset: Ruleset, trace: Trace) -> bool:
    """Tell whether it is taken for SIP: what judges that has other layers than the host's."""
    rule = trace.decider
    return not any(rule in chain.rules for chain in ruleset.chains if chain.layer is Layer.HOST)


def _asks_for(rule: Rule, port: int) -> bool:
    return any(
        isinstance(match, Ports) and any(item.first <= port <= item.last for item in match.ranges)
        for match in rule.matches
    )


def _admin_sets(ruleset: Ruleset) -> list[AddressSet]:
    return [item for item in ruleset.sets if item.origin.field == "admin.networks"]


def _remedies(
    ruleset: Ruleset, session: Session, sessions: Sequence[Session], trace: Trace
) -> list[str]:
    """Return the policy lines that let the session in."""
    if _by_sip(ruleset, trace):
        return [f"signalling: take {session.port} out, it is the port of sshd"]
    admin = _admin_sets(ruleset)
    lines = []
    if not any(session.client in network for item in admin for network in item.networks):
        lines.append(_admin_line(session.client))
    reached = _admin_ports(ruleset, {item.name for item in admin})
    if session.port not in reached:
        # There is one ssh_port; the port of a second sshd must not push out that of the first.
        taken = any(other.port in reached for other in sessions)
        field = "admin.web_ports: add" if taken else "admin.ssh_port:"
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
        if isinstance(rule.action, Accept)
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
        if not _worst(ruleset, replace(login, in_interface=name)).dropped
    ]
    return f" (unless it comes in through {' or '.join(passing)})" if passing else ""
