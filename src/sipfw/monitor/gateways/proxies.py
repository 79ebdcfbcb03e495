"""Lists of Kamailio and OpenSIPS: destinations of dispatcher, addresses of permissions.

kamailio.org/docs/modules/stable: dispatcher, "Destination List File" (`setid destination flags
priority attrs`), and permissions, `address_file` (`group address mask port tag`). OpenSIPS had
the list of dispatcher up to 1.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.monitor.gateways.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOURTH_IS_PORT = 4


def dispatcher(text: str) -> Iterator[Entry]:
    """Read the destinations; a set is a gateway."""
    for number, words in _lines(text):
        yield Entry(number, f"dispatcher-{words[0]}", (words[1],))


def permissions(text: str) -> Iterator[Entry]:
    """Read the addresses of a group, which may have a tag."""
    for number, words in _lines(text):
        place = words[1]
        if "/" not in place and len(words) > 2 and words[2].isdigit():
            place = f"{place}/{words[2]}"
        tag = words[-1] if len(words) > _FOURTH_IS_PORT else f"permissions-{words[0]}"
        yield Entry(number, tag, (place,))


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if len(words) > 1 and words[0].isdigit():
            yield number, words
