"""Scanner signatures: the shipped list, the bytes that the kernel looks for, and their selection.

Reads its own data file and nothing else. Knows no backend: how a pattern is quoted, hex-encoded or
placed at an offset is the lowering's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sipfw.diagnostics import Severity
from sipfw.policy.common_texts import why_common

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# XT_STRING_MAX_PATTERN_SIZE, include/uapi/linux/netfilter/xt_string.h; iptables 1.8.9 takes 128
# bytes and refuses 129, and the kernel refuses an empty pattern.
MAX_PATTERN = 128

# A user's text is searched anywhere; three bytes turn up in tags and branches by chance.
_SHORTEST_SAFE_TEXT = 4

_USER_AGENT = b"User-Agent: "
_LINE_END = b"\r\n"
_ID_LENGTH = 40


class Where(StrEnum):
    """The part of a message that carries the text."""

    USER_AGENT = "user_agent"
    MARK = "mark"
    REQUEST_LINE = "request_line"


class Anchor(StrEnum):
    """How firmly a text is tied to its place: a User-Agent to its header, a mark to its line."""

    CONTAINS = "contains"
    PREFIX = "prefix"
    EXACT = "exact"
    ENDS = "ends"


_ANCHORS = {
    Where.USER_AGENT: (Anchor.CONTAINS, Anchor.PREFIX, Anchor.EXACT),
    Where.MARK: (Anchor.CONTAINS, Anchor.ENDS),
    Where.REQUEST_LINE: (Anchor.CONTAINS,),
}


class Tier(StrEnum):
    """Searched by default, searched on demand, or listed so that nobody adds it unawares."""

    BLOCK = "block"
    OPTIONAL = "optional"
    NEVER = "never"


class Risk(StrEnum):
    """How likely the pattern is to hit a legitimate message."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


def check_text(text: str) -> str | None:
    """Say what is wrong with a signature text, or None where the kernel can search it."""
    if not text:
        return "is empty; write the text to look for, or delete the entry"
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        return "has control characters, such as a line break or tab; write one line of plain text"
    if not text.isascii():
        return "has characters outside ASCII; write the bytes that the tool sends in plain ASCII"
    if len(text) > MAX_PATTERN:
        return f"is {len(text)} bytes long; the kernel searches at most {MAX_PATTERN}, shorten it"
    return None


class Signature(BaseModel):
    """One text that tells a scanner from a phone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=_ID_LENGTH + 10)
    text: str
    names: tuple[str, ...] = ()
    where: Where
    anchor: Anchor = Anchor.CONTAINS
    tier: Tier
    risk: Risk
    source: str = Field(min_length=1)
    note: str = ""

    @field_validator("text")
    @classmethod
    def _searchable(cls, text: str) -> str:
        if problem := check_text(text):
            raise ValueError(problem)
        return text

    @model_validator(mode="after")
    def _consistent(self) -> Signature:
        allowed = _ANCHORS[self.where]
        if self.anchor not in allowed:
            raise ValueError(
                f"a {self.where.value} can be anchored as {' or '.join(allowed)}, "
                f"not as {self.anchor.value}"
            )
        if len(self.pattern) > MAX_PATTERN:
            raise ValueError(
                f"is {len(self.pattern)} bytes long with its anchor; "
                f"the kernel searches at most {MAX_PATTERN}, shorten it"
            )
        return self

    @property
    def pattern(self) -> bytes:
        """The bytes that the kernel looks for."""
        text = self.text.encode("ascii")
        match self.anchor:
            case Anchor.CONTAINS:
                return text
            case Anchor.PREFIX:
                return _USER_AGENT + text
            case Anchor.EXACT:
                return _USER_AGENT + text + _LINE_END
            case Anchor.ENDS:
                return text + _LINE_END

    @property
    def offset_zero(self) -> bool:
        """Whether the pattern must stand at the first byte and in its exact case."""
        return self.where is Where.REQUEST_LINE

    @property
    def all_names(self) -> tuple[str, ...]:
        """What an operator may write for this signature."""
        return (self.id, self.text, *self.names)

    def named(self, name: str) -> bool:
        """Whether an operator who writes `name` means this signature."""
        return name.casefold() in {known.casefold() for known in self.all_names}


@dataclass(frozen=True, slots=True)
class SelectionNote:
    """What the operator should know about one text in `add`, `remove` or `optional`."""

    field: Literal["add", "remove", "optional"]
    index: int
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True)
class _Request:
    """One text of an operator's list, with its place for notes."""

    field: Literal["add", "remove", "optional"]
    index: int
    text: str

    def note(self, message: str, severity: Severity = Severity.WARNING) -> SelectionNote:
        """Return a note about this text."""
        return SelectionNote(self.field, self.index, severity, f"'{self.text}' {message}")


