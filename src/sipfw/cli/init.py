"""`sipfw init`: a commented starter policy from what this host shows."""

from __future__ import annotations

from pathlib import Path

import click

from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say
from sipfw.cli.which_policy import DEFAULT_POLICY
from sipfw.errors import Exit


@click.command("init")
@root_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help=f"Write to this file; `-` is stdout. Default: /{DEFAULT_POLICY}.",
)
@click.option("--switch", help="Use this softswitch. Default: detected from the listening ports.")
@click.option("--profile", default="default", show_default=True, help="Start from this profile.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--yes", is_flag=True, help="Do not ask; use what was detected.")
def command(
    *,
    root: Path,
    output: Path | None,
    switch: str | None,
    profile: str,
    force: bool,
    yes: bool,
) -> int:
    """Write a starter policy: listening SIP ports, the SSH client and interfaces are looked up.

    Gateways of Asterisk, FreeSWITCH, Kamailio and OpenSIPS, whom fail2ban ignores, whom a script
    lets in and who talks SIP now become commented peers: nobody is trusted until you say so.
    Without a terminal nothing is asked.
    """
    import sys

    from sipfw.errors import BackendError
    from sipfw.host.files import write_atomically
    from sipfw.host.survey import survey
    from sipfw.policy.load import Request, load
    from sipfw.policy.starter import starter_policy

    load(Request(profile=profile, switch=switch))
    found = survey()
    networks = list(found.admin_candidates)
    if networks and not yes and sys.stdin.isatty():
        question = f"Admin network (you are connected from {networks[0]})"
        networks = [
            click.prompt(question, default=networks[0], err=True, value_proc=_checked_network)
        ]
    text = starter_policy(
        profile=profile,
        switch=switch or found.switch,
        admin_networks=networks,
        udp_ports=found.udp_ports,
        tcp_ports=found.tcp_ports,
        interfaces=found.interfaces,
        found=_peers_found(root, (*found.udp_ports, *found.tcp_ports)),
    )
    if output == Path("-"):
        say(text.rstrip("\n"))
        return Exit.CLEAN
    target = output or root / DEFAULT_POLICY
    try:
        exists = target.exists()
    except PermissionError as error:
        raise BackendError(f"{target}: permission denied", hint="use sudo") from error
    if exists and not force:
        raise BackendError(f"{target} exists", hint="use --force to overwrite it")
    write_atomically(target, text)
    did(changed=True, file=str(target))
    complain(f"wrote {target}; add your carriers, then: sipfw check --policy {target}")
    return Exit.CLEAN


def _peers_found(root: Path, ports: tuple[int, ...]) -> list[str]:
    from sipfw.cli.found import find_gateways
    from sipfw.monitor.gateways.suggest import commented_peers
    from sipfw.ruleset.match import PortRange

    return commented_peers(find_gateways(root, [PortRange(port, port) for port in ports]))


def _checked_network(text: str) -> str:
    """Ask again for anything that is no network."""
    from sipfw.policy.types import parse_network

    try:
        return str(parse_network(text.strip()))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
