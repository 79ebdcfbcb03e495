"""What `apply` does about the archive of a removal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.cli.output import complain
from sipfw.words import pluralize

if TYPE_CHECKING:
    from sipfw.deploy.archive import Archive
    from sipfw.host.files import Layout


def archived(layout: Layout, *, wanted: bool) -> None:
    """Take the archive up where that is `wanted`; say that there is one where nothing is live."""
    from sipfw.deploy.archive import newest, take_up

    if wanted:
        found = take_up(layout)
        complain("there is no archive to take up" if found is None else f"taken up: {_what(found)}")
        return
    if not layout.state.exists() and (found := newest(layout)) is not None:
        complain(
            f"note: {found.folder} has {_what(found)} of a removal; --take-up brings them back"
        )


def _what(found: Archive) -> str:
    generations = pluralize(found.generations, "generation")
    return f"{generations}, {pluralize(found.bans, 'ban by hand', 'bans by hand')}"
