"""The words of one lowered nftables rule: what it says, so also what its digest is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipfw.lower.nftables_plan import NftRule, NftTextRule


def statement(rule: NftRule, counter: str = "counter") -> str:
    """Return a rule without its comment; `counter` is how its counter starts."""
    words = [rule.match, counter if rule.counted else "", rule.action]
    return " ".join(word for word in words if word)


def search_text(rule: NftTextRule) -> str:
    """Return what nft has no words for: the bytes in hexadecimal, where they may begin, the end."""
    verdict = "drop" if rule.verdict == "drop" else f"goto {rule.verdict.chain}"
    return f"search {rule.pattern.hex()} from {rule.offset} {verdict}"
