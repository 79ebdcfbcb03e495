"""What rules of others do with a packet, in words; what they wrote must not steer a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipfw.kernel.detect import printable

if TYPE_CHECKING:
    from sipfw.monitor.why.others import Course, ForeignEnd


def fate(end: ForeignEnd) -> str:
    """Say in one or two words what becomes of the packet."""
    if end.away is not None:
        return f"sent on to {end.away}"
    return "rejected" if end.rejected else "dropped"


def ending_text(end: ForeignEnd) -> str:
    """Name the rule, and the command that mends it."""
    before = " before sipfw" if end.before else ""
    text = f"{fate(end)}{before} by {end.place} (not ours)"
    if end.rule is not None:
        text += f": {end.rule}"
    if end.mend is not None:
        text += f"; {'remove' if end.rule is not None else 'open'}: {end.mend}"
    return printable(text)


def possible_texts(course: Course) -> list[str]:
    """Say what may happen, each with what it rests on."""
    return [
        printable(f"{' and '.join(end.when)} holds: then {ending_text(end)}")
        for end in course.possible
    ]


def course_texts(course: Course, *, dropped: bool) -> list[str]:
    """Say what else rules of others do on its way."""
    found = [printable(note) for note in course.notes]
    if dropped and course.end is not None:
        found.append(f"otherwise {ending_text(course.end)}")
    if course.answers is not None:
        found.append(f"its answers are {ending_text(course.answers)}")
    found += [
        printable(f"{' and '.join(end.when)} holds: then its answers are {ending_text(end)}")
        for end in course.answers_possible
    ]
    return found


def course_data(course: Course) -> dict[str, Any]:
    """Return the same for machines."""
    return {
        "end": None if course.end is None else _end(course.end),
        "possible": [_end(item) for item in course.possible],
        "answers": None if course.answers is None else _end(course.answers),
        "answers_possible": [_end(item) for item in course.answers_possible],
        "unheard": course.unheard,
        "notes": list(course.notes),
    }


def _end(end: ForeignEnd) -> dict[str, Any]:
    return {
        "fate": "away" if end.away is not None else "rejected" if end.rejected else "dropped",
        "place": end.place,
        "rule": end.rule,
        "away": end.away,
        "before_sipfw": end.before,
        "mend": end.mend,
        "when": list(end.when),
    }
