"""`sipfw why`: what happens to a source right now, the reason, and what would change it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sipfw.cli.options import Choice, policy_options
from sipfw.cli.output import complain, say_json, say_lines

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.monitor.why.live import ExplainedFirewall
    from sipfw.monitor.why.others import Others
    from sipfw.monitor.why.packets import PacketQuestion
    from sipfw.monitor.why.state import SourceState
    from sipfw.ruleset.addresses import IpAddress

# The largest UDP datagram is a little smaller.
_LARGEST = 64 * 1024
_LONGEST_AGENT = 256
_METHOD = re.compile(r"[A-Z]{1,32}")
# As `policy.types.Identifier`; an address of IPv6 has a colon, one of IPv4 begins with a digit.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_PORT = click.IntRange(1, 65535)


@click.command("why")
@click.argument("address", metavar="ADDRESS|NAME")
@policy_options
@click.option("--port", type=_PORT, help="Assume this source port. Default: any.")
@click.option("--to-port", type=_PORT, help="Assume this destination port. Default: the SIP port.")
@click.option(
    "--transport",
    type=click.Choice(("udp", "tcp", "tls", "ws")),
    help="Assume this transport. Default: udp, with --to-port UDP and TCP.",
)
@click.option("--method", help="Send this SIP method. Default: OPTIONS, REGISTER and INVITE.")
@click.option(
    "--user-agent", help="Send this User-Agent header; scanners are recognised by theirs."
)
@click.option(
    "--file",
    "packet",
    type=click.Path(path_type=Path),
    help="Send this message: what follows the UDP or TCP header, at most 64 kB.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--offline", is_flag=True, help="Explain a policy as if it had just been applied.")
def command(
    *,
    address: str,
    choice: Choice,
    port: int | None,
    to_port: int | None,
    transport: str | None,
    method: str | None,
    user_agent: str | None,
    packet: Path | None,
    as_json: bool,
    offline: bool,
) -> int:
    """Say what happens to packets of ADDRESS right now, why, and what would change it.

    With the NAME of a trusted peer: what of its packets was let through and what was dropped.

    The answer comes from the applied rules and the kernel's sets and limits at this moment; what
    the kernel does not show is said to be unknown. Rules of other programs are walked too, on the
    way there and for the answers; --offline leaves them out. Nothing is changed.
    """
    from sipfw.host.files import Layout
    from sipfw.monitor.names_behind import names_behind
    from sipfw.monitor.why.packets import PacketQuestion, PacketTransport
    from sipfw.monitor.why.why import explain

    if choice.explicit and not offline:
        raise click.UsageError("--policy, --profile, --switch and --set need --offline")
    if packet is not None and (method is not None or user_agent is not None):
        raise click.UsageError("--file is the whole message; leave out --method and --user-agent")
    if _may_be_name(address):
        if any((port, to_port, transport, method, user_agent, packet)):
            raise click.UsageError("what is sent goes with an address, not with a peer's name")
        from sipfw.cli.why_peer import explain_peer

        return explain_peer(address, choice, offline=offline, as_json=as_json)
    question = PacketQuestion(
        _address(address),
        port,
        to_port,
        None if transport is None else PacketTransport(transport),
        _method(method),
        _agent(user_agent),
        None if packet is None else _bytes(packet),
    )
    firewall = _of_policy(choice) if offline else _applied(choice, question.source)
    question, source = _look(question, firewall)
    answer = explain(question, source, None if offline else _others())
    names = [] if offline else names_behind(Layout(choice.root), question.source)
    if as_json:
        from sipfw.cli.why_data import as_data

        say_json(as_data(answer, firewall, source, names))
        return 0
    from sipfw.cli.why_view import as_lines

    say_lines(as_lines(answer, firewall, source, _commands(), names))
    if not offline:
        _last_event(Layout(choice.root), question.source)
    return 0


def _last_event(layout: Layout, address: IpAddress) -> None:
    import time
    from ipaddress import ip_network

    from sipfw.cli.events import line_of
    from sipfw.errors import BackendError

    try:
        from sipfw.monitor.events.past import last_of

        found = last_of(layout, ip_network(address), time.time())
    except BackendError as error:
        complain(f"events are not known: {error.message}")
        return
    if found is not None:
        say_lines([f"last event: {line_of(found)}; more: sipfw events {address} --since 31d"])


def _others() -> Others | None:
    """Return the rules of others; None, with a warning, where they cannot be read."""
    from sipfw.kernel.snapshot import HostSnapshot
    from sipfw.monitor.doctor.findings import CannotTellError
    from sipfw.monitor.doctor.host import HostView
    from sipfw.monitor.why.others import Others

    host = HostView(runner=HostSnapshot(), own_table=False)
    try:
        return Others(host.rules, host.proc, host.runner)
    except CannotTellError as error:
        complain(f"warning: whether rules of others drop it cannot be told: {error}")
        return None


def _look(
    question: PacketQuestion, firewall: ExplainedFirewall
) -> tuple[PacketQuestion, SourceState]:
    from dataclasses import replace

    from sipfw.host.proc_net import way_to
    from sipfw.monitor.why.live import LiveKernel, is_own_address
    from sipfw.monitor.why.state import SourceState, Untouched

    offline = firewall.backend is None
    local = question.source.is_loopback if offline else is_own_address(question.source)
    kernel = Untouched() if offline else LiveKernel(firewall)
    source = SourceState(firewall.ruleset, question.source, question.source_port, kernel)
    # What a host would send comes in where its answers go out, unless a route says otherwise.
    interface = None if offline or local else way_to(question.source)
    return replace(question, local=local, interface=interface), source


def _applied(choice: Choice, source: IpAddress) -> ExplainedFirewall:
    from sipfw.errors import BackendError
    from sipfw.host.files import Layout
    from sipfw.monitor.why.live import applied_firewall
    from sipfw.ruleset.rule import Family

    if os.geteuid() != 0:
        raise BackendError("only root may see the firewall", hint="use sudo, or --offline")
    family = Family.IP if source.version == 4 else Family.IP6
    firewall, warning = applied_firewall(Layout(choice.root), family)
    if warning is not None:
        complain(f"warning: {warning}")
    return firewall


def _of_policy(choice: Choice) -> ExplainedFirewall:
    from sipfw.cli.options import compile_wanted, load_policy
    from sipfw.monitor.why.live import ExplainedFirewall

    loaded = load_policy(choice)
    return ExplainedFirewall(compile_wanted(loaded).ruleset, ", ".join(loaded.sources))


def _may_be_name(text: str) -> bool:
    """Tell whether a text has the form of a peer's name; no address has it."""
    return bool(_NAME.fullmatch(text))


