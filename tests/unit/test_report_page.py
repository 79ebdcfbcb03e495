"""The report's text: nothing on it is somebody else's markup, nothing on it is fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from sipfw.cli.report_view import page_of
from sipfw.errors import SipfwError
from sipfw.render.report import report_html
from unit.report_facts import HOSTILE, facts

if TYPE_CHECKING:
    from pathlib import Path

VISIBLE = HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}").replace(
    "\u202e", "\N{REPLACEMENT CHARACTER}"
)
VOID = {"meta"}
SECTIONS = {
    "blocked",
    "trusted",
    "connections",
    "layers",
    "sources",
    "rules",
    "sets",
    "peers",
    "drift",
    "kernel",
    "generations",
}


class Markup(HTMLParser):
    """The tags of a page, whether they are closed in order, and the text between."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def html() -> str:
    return report_html(page_of(facts()))


@pytest.fixture(scope="module")
def markup(html: str) -> Markup:
    return Markup(html)


def test_the_markup_is_whole(html: str, markup: Markup) -> None:
    assert html.startswith("<!doctype html>\n")
    assert markup.open == []
    assert {a["id"] for tag, a in markup.tags if tag == "section"} == SECTIONS


def test_hostile_words_are_words(html: str, markup: Markup) -> None:
    assert "<img" not in html
    assert not {"script", "img", "iframe", "link", "object", "form"} & {
        tag for tag, _ in markup.tags
    }
    assert not any(name.startswith("on") for _, found in markup.tags for name in found)
    places = [text for text in markup.text if VISIBLE in text]
    # Host, source, drift, rules, reasons, a DNS name, a peer, sets, settings, generations, notes.
    assert len(places) > 25
    assert {c for c in html if not c.isprintable()} == {"\n"}


def test_nothing_is_fetched(html: str, markup: Markup) -> None:
    policy = [a["content"] for tag, a in markup.tags if a.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    addresses = [a[name] for _, a in markup.tags for name in ("href", "src", "action") if name in a]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert re.findall(r"url\((?!#)|@import|@font-face|https?://", html) == []


def test_references_lead_somewhere(markup: Markup) -> None:
    ids = [a["id"] for _, a in markup.tags if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = [a["href"][1:] for tag, a in markup.tags if tag == "a"]
    wanted += [name for _, a in markup.tags for name in a.get("aria-labelledby", "").split()]
    wanted += [a["fill"][5:-1] for tag, a in markup.tags if tag == "rect" and "fill" in a]
    assert wanted
    assert set(wanted) <= set(ids)


def test_tables_have_heads_and_charts_have_titles(markup: Markup) -> None:
    tables = [a for tag, a in markup.tags if tag == "table"]
    captions = [tag for tag, _ in markup.tags if tag == "caption"]
    assert len(tables) == len(captions) >= 8
    scopes = {a.get("scope") for tag, a in markup.tags if tag == "th"}
    assert scopes == {"col", "row"}
    charts = [a for tag, a in markup.tags if tag == "svg"]
    assert len(charts) == 3
    assert all(a["role"] == "img" for a in charts)


def test_a_gap_is_drawn_as_one(markup: Markup) -> None:
    blanks = [a for tag, a in markup.tags if a.get("class") == "blank"]
    assert len(blanks) == 3
    (areas,) = {a["d"].count("Z") for tag, a in markup.tags if "area c5" in a.get("class", "")}
    assert areas == 2
    text = " ".join(markup.text)
    assert "packets were dropped meanwhile" in text
    assert "the host was started again" in text


def test_one_reading_is_said_and_not_drawn() -> None:
    markup = Markup(report_html(page_of(facts(hours=1))))
    assert not [tag for tag, _ in markup.tags if tag == "svg"]
    assert "one reading so far" in " ".join(markup.text)


def test_a_template_of_the_operator_wins(tmp_path: Path) -> None:
    (tmp_path / "report.html.j2").write_text("<p>{{ page.title }}</p>\n")
    html = report_html(page_of(facts()), tmp_path)
    assert html.startswith("<p>sipfw on switch&#34;&#39;&gt;&lt;/script&gt;")


def test_a_broken_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.html.j2").write_text("{{ page.nonsense }}")
    with pytest.raises(SipfwError, match=r"report\.html\.j2: the template is broken"):
        report_html(page_of(facts()), tmp_path)
