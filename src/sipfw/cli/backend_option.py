"""The option `--backend`, which several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

F = TypeVar("F", bound=Callable[..., Any])


class _BackendWord(click.Choice[str]):
    """`auto` and what the backends are called; they are asked when the option is needed."""

    def __init__(self) -> None:
        super().__init__(())

    @property
    def choices(self) -> tuple[str, ...]:
        """The words; the setter below is for the constructor of click."""
        from sipfw.deploy.choose import AUTO
        from sipfw.kernel.backend import backend_words

        return AUTO, *backend_words()

    @choices.setter
    def choices(self, words: Iterable[str]) -> None:
        del words


def backend_option(meaning: str) -> Callable[[F], F]:
    """Add `--backend`; `meaning` is the first sentence of its help."""
    return click.option(
        "--backend",
        envvar="SIPFW_BACKEND",
        type=_BackendWord(),
        default="auto",
        show_default=True,
        help=f"{meaning} `auto` takes what the host uses; `iptables` takes its iptables, legacy "
        "tables or the nf_tables flavour.",
    )
