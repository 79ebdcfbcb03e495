"""What a generation holds as plain data, to tell whether two of them mean the same.

Read without the ruleset's types: it costs a sixth of `read_ruleset`, and a history needs twenty.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sipfw.deploy.generations import Damaged, Generation, read_generation, read_texts
from sipfw.deploy.made_from import policy_file
from sipfw.ruleset.codec import encode

if TYPE_CHECKING:
    from sipfw.deploy.generations import Content
    from sipfw.host.files import Layout


@dataclass(frozen=True, slots=True)
class StoredContent:
    """The plain data of a ruleset and of its policy, and what they were made for."""

    ruleset: Any
    policy: Any
    backend: str
    ipset: bool
    file: str | None


def read_content(layout: Layout, number: int) -> StoredContent | Damaged:
    """Return what generation `number` holds."""
    found = read_generation(layout, number)
    return found if isinstance(found, Damaged) else content_of(layout, found)


def content_of(layout: Layout, generation: Generation) -> StoredContent | Damaged:
    """Return what a generation holds."""
    texts = read_texts(layout, generation)
    if isinstance(texts, Damaged):
        return texts
    try:
        ruleset, policy = (json.loads(text) for text in texts)
        return StoredContent(
            ruleset["ruleset"],
            policy,
            generation.backend,
            generation.ipset,
            policy_file(generation.source),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Damaged(generation.number, f"it cannot be read: {error}")


def content_to_be(content: Content) -> StoredContent:
    """Return the same of what is to become a generation."""
    return StoredContent(
        json.loads(encode(content.ruleset))["ruleset"],
        json.loads(content.policy),
        content.backend,
        content.ipset,
        policy_file(content.source),
    )


def same_firewall(one: StoredContent, other: StoredContent) -> bool:
    """Tell whether they mean the same firewall, made from the same file.

    Where a value stands in its file is no difference, nor what host names mean today: a refresh
    follows that without a new generation.
    """
    told = (one.policy, one.backend, one.ipset, one.file)
    return told == (other.policy, other.backend, other.ipset, other.file) and bare(
        one.ruleset
    ) == bare(other.ruleset)


def bare(value: Any) -> Any:
    """Return plain data of a ruleset without origins and without the answers of DNS."""
    if isinstance(value, list):
        return [bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: bare(item) for name, item in value.items() if name != "origin"}
    if kept.get("resolved") is True:
        kept |= {"networks": [], "endpoints": []}
    return kept


def different_before(layout: Layout, live: Generation) -> int | None:
    """Return the last generation before `live` that means something else; None for no firewall.

    One that cannot be read ends the search: nobody knows what it was.
    """
    content = content_of(layout, live)
    number = live.before
    while number is not None and not isinstance(content, Damaged):
        found = read_generation(layout, number)
        if isinstance(found, Damaged):
            break
        other = content_of(layout, found)
        if isinstance(other, Damaged) or not same_firewall(content, other):
            break
        number = found.before
    return number