@dataclass(frozen=True, slots=True)
class SignatureSelection:
    """The signatures to search for, shipped ones first, and the notes on how they were chosen."""

    signatures: tuple[Signature, ...]
    notes: tuple[SelectionNote, ...] = ()


@lru_cache(maxsize=1)
def shipped_signatures() -> tuple[Signature, ...]:
    """Load the signatures that come with sipfw, all tiers, in the order of the file."""
    text = files("sipfw").joinpath("data", "signatures.yaml").read_text(encoding="utf-8")
    # Nearly every command reads the file; the parser in C takes a tenth of the time.
    fast = yaml.__with_libyaml__
    entries = yaml.load(text, Loader=yaml.CSafeLoader) if fast else yaml.safe_load(text)
    return tuple(Signature.model_validate(entry) for entry in entries)


class _Chosen:
    """Signatures, and what is asked of them for each of the thousands that may be added."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        self.signatures: list[Signature] = []
        self.ids: set[str] = set()
        self._names: set[str] = set()
        # Patterns by their place in the list, and their lengths: few, where patterns may be many.
        self._places: dict[bytes, int] = {}
        self._lengths: set[int] = set()
        for signature in signatures:
            self.append(signature)

    def append(self, signature: Signature) -> None:
        """Add one at the end."""
        self.signatures.append(signature)
        self.ids.add(signature.id)
        self._names |= {name.casefold() for name in signature.all_names}
        if not signature.offset_zero:
            pattern = signature.pattern.lower()
            self._places.setdefault(pattern, len(self.signatures) - 1)
            self._lengths.add(len(pattern))

    def names(self, text: str) -> bool:
        """Whether an operator who writes `text` means one of these."""
        return text.casefold() in self._names

    def catching(self, text: str) -> Signature | None:
        """Return the first one that hits every packet which holds the text anywhere."""
        whole = text.encode("ascii").lower()
        found = [
            self._places[piece]
            for length in self._lengths
            for start in range(len(whole) - length + 1)
            if (piece := whole[start : start + length]) in self._places
        ]
        return self.signatures[min(found)] if found else None


def select(
    shipped: Sequence[Signature],
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> SignatureSelection:
    """Choose the block tier, switch on `optional`, leave out `remove`, then append `add`.

    Texts match ids or texts without regard to case. Raises ValueError for an added text that
    `check_text` objects to: the caller reports those with their place in the file.
    """
    notes: list[SelectionNote] = []
    chosen = _switched_on(shipped, _requests("optional", optional), notes)
    chosen = _left_out(shipped, chosen, _requests("remove", remove), notes)
    growing = _Chosen(chosen)
    for request in _requests("add", add):
        added = _resolve_addition(request, shipped, growing, notes)
        if added is not None:
            growing.append(added)
    return SignatureSelection(tuple(growing.signatures), tuple(notes))


def _requests(
    field: Literal["add", "remove", "optional"], texts: Sequence[str]
) -> Iterable[_Request]:
    return [_Request(field, index, text) for index, text in enumerate(texts)]


def _switched_on(
    shipped: Sequence[Signature],
    requests: Iterable[_Request],
    notes: list[SelectionNote],
) -> list[Signature]:
    wanted: set[str] = set()
    offered = [signature for signature in shipped if signature.tier is Tier.OPTIONAL]
    for request in requests:
        found = {signature.id for signature in offered if signature.named(request.text)}
        if found:
            wanted |= found
        elif any(s.tier is Tier.BLOCK and s.named(request.text) for s in shipped):
            notes.append(request.note("is on by default, no need to list it", Severity.NOTE))
        else:
            notes.append(
                request.note(f"is not an optional signature{_suggestion(request.text, offered)}")
            )
    return [s for s in shipped if s.tier is Tier.BLOCK or s.id in wanted]


def _left_out(
    shipped: Sequence[Signature],
    chosen: list[Signature],
    requests: Iterable[_Request],
    notes: list[SelectionNote],
) -> list[Signature]:
    removed: set[str] = set()
    for request in requests:
        found = {signature.id for signature in chosen if signature.named(request.text)}
        if found:
            removed |= found
        elif any(signature.named(request.text) for signature in shipped):
            notes.append(request.note("is not on, so there is nothing to remove", Severity.NOTE))
        else:
            near = _suggestion(request.text, chosen)
            notes.append(request.note(f"is not a shipped signature{near}", Severity.ERROR))
    return [signature for signature in chosen if signature.id not in removed]


def _resolve_addition(
    request: _Request,
    shipped: Sequence[Signature],
    chosen: _Chosen,
    notes: list[SelectionNote],
) -> Signature | None:
    """Prefer a shipped signature, anchored where that matters, over the operator's text."""
    if chosen.names(request.text):
        notes.append(request.note("is already shipped and on", Severity.NOTE))
        return None
    for signature in shipped:
        if signature.tier is Tier.OPTIONAL and signature.named(request.text):
            notes.append(
                request.note(f"is shipped as '{signature.id}', which is used", Severity.NOTE)
            )
            return signature
    user = _user_signature(request.text, chosen.ids)
    if (other := chosen.catching(user.text)) is not None:
        notes.append(request.note(f"is already caught by '{other.id}'", Severity.NOTE))
        return None
    notes.extend(_dangers(request, shipped))
    return user


