"""What is wrong, where, and what to do: the only place that formats `file:line: field: message`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error stops the command; a warning is printed; a note explains."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a file; `line` counts from 1 and is None where only the file is known."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One fault: the message says what is wrong and then what to do, lower case, no full stop."""

    message: str
    field: str = ""
    location: Location | None = None
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        parts = [] if self.location is None else [str(self.location)]
        if self.severity is not Severity.ERROR:
            parts.append(self.severity.value)
        if self.field:
            parts.append(self.field)
        text = ": ".join([*parts, self.message])
        # A file may hold terminal sequences in a field name or a tag.
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
