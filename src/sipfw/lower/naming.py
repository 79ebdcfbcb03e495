"""Names that the kernel sees: sets, hashlimit tables, rule comments."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from sipfw.lower.nftables_plan import NftRule
from sipfw.lower.nftables_words import search_text, statement
from sipfw.lower.xtables import Family
from sipfw.lower.xtables_words import option_words, unmarked_arguments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.lower.nftables_plan import NftTextRule
    from sipfw.lower.xtables import XParam, XRule

MARK = "sipfw:"

# Which words a digest is made of. It is hashed with them and counts up when unchanged rules are to
# get other digests, because their words are put together otherwise: with the first apply after
# that, every rule is replaced under its id, and the buckets of hashlimit start full.
_CANONICAL = "1"

_COMMENT = re.compile(r"^sipfw:(?P<id>[^#]+)#(?P<digest>[0-9a-f]{8})$")

# `SIP_TRUSTED4`, `SIP_SCANNER_BLOCK6_text_0a1b2c3d`.
_NFT_CHAIN = re.compile(r"^(?P<name>.*?)(?P<family>[46])(?P<text>_text)?(?:_[0-9a-f]{8})?$")
_NFT_FAMILIES = {"4": Family.IP, "6": Family.IP6}

# IPSET_MAXNAMELEN is 32 with the NUL; the loader appends `-new` while it swaps.
MAX_SET_NAME = 31

# hashlimit revisions 1 and 2 keep the name in IFNAMSIZ bytes (xt_hashlimit.h).
_HASHLIMIT_NAME = 15


def set_name(name: str, family: Family) -> str:
    """Return the kernel's name of a set or recent list in one family."""
    return f"sipfw-{name}{4 if family is Family.IP else 6}"


def set_family(kernel_name: str) -> Family:
    """Return the family of a set by the digit that `set_name` puts last."""
    return Family.IP6 if kernel_name.endswith("6") else Family.IP


def hashlimit_name(name: str, params: Iterable[XParam]) -> str:
    """Return a table name that changes with its parameters.

    The kernel keeps the old rate when a table of the same name lives on through a swap.
    """
    digest = _digest(" ".join([name, *option_words(params)]))
    return f"sf-{name[:6]}-{digest}"[:_HASHLIMIT_NAME]


def comment(rule_id: str, rule: XRule, family: Family) -> str:
    """Return `sipfw:<id>#<digest>`: the id maps to the policy, the digest to the rule's content."""
    return _comment(rule_id, f"{family} {unmarked_arguments(rule)}")


def nft_comment(rule_id: str, rule: NftRule | NftTextRule) -> str:
    """Return the comment of an nftables rule; nft takes 128 bytes."""
    words = statement(rule) if isinstance(rule, NftRule) else search_text(rule)
    return _comment(rule_id, words)


def text_chain_name(chain: str, rules: Iterable[NftTextRule]) -> str:
    """Return a name that changes with the searches; a rule's comment stands for its words."""
    digest = _digest("\n".join(rule.comment for rule in rules))
    return f"{chain}_text_{digest[:8]}"


def _comment(rule_id: str, words: str) -> str:
    return f"{MARK}{rule_id}#{_digest(words)[:8]}"


def _digest(words: str) -> str:
    return hashlib.sha256(f"{_CANONICAL} {words}".encode()).hexdigest()


def split_comment(text: str) -> tuple[str, str] | None:
    """Return id and digest of a rule comment of ours, None for anything else."""
    found = _COMMENT.match(text)
    return None if found is None else (found["id"], found["digest"])


def search_words(pattern: bytes, start: int) -> str:
    """Say what a search of ours looks for, and from which byte of the packet on."""
    return f"{repr(pattern)[1:]} from byte {start}"


def base_id(rule_id: str) -> str:
    """Return the ruleset's id of a rule that lowering had to split (`identity.trusted/2`)."""
    return rule_id.partition("/")[0]


def split_nft_chain(name: str) -> tuple[str, Family] | None:
    """Return an nftables chain's name in the ruleset and its family; None for a base chain."""
    found = _NFT_CHAIN.match(name)
    if found is None:
        return None
    return f"{found['name']}{found['text'] or ''}", _NFT_FAMILIES[found["family"]]
