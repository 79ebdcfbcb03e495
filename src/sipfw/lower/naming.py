"""Names that the kernel sees: sets, hashlimit tables, rule comments."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

from sipfw.lower.xtables import Family, XRule

MARK = "sipfw:"

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


def hashlimit_name(name: str, parameters: str) -> str:
    """Return a table name that changes with its parameters.

    The kernel keeps the old rate when a table of the same name lives on through a swap.
    """
    digest = hashlib.sha256(f"{name} {parameters}".encode()).hexdigest()
    return f"sf-{name[:6]}-{digest}"[:_HASHLIMIT_NAME]


def comment(rule_id: str, rule: XRule, family: Family) -> str:
    """Return `sipfw:<id>#<digest>`: the id maps to the policy, the digest to the rule's content."""
    plain = repr((family.value, replace(rule, comment="")))
    return f"{MARK}{rule_id}#{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def nft_comment(rule_id: str, content: str) -> str:
    """Return the comment of an nftables rule; nft takes 128 bytes."""
    return f"{MARK}{rule_id}#{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def split_comment(text: str) -> tuple[str, str] | None:
    """Return id and digest of a rule comment of ours, None for anything else."""
    found = _COMMENT.match(text)
    return None if found is None else (found["id"], found["digest"])


def base_id(rule_id: str) -> str:
    """Return the ruleset's id of a rule that lowering had to split (`identity.trusted/2`)."""
    return rule_id.partition("/")[0]


def split_nft_chain(name: str) -> tuple[str, Family] | None:
    """Return an nftables chain's name in the ruleset and its family; None for a base chain."""
    found = _NFT_CHAIN.match(name)
    if found is None:
        return None
    return f"{found['name']}{found['text'] or ''}", _NFT_FAMILIES[found["family"]]
