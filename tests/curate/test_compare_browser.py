"""The page of a comparison in a real browser: hostile text does nothing, and themes, opening, searching and a phone work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import EVIL, HOSTILE, Watched, browser, opened
from test_compare_page import write_sets

from curate import cli

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    out = folder / "compare.html"
    assert cli.main(["compare", *write_sets(folder), "--output", str(out), "--engine", "inline"]) == 0
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def page(chromium: Browser, report: Path) -> Iterator[Watched]:
    with opened(chromium, report, viewport={"width": 1200, "height": 900}) as watched:
        yield watched
        assert watched.offences == []


def test_hostile_text_does_nothing(page: Watched) -> None:
    """With everything opened and the pointer over every text: no dialog, no request, no error (the fixture looks)."""
    page.page.evaluate(OPEN_ALL)
    page.page.evaluate("document.querySelectorAll('bdi').forEach(e => e.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})))")
    page.page.wait_for_timeout(200)
    assert EVIL in page.page.inner_text("body")
    text = page.page.inner_text("main")
    assert sum(caption in text for caption in HOSTILE if caption.isprintable()) >= 3
    assert page.page.evaluate("[...document.querySelectorAll('img')].every(i => i.src.startsWith('data:image/webp'))")
    assert page.page.evaluate("document.querySelectorAll('iframe, object, embed, link, base').length") == 0


def test_what_moved_opens_to_examples_with_pictures(page: Watched) -> None:
    assert page.page.locator(".gallery img").count() > 20
    row = page.page.locator("#moved details", has=page.page.locator(".gallery img")).first
    assert not row.locator(".gallery").first.is_visible()
    row.locator("summary").first.click()
    assert row.locator(".gallery").first.is_visible()
    assert row.locator(".gallery img").first.evaluate("i => i.complete && i.naturalWidth > 0")


def test_a_word_is_searched(page: Watched, report: Path) -> None:
    rows = json.loads(report.with_suffix(".json").read_text())["vocabulary"]["listed"]["rows"]
    page.page.fill("#vocabulary .finder input", "CAT")
    words = page.page.locator("#vocabulary .finder tbody td:first-child").all_inner_texts()
    assert words
    assert set(words) == {row[0] for row in rows if "cat" in row[0]}
    page.page.fill("#vocabulary .finder input", "no such word")
    assert page.page.locator("#vocabulary .finder tbody tr").count() == 0


def test_the_theme_switches(page: Watched) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.page.evaluate(background)
    page.page.click("#theme")
    assert page.page.evaluate(background) != before
    page.page.click("#theme")
    assert page.page.evaluate(background) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(chromium: Browser, report: Path, scheme: str) -> None:
    size = {"viewport": {"width": 390, "height": 800}, "device_scale_factor": 2, "is_mobile": True}
    with opened(chromium, report, color_scheme=scheme, **size) as watched:
        watched.page.evaluate(OPEN_ALL)
        assert watched.page.evaluate("document.scrollingElement.scrollWidth") <= 390
        red = watched.page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])")
        assert (red < 128) == (scheme == "dark")
        assert watched.offences == []
