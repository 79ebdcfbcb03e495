"""`sipfw peer`: the trusted peers of the policy file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sipfw.cli.ask import ask, at_terminal
from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark, say, say_json, table
from sipfw.cli.which_policy import DEFAULT_POLICY, is_there
from sipfw.errors import Exit, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sipfw.manual.policy_peers import Edit
    from sipfw.policy.load import LoadedPolicy
    from sipfw.policy.model import Peer

F = TypeVar("F", bound="Callable[..., Any]")

_HEAD = ("name", "signalling", "media", "transports", "ports", "tier")


@click.group("peer")
def command() -> None:
    """Add, remove, list and test the trusted peers of the policy file.

    The file keeps its comments. What changes is shown and checked before it is written, and
    `sipfw apply` makes it live.
    """


def _file_options(function: F) -> F:
    option = click.option(
        "-f",
        "--policy",
        type=click.Path(path_type=Path, readable=False),
        help=f"The policy file. Default: /{DEFAULT_POLICY}.",
    )
    return root_option(option(function))


def _edit_options(function: F) -> F:
    dry = click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
    yes = click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
    return _file_options(dry(yes(function)))


@command.command("add")
@click.argument("name")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@_edit_options
def add(
    *,
    name: str,
    addresses: tuple[str, ...],
    policy: Path | None,
    root: Path,
    dry_run: bool,
    yes: bool,
) -> int:
    """Let NAME send SIP from these addresses, networks or host names, for good."""
    from sipfw.manual.policy_peers import adding

    return write(adding(policy_file(policy, root), name, addresses), dry_run=dry_run, yes=yes)


@command.command("remove")
@click.argument("name")
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@_edit_options
def remove(
    *,
    name: str,
    addresses: tuple[str, ...],
    policy: Path | None,
    root: Path,
    dry_run: bool,
    yes: bool,
) -> int:
    """Take these addresses out of the peer NAME; without any, the whole peer."""
    from sipfw.manual.policy_peers import removing

    return write(removing(policy_file(policy, root), name, addresses), dry_run=dry_run, yes=yes)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_file_options
def listed(*, as_json: bool, policy: Path | None, root: Path) -> int:
    """List the peers of the policy file."""
    loaded = _loaded(policy, root)
    peers = loaded.policy.trusted_peers
    if as_json:
        say_json([peer.model_dump(mode="json", by_alias=True) for peer in peers])
    elif peers:
        for line in table([_HEAD, *map(_row, peers)]):
            say(line)
    else:
        complain("the policy trusts no peer")
    return Exit.CLEAN


@command.command("test")
@click.argument("name")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@_file_options
def test(*, name: str, addresses: tuple[str, ...], policy: Path | None, root: Path) -> int:
    """Say whether the policy file takes packets from these addresses for NAME's.

    Host names are looked up. Exit code 1 means that one of them is not NAME's.
    """
    from sipfw.cli.manual import read_named
    from sipfw.manual.policy_peers import whose

    loaded = _loaded(policy, root)
    _require_known(name, loaded)
    answers = _answers(loaded, root)
    missed = False
    for address in read_named(addresses):
        if hasattr(address, "prefixlen"):
            raise click.UsageError(f"{address} is a network; name single addresses")
        owners = whose(loaded.policy, address, answers)
        mine = next((peer for peer in owners if peer.name == name), None)
        missed = missed or mine is None
        others = ", ".join(peer.name for peer in owners)
        if mine is not None:
            say(f"{address} is {name}'s{_bounds(mine)}")
        else:
            say(f"{address} is not {name}'s: {others or 'a stranger'}")
    return Exit.DIFFERENT if missed else Exit.CLEAN


def policy_file(policy: Path | None, root: Path) -> Path:
    """Return the file to edit. Raises PolicyError where there is none in the usual place."""
    from sipfw.deploy.made_from import policy_file_in_force
    from sipfw.diagnostics import Diagnostic
    from sipfw.host.files import Layout

    usual = root / DEFAULT_POLICY
    if policy is not None or is_there(usual):
        return policy or usual
    made = policy_file_in_force(Layout(root))
    hint = "sipfw init writes one" if made is None else f"what is in force was made from {made}"
    raise PolicyError([Diagnostic(f"no policy at {usual}; {hint}; name one with --policy")])


def write(edit: Edit, *, dry_run: bool, yes: bool) -> int:
    """Show a change and write it; at a terminal the operator is asked before."""
    for line in edit.diff:
        say(line)
    remark(edit.remarks)
    if dry_run:
        did(changed=False, file=str(edit.file))
        complain("dry run: nothing was written")
        return Exit.CLEAN
    if not yes and at_terminal() and not ask(f"write this to {edit.file}?"):
        complain("nothing was written")
        return Exit.DIFFERENT
    edit.write()
    did(changed=True, file=str(edit.file))
    complain(f"written: {edit.file}; it is not live yet: sipfw apply")
    return Exit.CLEAN


def _loaded(policy: Path | None, root: Path) -> LoadedPolicy:
    from sipfw.policy.load import Request, load

    return load(Request(policy_file(policy, root)))


def _require_known(name: str, loaded: LoadedPolicy) -> None:
    if name not in {peer.name for peer in loaded.policy.trusted_peers}:
        raise click.UsageError(f"{name!r} is no peer of the policy; see sipfw peer list")


def _answers(loaded: LoadedPolicy, root: Path) -> dict[str, Any]:
    from sipfw.deploy.names.cache import read_names, resolution_warnings, resolve_or_recall
    from sipfw.deploy.names.resolve import host_names
    from sipfw.host.files import Layout

    found = resolve_or_recall(host_names(loaded.policy), read_names(Layout(root)), None)
    remark(resolution_warnings(found))
    return dict(found.addresses)


def _row(peer: Peer) -> tuple[str, ...]:
    return (
        peer.name,
        _joined(peer.signalling),
        _joined(peer.media),
        _joined(item.value for item in peer.transports),
        _joined(peer.source_ports),
        peer.tier.value if peer.tier else "-",
    )


def _bounds(peer: Peer) -> str:
    transports = [item.value for item in peer.transports]
    over = f" over {', '.join(transports)}" if transports else ""
    return f"{over} from port {_joined(peer.source_ports)}" if peer.source_ports else over


def _joined(items: Any) -> str:
    return ", ".join(map(str, items)) or "-"
