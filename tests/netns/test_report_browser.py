"""The report in a real browser without a network: wide, on a phone, at night, on paper."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from lab.browser import Browser, browser_unavailable_reason
from lab.png import pixels
from sipfw.cli.report_view import page_of
from sipfw.render.report import report_html
from unit.report_facts import facts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

WIDTHS = (1280, 360)
# Text that cannot be read: contrast with what lies behind it below WCAG's 4.5 (1.4.3).
FAINT = """(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('svg')) continue;
    const a = light(numbers(getComputedStyle(element).color)), b = light(behind(element));
    if ((Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5)
      found.push(walker.currentNode.data.trim().slice(0, 40));
  }
  return found;
})()"""
SHAPES = """[...document.querySelectorAll('svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  return [box.width, box.height, svg.querySelectorAll('.area, .line').length,
    ...[...svg.querySelectorAll('.area, .line')].map(e => e.getBoundingClientRect().width)];
})"""
HEADINGS = """[...document.querySelectorAll('h1, h2')].map(e => {
  const box = e.getBoundingClientRect();
  return [e.textContent, box.width > 20 && box.height > 10 && box.left >= 0
    && box.right <= innerWidth && getComputedStyle(e).visibility === 'visible'];
})"""
# What sticks out to the right, but for captions, which only a screen reader reads.
OVERHANGING = """[...document.querySelectorAll('body *')]
  .filter(e => !e.closest('caption, thead, svg'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + .5)
  .map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    reason = browser_unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of a host in trouble, with hostile words in it."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_html(page_of(facts())), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_whole_and_quiet(browser: Browser, file: Path, width: int, scheme: str) -> None:
    page = browser.show(file, width, scheme=scheme)
    assert page.complaints == []
    assert page.requests == [file.as_uri()]
    assert browser.evaluate("document.scripts.length + document.images.length") == 0
    headings = browser.evaluate(HEADINGS)
    assert len(headings) == 12
    assert [text for text, visible in headings if not visible] == []


@pytest.mark.parametrize("width", [*WIDTHS, 800])
def test_nothing_sticks_out(browser: Browser, file: Path, width: int) -> None:
    browser.show(file, width)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OVERHANGING) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_are_drawn(browser: Browser, file: Path, width: int) -> None:
    browser.show(file, width)
    charts: list[list[Any]] = browser.evaluate(SHAPES)
    assert len(charts) == 3
    for wide, high, number, *shapes in charts:
        assert wide > 150
        assert high > 100
        assert number >= 1
        assert all(shape > 50 for shape in shapes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Browser, file: Path, scheme: str) -> None:
    browser.show(file, 1280, scheme=scheme)
    assert browser.evaluate(FAINT) == []


def test_the_picture_shows_something(browser: Browser, file: Path) -> None:
    pictures = {}
    for scheme in ("light", "dark"):
        browser.show(file, 1280, scheme=scheme)
        rows = pixels(browser.picture(scale=0.2, height=1000))
        pictures[scheme] = [pixel for row in rows for pixel in row]
    for found in pictures.values():
        assert len(set(found)) > 100
        # Areas of the chart, in colours that text has not.
        assert sum(max(pixel) - min(pixel) > 100 for pixel in found) > 200
    brightness = {name: sum(map(sum, found)) / len(found) for name, found in pictures.items()}
    assert brightness["light"] > 600
    assert brightness["dark"] < 200


def test_on_paper_it_is_light_and_has_no_menu(browser: Browser, file: Path) -> None:
    browser.show(file, 720, scheme="dark", media="print")
    assert (
        browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    assert browser.evaluate("document.querySelector('nav').getClientRects().length") == 0
    assert browser.evaluate(FAINT) == []
    # A4 without its margins.
    browser.show(file, 700, media="print")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 700
    assert browser.evaluate(OVERHANGING) == []
    assert (
        browser.evaluate("getComputedStyle(document.querySelector('td')).display") == "table-cell"
    )
    paper = browser.paper()
    assert paper.startswith(b"%PDF")
    # A4 in points.
    assert b"/MediaBox [0 0 594.95996 841.91998]" in paper or b"/MediaBox [0 0 595" in paper


def test_a_host_without_history_has_a_page_too(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "first.html"
    path.write_text(report_html(page_of(facts(hours=1, drift=False))), encoding="utf-8")
    page = browser.show(path, 360)
    assert page.complaints == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.evaluate("document.querySelectorAll('svg').length") == 0
