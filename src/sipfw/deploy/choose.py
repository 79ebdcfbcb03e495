"""Chooses the backend by what the host really uses, and says why.

Legacy tables and nf_tables are asked one after the other, and a packet must pass both. So rules
that are split across them are never added to silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.activate import current
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.host.privilege import require_root
from sipfw.kernel.backend import Backend, Side, backend_names, backend_of, backends
from sipfw.kernel.detect import PacketFilters, live_twice, look, some, the_one_of

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.host.runner import Runner

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backend, and what the operator should know about the choice."""

    backend: Backend
    remarks: tuple[Diagnostic, ...] = ()


def choose(
    wanted: str, layout: Layout, *, ipset: bool = True, host: Runner | None = None
) -> Chosen:
    """Return the backend that `--backend` names, or the one that suits the host.

    `host` is the look at the packet filter that it shares with what comes after.

    Raises BackendError where the host's rules are split across legacy tables and nf_tables.
    """
    require_root()
    recorded = current(layout).backend
    if recorded is not None and recorded not in backend_names():
        raise BackendError(
            f"{layout.applied}: backend {recorded!r} is not known",
            hint="this sipfw may be older than the one that applied",
        )
    called = [item for item in backends(ipset=ipset, host=host) if wanted in item.facts.words]
    exact = called[0] if len(called) == 1 else None
    if recorded is not None and (wanted == AUTO or recorded in {item.name for item in called}):
        last = backend_of(recorded, ipset=ipset, host=host)
        return Chosen(last) if exact else _with_reason(last, "the last apply used it")
    found = look(host)
    if exact is not None:
        return Chosen(exact, _split_warning(found, exact))
    if wanted == AUTO:
        name, reason = _that_can(found, *for_host(found, ipset=ipset), ipset=ipset)
        return _with_reason(backend_of(name, ipset=ipset, host=host), reason)
    meant, reason = _meant(found, called)
    chosen = _with_reason(meant, reason)
    return Chosen(meant, (*chosen.remarks, *_split_warning(found, meant)))


def for_host(host: PacketFilters, *, ipset: bool = True) -> tuple[str, str]:
    """Return the name of the backend that suits the host, and why."""
    if host.ours:
        return the_one_of(host.ours)
    known = backends(ipset=ipset)
    if split := _foreign_split(host):
        *words, last = (item.facts.words[-1] for item in known)
        raise BackendError(
            split,
            hint="move them to one side, or name the side that sipfw shall use with --backend "
            f"{', '.join(words)} or {last}",
        )
    for item in known:
        reason = item.suits(host)
        if reason is not None:
            return item.name, reason
    raise BackendError("this host has neither iptables nor nft", hint="install nftables")


def _that_can(host: PacketFilters, name: str, reason: str, *, ipset: bool) -> tuple[str, str]:
    """Return another backend where nothing is in use and the one that suits lacks something."""
    if host.ours or not host.is_empty:
        return name, reason
    others = [item for item in backends(ipset=ipset) if item.name != name and item.suits(host)]
    lack = backend_of(name, ipset=ipset).lack() if others else None
    if lack is None:
        return name, reason
    for item in others:
        if item.lack() is None:
            return item.name, f"this host has no rules yet, and {lack}"
    return name, reason


def split_of(host: PacketFilters) -> str | None:
    """Say how rules are split over two packet filters; None where they are in one."""
    if len(host.ours) > 1:
        return live_twice(host.ours)
    return _foreign_split(host)


def _foreign_split(host: PacketFilters) -> str | None:
    if not host.legacy or not (host.iptables_nft or host.nft):
        return None
    return (
        "this host's rules are split, and a packet must pass both sides: legacy iptables has "
        f"{some(host.legacy)}; nf_tables has {some((*host.iptables_nft, *host.nft))}"
    )


def _meant(host: PacketFilters, called: list[Backend]) -> tuple[Backend, str]:
    """Return which of those that share a word is meant on this host, and why."""
    for item in called:
        reason = item.meant(host)
        if reason is not None:
            return item, reason
    raise BackendError("this host has none of the backends of that name")


def _split_warning(host: PacketFilters, chosen: Backend) -> tuple[Diagnostic, ...]:
    """Warn of rules on the side where sipfw will not be."""
    side = Side.NF_TABLES if chosen.facts.side is Side.LEGACY else Side.LEGACY
    other = host.beside(chosen.facts.side)
    if not other:
        return ()
    message = (
        f"sipfw goes into {chosen.facts.title.partition(',')[0]}, and {side} has rules too, which "
        f"a packet must pass as well: {some(other)}"
    )
    return (Diagnostic(message, "backend", severity=Severity.WARNING),)


def _with_reason(chosen: Backend, reason: str) -> Chosen:
    note = Diagnostic(f"{chosen.facts.title}: {reason}", "backend", severity=Severity.NOTE)
    return Chosen(chosen, (note,))
