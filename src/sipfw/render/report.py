"""The report as one HTML page: what it consists of, and how it becomes text.

Every text on it may come from somebody else: a rule of another program, a DNS name, the reason of
a ban. The template escapes them all, and what cannot be printed is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.render.environment import render_template

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.render.charts import Chart


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column; `kind` is `number`, `code`, `bar`, `short` or empty."""

    title: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One field. `share` draws a bar of so many parts of one, `tone` is `good`, `warn` or `bad`."""

    text: str
    share: float | None = None
    tone: str = ""
    colour: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows below heads; `empty` is said where there are none."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that is read first."""

    name: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A heading with what stands below it."""

    id: str
    title: str
    intro: str = ""
    chart: Chart | None = None
    table: ReportTable | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportPage:
    """The whole report. `state` is `healthy`, `drift` or `degraded`."""

    title: str
    subtitle: str
    made: str
    state: str
    verdict: str
    problems: tuple[str, ...]
    figures: tuple[Figure, ...]
    sections: tuple[ReportSection, ...]
    notes: tuple[str, ...]
    footer: str


def report_html(page: ReportPage, template_dir: Path | None = None) -> str:
    """Return the page. Raises SipfwError when an operator's own template is broken."""
    return render_template("report.html.j2", template_dir, page=page)
