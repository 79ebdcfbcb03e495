"""Comments for the rules and sets of the script: what they do, and the policy value behind them.

Summaries, names and file names may come from users, so all text passes `one_line` here.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from sipfw.lower.hex_string import hex_string
from sipfw.lower.ipset import windows
from sipfw.lower.naming import base_id, set_name, split_comment
from sipfw.lower.xtables import Family
from sipfw.ruleset.match import (
    Address,
    ConnectionsAbove,
    ConntrackState,
    CountAbove,
    HasPayload,
    Icmp,
    InSet,
    Interface,
    IpProtocol,
    MovedPayload,
    OpenedTo,
    PayloadAt,
    PayloadContains,
    Ports,
    Protocol,
    RateAbove,
    RateWithin,
    SeenAtLeast,
    ShorterThan,
    StartsWithOneOf,
    TcpSyn,
    VolumeAbove,
)
from sipfw.ruleset.rule import (
    Accept,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Goto,
    Jump,
    Log,
    NoTrack,
    Record,
    Reset,
    Return,
    UpdateSet,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.ruleset.match import Match
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Action, Origin, Rule

# Also keeps a comment far below the 10,240 bytes at which iptables-restore of 1.4.21 cuts a line.
_WIDTH = 120

_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 0x0D: "\\r", 0x0A: "\\n", 0x09: "\\t"}


@dataclass(frozen=True, slots=True)
class Comments:
    """Finished comment lines: of chains by name, of rules by id, of sets by name in the kernel."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def above_chain(self, name: str) -> tuple[str, ...]:
        """Return what stands above a chain's rules, its name at least."""
        return self.chains.get(name, (f"# {name}",))

    def above_rule(self, mark: str) -> tuple[str, ...]:
        """Return what stands above the rule of this mark, the same for all parts of a split one."""
        found = split_comment(mark)
        return () if found is None else self.rules.get(base_id(found[0]), ())


def comments_of(ruleset: Ruleset) -> Comments:
    """Return the comments for everything that is lowered from a ruleset."""
    return Comments(
        {
            chain.name: comment_lines(f"{chain.name}: {one_line(chain.summary)}")
            for chain in ruleset.chains
        },
        {rule.id: _above(rule) for chain in ruleset.chains for rule in chain.rules},
        {
            set_name(item.name, family): comment_lines(said(item.summary, item.origin))
            for item in (*ruleset.sets, *windows(ruleset))
            for family in Family
        },
    )


def one_line(text: str) -> str:
    """Return text that cannot leave the comment it is printed in."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def comment_lines(text: str, width: int = _WIDTH) -> tuple[str, ...]:
    """Break a text of one line into shell comments."""
    return tuple(
        textwrap.wrap(
            text,
            width,
            initial_indent="# ",
            subsequent_indent="#     ",
            break_on_hyphens=False,
        )
    )


def said(text: str, origin: Origin) -> str:
    """Return a text with the value of the policy that it comes from, as one line."""
    return f"{one_line(text)} ({one_line(str(origin))})"


def _above(rule: Rule) -> tuple[str, ...]:
    text = f"{one_line(_does(rule.action))}: {said(rule.summary, rule.origin)}"
    # These are ASCII that `shown` has made of any byte, and its blanks mean something.
    wanted = [words for match in rule.matches if (words := _gloss(match))]
    return comment_lines(f"{text}; looks for {', and '.join(wanted)}" if wanted else text)


def _does(action: Action) -> str:
    match action:
        case Accept():
            return "accepts"
        case Done():
            return "lets pass"
        case Return():
            return "goes back"
        case Drop():
            return "drops"
        case Reset():
            return "drops and resets"
        case Jump():
            return f"asks {action.chain}"
        case Goto():
            return f"sends to {action.chain}"
        case UpdateSet() | AddOnce():
            return f"adds to {action.set}"
        case DeleteFromSet():
            return f"takes out of {action.set}"
        case Record():
            return f"counts in {action.list}"
        case NoTrack():
            return "keeps untracked"
        case Log():
            return "logs"
        case _:
            assert_never(action)


def _gloss(match: Match) -> str:
    """Say in words what a rule writes as numbers or hex; empty for what can be read as it is."""
    match match:
        case PayloadAt():
            end = "not at the start" if match.negate else "at the start"
            return f"{shown(match.pattern)} {end}"
        case StartsWithOneOf():
            words = ", ".join(shown(word) for word in match.words)
            return f"{words if len(match.words) == 1 else f'one of {words}'} at the start"
        case PayloadContains() if "|" in hex_string(match.pattern):
            return shown(match.pattern)
        case HasPayload():
            return "a byte behind the TCP header"
        case MovedPayload():
            return "a longer IP header"
        case (
            PayloadContains()
            | Protocol()
            | Ports()
            | Address()
            | InSet()
            | Interface()
            | ConntrackState()
            | OpenedTo()
            | TcpSyn()
            | Icmp()
            | IpProtocol()
            | ShorterThan()
            | RateAbove()
            | RateWithin()
            | SeenAtLeast()
            | ConnectionsAbove()
            | CountAbove()
            | VolumeAbove()
        ):
            return ""
        case _:
            assert_never(match)


def shown(pattern: bytes) -> str:
    r"""Write bytes as quoted ASCII, others as `\r`, `\n`, `\t` or `\xff`."""
    characters = (
        _ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}")
        for byte in pattern
    )
    return f'"{"".join(characters)}"'
