"""Draws a terminal's screen as SVG: fixed width, no fonts from elsewhere."""

from __future__ import annotations

import io
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

if TYPE_CHECKING:
    from pathlib import Path

    import pyte
    from pyte.screens import Char

_THEME = TerminalTheme(
    (22, 27, 34),
    (225, 230, 236),
    [
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (177, 186, 196),
    ],
    [(110, 118, 129), *[(225, 230, 236)] * 7],
)
# pyte calls the third colour by its name on a VGA card.
_NAMES = {"brown": "yellow", "brightblack": "bright_black"}
# As rich's own, but with the fonts that are there; textLength keeps every column in its place.
_FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{
  font: {char_height}px "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font: bold 16px "DejaVu Sans", "Segoe UI", Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def save_terminal(screen: pyte.Screen, path: Path, command: str) -> None:
    """Write what stands on a screen, below the command that made it."""
    lines = [_line(screen, row) for row in range(screen.lines)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    # One column more, or the last letter would touch the edge.
    width = max(line.cell_len for line in lines) + 1
    console = Console(record=True, width=width, file=io.StringIO(), legacy_windows=False)
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop", highlight=False)
    name = f"sipfw-{path.stem}"
    svg = console.export_svg(title=command, theme=_THEME, code_format=_FORMAT, unique_id=name)
    path.write_text(svg, encoding="utf-8")
    print(f"{path.name}: {len(lines)} lines, {len(svg) / 1000:.0f} kB")


def _line(screen: pyte.Screen, row: int) -> Text:
    text = Text()
    chars = [screen.buffer[row][column] for column in range(screen.columns)]
    for style, run in groupby(chars, key=_style):
        text.append("".join(char.data for char in run), style)
    text.rstrip()
    return text


def _style(char: Char) -> Style:
    return Style(
        color=_colour(char.fg), bgcolor=_colour(char.bg), bold=char.bold, reverse=char.reverse
    )


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if len(name) == 6 and all(c in "0123456789abcdef" for c in name):
        return f"#{name}"
    return _NAMES.get(name, name)