def _address(text: str) -> IpAddress:
    from ipaddress import IPv6Address, ip_address

    try:
        found = ip_address(text)
    except ValueError as error:
        raise click.UsageError(
            f"{text!r} is not an address; write one such as 203.0.113.7 or 2001:db8::7"
        ) from error
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            raise click.UsageError(
                f"{text!r}: leave out %{found.scope_id}, rules do not ask for it"
            )
        if found.ipv4_mapped is not None:
            raise click.UsageError(f"{text!r} travels as IPv4; write {found.ipv4_mapped}")
    if found.is_multicast or found.is_unspecified:
        raise click.UsageError(f"{text!r} is the source of no packet")
    return found


def _method(text: str | None) -> str | None:
    if text is not None and not _METHOD.fullmatch(text.upper()):
        raise click.UsageError(f"{text!r} is no SIP method; write one such as REGISTER")
    return None if text is None else text.upper()


def _agent(text: str | None) -> str | None:
    if text is not None and not (text.isprintable() and len(text) <= _LONGEST_AGENT):
        raise click.UsageError(
            f"--user-agent takes at most {_LONGEST_AGENT} printable characters; --file takes any"
        )
    return text


def _bytes(path: Path) -> bytes:
    """Read a message. Anything but a file, a pipe for example, could be without an end."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:  # noqa: PTH123 - a handle has no path
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise click.UsageError(f"{path}: is not a file")
            found = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.UsageError(f"{path}: cannot be read: {str(reason).lower()}") from error
    if len(found) > _LARGEST:
        raise click.UsageError(f"{path}: more than 64 kB is no SIP message")
    return found


def _commands() -> frozenset[str]:
    """Return the names of all commands of this version."""
    root = click.get_current_context().find_root()
    group = root.command
    return frozenset(group.list_commands(root)) if isinstance(group, click.Group) else frozenset()
