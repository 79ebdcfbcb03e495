"""The option `--backend`, which several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

BACKENDS = ("auto", "iptables", "iptables-legacy", "iptables-nft", "nftables")


def backend_option(meaning: str) -> Callable[[F], F]:
    """Add `--backend`; `meaning` is the first sentence of its help."""
    return click.option(
        "--backend",
        envvar="SIPFW_BACKEND",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help=f"{meaning} `auto` takes what the host uses; `iptables` takes its iptables, legacy "
        "tables or the nf_tables flavour.",
    )
