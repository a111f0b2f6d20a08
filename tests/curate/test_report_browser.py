"""The report in a real browser: hostile captions do nothing, and searching, sorting, opening, themes and a phone work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import EVIL, HOSTILE, Watched, browser, opened
from report_synthetic import Row, picture, write_build

from curate.report.build import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("browser") / "out"
    image = out.parent / "photo.jpg"
    image.write_bytes(picture(300, 200))
    texts = HOSTILE + [f"plain words of the other source, {i} of them" for i in range(80)]
    rows = [Row("redcaps", f"k{i}", f"a dog and the {'cat ' * (i % 9)}number {i}", image=str(image)) for i in range(120)]
    rows += [Row(EVIL, f"k{i}", text) for i, text in enumerate(texts)]
    rows += [Row(EVIL, f"d{i}", text, "dropped", "caption_length", text, image=str(image)) for i, text in enumerate(HOSTILE)]
    rows += [Row("redcaps", f"p{i}", "rude", "dropped", "profanity", "“rude”") for i in range(5)]
    rows += [Row("redcaps", f"c{i}", "copy", "dropped", "near_duplicate", "distance 2", rows[5].uid) for i in range(3)]
    write_build(out, rows, "seed: 7\n")
    write_report(str(out))
    return out / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def page(chromium: Browser, report: Path) -> Iterator[Watched]:
    with opened(chromium, report, viewport={"width": 1200, "height": 900}) as watched:
        watched.page.evaluate("document.querySelectorAll('details.part').forEach(d => d.open = true)")
        yield watched
        assert watched.offences == []


def test_hostile_text_does_nothing(page: Watched) -> None:
    """With everything opened and the pointer over every caption: no dialog, no request, no error (the fixture looks)."""
    page.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.page.evaluate("document.querySelectorAll('bdi').forEach(e => e.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})))")
    page.page.wait_for_timeout(200)
    assert page.page.evaluate("[...document.querySelectorAll('img')].every(i => i.src.startsWith('data:image/webp'))")
    assert page.page.evaluate("document.querySelectorAll('iframe, object, embed, link, base').length") == 0
    assert "<script>alert(1)</script> cat" in page.page.inner_text("main")
    assert EVIL in page.page.inner_text("main")


def test_the_policy_would_stop_a_script(page: Watched) -> None:
    """Were markup to slip through, the browser itself refuses to run it: planted here by hand."""
    found: Any = page.page.evaluate(
        """() => { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran = true">');
                   const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s);
                   return new Promise(done => setTimeout(() => done(window.ran === undefined), 200)); }"""
    )
    assert found is True
    assert page.offences  # the browser says what it refused
    page.offences.clear()


def test_a_reason_opens(page: Watched) -> None:
    step = page.page.locator("details.step[data-step=caption_length]")
    assert not step.locator(".gallery").is_visible()
    step.locator("summary").click()
    assert step.locator(".gallery li").count() == 12
    assert step.locator(".gallery img").first.evaluate("i => i.complete && i.naturalWidth > 0")


def column(page: Watched, nth: int) -> list[str]:
    """Return the texts of a column of the table of words."""
    return page.page.locator(f"#vocabulary .finder tbody td:nth-child({nth})").all_inner_texts()


def test_a_word_is_searched(page: Watched, report: Path) -> None:
    table = json.loads(report.with_suffix(".json").read_text())["vocabulary"]["table"]
    page.page.fill("#vocabulary .finder input", "CAT")
    assert column(page, 1) == [row[0] for row in table["rows"] if "cat" in row[0]][:50]
    cat = next(row for row in table["rows"] if row[0] == "cat")
    assert page.page.locator("#vocabulary .finder tbody tr").first.locator("data").all_inner_texts() == [f"{n:,}" for n in cat[1:]]
    page.page.fill("#vocabulary .finder input", "no such word")
    assert column(page, 1) == []
    assert page.page.inner_text("#vocabulary .found").startswith("0 of")


def test_the_table_is_sorted(page: Watched, report: Path) -> None:
    rows = json.loads(report.with_suffix(".json").read_text())["vocabulary"]["table"]["rows"]
    assert [int(n.replace(",", "")) for n in column(page, 2)] == sorted((row[1] for row in rows), reverse=True)[:50]
    heads = page.page.locator("#vocabulary .finder th")
    heads.nth(3).locator("button").click()
    assert [int(n.replace(",", "")) for n in column(page, 4)] == sorted((row[3] for row in rows), reverse=True)[:50]
    assert heads.nth(3).get_attribute("aria-sort") == "descending"
    heads.nth(3).locator("button").click()
    assert [int(n.replace(",", "")) for n in column(page, 4)] == sorted(row[3] for row in rows)[:50]
    heads.nth(0).locator("button").click()
    assert column(page, 1)[:9] == sorted(row[0] for row in rows)[:9]
    page.page.click("#vocabulary .finder > button")
    assert len(column(page, 1)) == min(250, len(rows))


def test_a_word_that_sets_a_source_apart_opens_to_captions_with_pictures(page: Watched) -> None:
    word = page.page.locator("#apart details:not(.part)", has=page.page.locator("summary bdi", has_text="number")).first
    word.locator("summary").first.click()
    assert "number" in word.inner_text()
    assert word.locator("img").first.evaluate("i => i.complete && i.naturalWidth > 0")


def test_the_theme_switches(page: Watched) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.page.evaluate(background)
    page.page.click("#theme")
    after = page.page.evaluate(background)
    assert before != after
    assert page.page.evaluate(background) == after
    page.page.click("#theme")
    assert page.page.evaluate(background) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_reader(chromium: Browser, report: Path, scheme: str) -> None:
    with opened(chromium, report, color_scheme=scheme) as watched:
        red = watched.page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])")
        assert (red < 128) == (scheme == "dark")
        assert watched.page.inner_text("#theme") == f"{'light' if scheme == 'dark' else 'dark'} theme"
        assert watched.offences == []


def test_a_phone_shows_it_without_scrolling_sideways(chromium: Browser, report: Path) -> None:
    with opened(chromium, report, viewport={"width": 390, "height": 800}, device_scale_factor=2, is_mobile=True) as watched:
        watched.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert watched.page.evaluate("document.scrollingElement.scrollWidth") <= 390
        assert watched.page.evaluate("[...document.querySelectorAll('.chart')].every(c => c.getBoundingClientRect().width <= 390)")
        assert watched.offences == []


def test_print_shows_the_page_and_hides_what_needs_a_pointer(page: Watched) -> None:
    page.page.emulate_media(media="print")
    assert not page.page.locator("nav").is_visible()
    assert not page.page.locator("#theme").is_visible()
    assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(page.page.pdf()) > 20_000


def test_without_script_everything_but_searching_is_there(chromium: Browser, report: Path) -> None:
    with opened(chromium, report, java_script_enabled=False) as watched:
        text = watched.page.inner_text("main")
        assert "caption_length" in text
        assert not watched.page.locator("#theme").is_visible()


def test_a_class_of_concepts_is_searched(page: Watched, report: Path) -> None:
    found = json.loads(report.with_suffix(".json").read_text())["concepts"]["sets"]
    at, rows = next((i, one["table"]["rows"]) for i, one in enumerate(found) if any(row[0] == "dog" for row in one["table"]["rows"]))
    finder = page.page.locator(f"#concepts .finder[data-rows=concepts-rows-{at}]")
    assert not finder.is_visible()
    finder.locator("xpath=..").locator("summary").click()
    finder.locator("input").fill("Dog")
    shown = finder.locator("tbody tr")
    assert set(shown.locator("td:first-child").all_inner_texts()) == {row[0] for row in rows if "dog" in row[0].lower()}
    dog = next(row for row in rows if row[0] == "dog")
    numbers = shown.filter(has=page.page.get_by_text("dog", exact=True)).locator("data").all_inner_texts()
    assert numbers == [f"{n:,}" for n in dog[1:] if not isinstance(n, str)]


def test_captions_at_the_quantiles_have_pictures(page: Watched) -> None:
    cards = page.page.locator("#captions .gallery.seven").first.locator("li")
    assert cards.count() > 1
    assert cards.first.locator("img").evaluate("i => i.complete && i.naturalWidth > 0")
    assert cards.first.is_visible()


@pytest.mark.slow
def test_long_names_and_blank_captions_do_not_break_the_page(chromium: Browser, tmp_path: Path) -> None:
    names = ["x" * 300, "a long name " * 20, *(f"source {i}" for i in range(9))]
    rows = [Row(name, f"{i}", text) for name in names for i, text in enumerate(["z" * 20_000, "\n" * 300, "a dog"])]
    write_build(tmp_path / "out", rows, "seed: 7\n")
    write_report(str(tmp_path / "out"))
    with opened(chromium, tmp_path / "out" / "report.html", viewport={"width": 390, "height": 800}, is_mobile=True) as watched:
        watched.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert watched.page.evaluate("document.scrollingElement.scrollWidth") <= 390
        assert "(blank)" in watched.page.inner_text("#captions")
        legend = watched.page.locator(".legend > span")
        looks = [
            legend.nth(i).evaluate("s => { const c = getComputedStyle(s.firstChild); return c.background; }") for i in range(len(names))
        ]
        assert len(set(looks)) == len(names)  # the ninth source's colour is the first one's again, but striped
        assert watched.offences == []


def test_the_page_is_short_until_it_is_opened(chromium: Browser, report: Path) -> None:
    with opened(chromium, report, viewport={"width": 1280, "height": 900}) as watched:
        assert watched.page.evaluate("document.scrollingElement.scrollHeight") < 8000
        assert watched.page.locator("details.part[open]").count() == 2
        watched.page.locator("nav a[href='#vocabulary']").click()
        watched.page.locator("#vocabulary .finder").wait_for(state="visible")
        assert watched.offences == []


def test_the_page_names_the_folder_it_lies_in(page: Watched, report: Path) -> None:
    assert page.page.inner_text("#folder") == report.parent.name


def test_a_picture_is_enlarged_and_put_back(page: Watched) -> None:
    image = page.page.locator("#images .frame img").first
    image.click()
    large = page.page.locator("dialog[open] img")
    assert large.get_attribute("src") == image.get_attribute("src")
    assert large.evaluate("i => i.getBoundingClientRect().width") > 200
    page.page.keyboard.press("Escape")
    assert page.page.locator("dialog[open]").count() == 0


def test_no_label_of_a_chart_is_cut(page: Watched) -> None:
    cut = page.page.evaluate(
        """() => [...document.querySelectorAll('svg.chart')].filter(chart => {
               const edge = chart.getBoundingClientRect().left - 1;
               return [...chart.querySelectorAll('text')].some(text => text.getBoundingClientRect().left < edge);
           }).map(chart => chart.dataset.chart)"""
    )
    assert cut == []
