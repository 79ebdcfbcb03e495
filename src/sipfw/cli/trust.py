"""`sipfw trust`: trust a source for a time, without a word in the policy."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import answered, did
from sipfw.cli.manual import (
    complain_all,
    option_value,
    read_guests,
    report,
    timed_cells,
    timed_text,
)
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark, say, say_json, table
from sipfw.errors import Exit

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from sipfw.manual.trust import Guest

_HEAD = ("address", "left", "until", "why", "by", "in force")


@click.command("trust")
@click.argument("addresses", metavar="[ADDRESS|NETWORK|HOST|PEER]...", nargs=-1)
@click.option(
    "--for", "length", metavar="TIME", help="Trust for this long, such as 2h; at most 30d."
)
@click.option(
    "--reason", default="", metavar="TEXT", help="Record this reason, at most 80 characters."
)
@click.option(
    "--permanent",
    "peer",
    metavar="PEER",
    help="Put them into the policy file as this peer's, for good, in place of --for.",
)
@click.option("--end", is_flag=True, help="Stop trusting these addresses now.")
@click.option("--list", "listed", is_flag=True, help="List who is trusted temporarily.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@root_option
def command(
    *,
    addresses: tuple[str, ...],
    length: str | None,
    reason: str,
    peer: str | None,
    end: bool,
    listed: bool,
    as_json: bool,
    root: Path,
) -> int:
    """Let these addresses in as trusted peers for a time: no limit, no ban, SIP and RTP.

    What has banned them is ended. The first trust makes a new generation of the same policy, with
    a rule for it. Lasting peers belong into the policy.

    PEER is a trusted peer of the policy in force: it is let in over every transport and from every
    port. A network is trusted address by address. A host name is followed as a peer's is, by
    every refresh while its time lasts; whom you have banned by hand it does not let in.
    """
    if peer is not None:
        if length is not None or reason or end or listed or not addresses:
            raise click.UsageError("--permanent goes with addresses only")
        work = partial(_permanent, root, peer, addresses)
    else:
        _require_one_job(addresses, length, reason, end=end, listed=listed)
        if listed:
            return _list(root, as_json=as_json)
        work = partial(_change, root, addresses, length, reason, end=end)
    return answered("trust", work) if as_json else work()


def _change(
    root: Path, addresses: tuple[str, ...], length: str | None, reason: str, *, end: bool
) -> int:
    peers = [text for text in addresses if _is_peer_name(text)]
    others = [text for text in addresses if text not in peers]
    keys = [key for key in map(_key, others) if key is not None]
    found = read_guests(text for text in others if _key(text) is None)
    if peers:
        found, keys = _with_peers(root, peers, found, keys)
    seconds = 0 if length is None else option_value("--for", length, _seconds)
    if end:
        return _end(root, found, keys)
    return _trust(root, found, keys, seconds, reason)


def _permanent(root: Path, name: str, addresses: tuple[str, ...]) -> int:
    from sipfw.cli.peer import policy_file, write
    from sipfw.manual.policy_peers import adding

    return write(adding(policy_file(None, root), name, addresses), dry_run=False, yes=False)


def _require_one_job(
    addresses: tuple[str, ...],
    length: str | None,
    reason: str,
    *,
    end: bool,
    listed: bool,
) -> None:
    if end and listed:
        raise click.UsageError("--end and --list do not go together")
    if bool(addresses) == listed:
        raise click.UsageError("name addresses, or say --list")
    if (end or listed) and (length is not None or reason):
        raise click.UsageError("--for and --reason go with a new trust only")
    if not (end or listed) and length is None:
        raise click.UsageError("say for how long: --for 2h")


def _seconds(text: str) -> int:
    from sipfw.manual.trust import LONGEST_TRUST
    from sipfw.policy.quantities import parse_duration, shown

    seconds = parse_duration(text)
    if seconds > LONGEST_TRUST:
        raise ValueError(f"{shown(text)} is too long for a trust by hand; write at most 30d")
    return seconds


def _key(text: str) -> str | None:
    """Return what is asked of DNS for a host name; None for what is to be an address."""
    from sipfw.policy.types import Hostname, parse_peer_address

    try:
        found = parse_peer_address(text)
    except ValueError:
        return None
    return found.key if isinstance(found, Hostname) else None


def _is_peer_name(text: str) -> bool:
    from sipfw.policy.types import parse_identifier

    try:
        parse_identifier(text)
    except ValueError:
        return False
    return True


def _with_peers(
    root: Path,
    peers: list[str],
    addresses: list[IPv4Address | IPv6Address],
    keys: list[str],
) -> tuple[list[IPv4Address | IPv6Address], list[str]]:
    """Add what the peers of the firewall in force send SIP from."""
    from sipfw.host.files import Layout
    from sipfw.manual.peers_by_name import sources_of_peers

    found = sources_of_peers(Layout(root), peers)
    return [*dict.fromkeys([*addresses, *found.addresses])], [*dict.fromkeys([*keys, *found.keys])]


def _trust(
    root: Path,
    addresses: list[IPv4Address | IPv6Address],
    keys: list[str],
    seconds: int,
    reason: str,
) -> int:
    from sipfw.deploy.manual_list import Book, checked_reason
    from sipfw.deploy.names.cache import resolution_warnings
    from sipfw.host.files import Layout
    from sipfw.manual.trust import trust
    from sipfw.manual.trust_names import trust_names

    why = option_value("--reason", reason, checked_reason)
    until = time.time() + seconds
    if keys:
        named = trust_names(Layout(root), keys, seconds, why)
        report(named.done)
        remark(resolution_warnings(named.resolution))
        complain_all(list(named.texts))
        did(changed=True)
        complain_all([f"trusted: {timed_text(name, seconds, until)}" for name in map(_bare, keys)])
    if addresses:
        done = trust(Layout(root), addresses, seconds, why)
        report(done)
        complain_all([f"its ban by hand is ended: {item}" for item in done.order.books[Book.BANS]])
        did(changed=True)
        complain_all([f"trusted: {timed_text(item, seconds, until)}" for item in addresses])
    return Exit.CLEAN


def _bare(key: str) -> str:
    from sipfw.deploy.names.resolve import name_of

    return name_of(key)


def _end(root: Path, addresses: list[IPv4Address | IPv6Address], keys: list[str]) -> int:
    from sipfw.host.files import Layout
    from sipfw.manual.trust import end_trust
    from sipfw.manual.trust_names import end_names

    if keys:
        named = end_names(Layout(root), keys)
        report(named.done)
        did(changed=True)
        complain_all([f"not trusted by hand: {name}" for name in named.strangers])
        complain_all(list(named.texts))
    if addresses:
        done = end_trust(Layout(root), addresses)
        report(done.done)
        did(changed=bool(done.ended))
        complain_all([f"not trusted by hand: {address}" for address in done.strangers])
        complain_all([f"trusted no longer: {address}" for address in done.ended])
    return Exit.CLEAN


def _list(root: Path, *, as_json: bool) -> int:
    from sipfw.deploy.manual_list import FORMAT
    from sipfw.host.files import Layout
    from sipfw.manual.trust import list_trusts

    found, faults = list_trusts(Layout(root))
    remark(faults)
    if as_json:
        say_json({"format": FORMAT, "trusts": [_data(guest) for guest in found]})
    elif found:
        for line in table([_HEAD, *map(_row, found)], right={1}):
            say(line)
    else:
        complain("nobody is trusted for a time")
    return Exit.CLEAN


def _data(guest: Guest) -> dict[str, object]:
    from sipfw.manual.text import utc_text

    return {
        "address": str(guest.kept.address),
        "left": guest.left,
        "until": utc_text(guest.kept.until),
        "reason": guest.kept.reason,
        "by": guest.kept.who,
        "in_force": guest.in_kernel,
        "name": guest.name,
    }


def _row(guest: Guest) -> tuple[str, ...]:
    kept = guest.kept
    return (
        *timed_cells(kept.address, guest.left, kept.until),
        " ".join(filter(None, (kept.reason, guest.name and f"({guest.name})"))) or "-",
        kept.who,
        "yes" if guest.in_kernel else "no",
    )
