"""The way back of a change that failed: our chains and jumps as they were before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sipfw.errors import BackendError
from sipfw.kernel.xtables.edit import TableEdit, undo
from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sipfw.kernel.xtables.nft_tools import NftFlavourTools
    from sipfw.kernel.xtables.standing import Adoption
    from sipfw.kernel.xtables.tools import LegacyTools, TableKey, Tables

# The iptables-save and -restore programs of one flavour.
Tools: TypeAlias = "LegacyTools | NftFlavourTools"

# How often a program that does not wait for us may come between our listing and our load.
ATTEMPTS = 3


def load_edits(
    tools: Tools,
    edits: Sequence[tuple[Family, TableEdit]],
    live: Callable[[], object] | None = None,
) -> None:
    """Have both families' texts parsed, then load them; `live` is called as soon as one is in."""
    texts = {
        family: "".join(edit.text() for each, edit in edits if each is family) for family in Family
    }
    texts = {family: text for family, text in texts.items() if text}
    for family, text in texts.items():
        tools.test(family, text)
    for family, text in texts.items():
        tools.load(family, text)
        if live is not None:
            live()


@dataclass(frozen=True, slots=True)
class WayBack:
    """The tables as they were, and what of them a change may have touched."""

    tools: Tools
    tables: Tables
    touched: tuple[TableKey, ...]
    adoption: Adoption

    def go(self, live: Callable[[], object]) -> list[str]:
        """Take our chains and jumps back to `tables`; return notes on what could not be put back.

        Rules of others stay as they are now. Looks again after each load, since one of them may
        have come between; the load then fails, or a place is another one. Calls `live` before the
        first load.
        """
        notes: dict[str, None] = {}
        for attempt in range(ATTEMPTS):
            edits = self._edits()
            notes |= dict.fromkeys(note for _, edit in edits for note in edit.notes)
            if not any(edit.lines for _, edit in edits):
                return [*notes]
            live()
            try:
                load_edits(self.tools, edits)
            except BackendError:
                if attempt == ATTEMPTS - 1:
                    raise
        still = [f"{family} {edit.name}" for family, edit in self._edits() if edit.lines]
        if still:
            raise BackendError(f"these tables differ from before: {', '.join(still)}")
        return [*notes]

    def _edits(self) -> list[tuple[Family, TableEdit]]:
        now = self.tools.existing(Family.IP) | self.tools.existing(Family.IP6)
        before, adoption, legacy = self.tables, self.adoption, self.tools.legacy
        return [
            (key[0], undo(key, before.get(key), now.get(key), adoption, legacy=legacy))
            for key in self.touched
        ]