def _dangers(request: _Request, shipped: Sequence[Signature]) -> Iterable[SelectionNote]:
    if (common := why_common(request.text)) is not None:
        yield request.note(f"{common}; write more of what only the tool sends", Severity.ERROR)
        return
    # The text is searched anywhere, so it hits a legitimate name as soon as that name contains it.
    for signature in shipped:
        if signature.tier is Tier.NEVER and request.text.casefold() in signature.text.casefold():
            message = f"would block legitimate traffic, it hits '{signature.text}'"
            yield request.note(f"{message}: {signature.note}", Severity.ERROR)
            return
    if len(request.text) < _SHORTEST_SAFE_TEXT:
        yield request.note(
            f"is so short that it will turn up by chance; write at least {_SHORTEST_SAFE_TEXT} "
            "characters"
        )


def _user_signature(text: str, taken: set[str]) -> Signature:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower())[:_ID_LENGTH].strip("-") or "text"
    name, count = f"user-{slug}", 1
    while name in taken:
        count += 1
        name = f"user-{slug}-{count}"
    return Signature(
        id=name,
        text=text,
        where=Where.USER_AGENT,
        tier=Tier.BLOCK,
        risk=Risk.MEDIUM,
        source="policy",
    )


def _suggestion(text: str, candidates: Iterable[Signature]) -> str:
    """Name the nearest signature and those that are nearly as near."""
    names = {name.casefold(): name for signature in candidates for name in signature.all_names}
    wanted = text.casefold()
    near = get_close_matches(wanted, names, cutoff=0.85) or get_close_matches(wanted, names, n=1)
    # `sipsak` and `sipsak ` are two, and either leads to both.
    nearest = {re.sub(r"[^a-z0-9]", "", name): f"'{names[name]}'" for name in reversed(near)}
    listed = " or ".join(reversed(nearest.values()))
    return f"; did you mean {listed}?" if near else "; see the shipped list"
