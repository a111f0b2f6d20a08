"""The page of a comparison: its numbers stand in the JSON, hostile text stays text, and what is not known is said."""

from __future__ import annotations

import html.parser
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import EVIL, HOSTILE
from report_synthetic import Row, picture, write_build

from curate import cli

CONTROL = "\x1b[31mred"  # as the name of a source


def write_sets(tmp_path: Path) -> list[str]:
    """Two builds and one without pictures, of hostile captions, sources, names and recipes."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(picture(300, 200))
    common = [
        Row(CONTROL if i < 3 else "x", f"k{i}", f"a dog and the {'cat ' * (i % 5)}number {i % 7}", image=str(photo)) for i in range(40)
    ]
    refused = [Row(EVIL, f"h{i}", text, image=str(photo)) for i, text in enumerate(HOSTILE)]
    there = [Row(EVIL, f"h{i}", text, "dropped", "caption_length", text) for i, text in enumerate(HOSTILE)]
    write_build(tmp_path / "one", [*common, *refused], f"seed: 7\nfilters:\n- {{name: caption_length, list: '{EVIL}'}}\n")
    write_build(tmp_path / EVIL, [*common[:30], *there], "seed: 7\nfilters:\n- {name: caption_length, list: words.txt}\n")
    write_build(tmp_path / "three", [Row("x", f"t{i}", f"texture background pattern {i}") for i in range(25)], examples=False)
    return [str(tmp_path / name) for name in ("one", EVIL, "three")]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    out = folder / "compare.html"
    assert cli.main(["compare", *write_sets(folder), "--output", str(out), "--engine", "inline"]) == 0
    return out


class Page(html.parser.HTMLParser):
    """The values of a page's <data> elements, its tags, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.values: list[float] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [k for k, _ in attrs if k.startswith("on") or k == "style"]
        if tag == "data":
            self.values.append(float(dict(attrs)["value"] or "nan"))

    def handle_data(self, data: str) -> None:
        self.text += data


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
            yield float(len(value))  # how many rows a table has
    elif isinstance(value, int | float):
        yield float(value)


def test_every_number_on_the_page_is_in_the_json(report: Path) -> None:
    known = set(numbers(json.loads(report.with_suffix(".json").read_text())))
    page = Page(report.read_text())
    assert len(page.values) > 200
    assert [v for v in page.values if v not in known] == []


def test_the_json_is_what_is_printed_and_the_text_commands_no_terminal(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [str(report.parent / name) for name in ("one", EVIL, "three")]
    assert cli.main(["compare", *sets]) == 0
    text = capsys.readouterr().out
    assert EVIL in text
    assert "\x1b" not in text
    assert cli.main(["compare", *sets, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(report.with_suffix(".json").read_text())


def test_hostile_text_stays_text(report: Path) -> None:
    page = Page(report.read_text())
    assert page.tags.isdisjoint({"iframe", "object", "embed", "link", "base", "form"})
    assert sum(text in page.text for text in HOSTILE if "<" in text) >= 2  # six of them are drawn
    assert page.text.count(EVIL) > 5
    assert "\x1b" not in report.read_text()
    assert str(report.parent) not in report.read_text() + report.with_suffix(".json").read_text()


def test_equal_sets_give_equal_bytes(report: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    assert cli.main(["compare", *write_sets(tmp_path), "--output", str(again), "--workers", "2"]) == 0
    assert again.read_bytes() == report.read_bytes()
    assert again.with_suffix(".json").read_bytes() == report.with_suffix(".json").read_bytes()


def test_what_is_not_known_is_said(report: Path, tmp_path: Path, make_shards: Callable[..., str]) -> None:
    """Lists alone; and sets without a ledger, a recipe or pictures' sizes."""
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    (tmp_path / "b.txt").write_text("2\n3\n4\n5\n")
    out = tmp_path / "lists.html"
    assert cli.main(["compare", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--output", str(out)]) == 0
    page = Page(out.read_text())
    assert "a list of ids" in page.text
    assert "Words" not in page.text
    out = tmp_path / "sets.html"
    sets = [make_shards(12, "x"), str(report.parent / "three"), str(tmp_path / "a.txt")]
    assert cli.main(["compare", *sets, "--output", str(out), "--engine", "inline"]) == 0
    text = " ".join(Page(out.read_text()).text.split())
    assert "Why is not known: x has no ledger." in text
    assert "Not known: none of these sets has a recipe." in text
    assert "not known: no sizes stand with these samples" in text


def test_an_empty_set_has_a_page(tmp_path: Path) -> None:
    write_build(tmp_path / "none", [Row("x", "a", "", "dropped", "caption_missing")])
    write_build(tmp_path / "some", [Row("x", "a", "a cat"), Row("x", "b", "a dog")])
    out = tmp_path / "compare.html"
    assert cli.main(["compare", str(tmp_path / "none"), str(tmp_path / "some"), "--output", str(out), "--engine", "inline"]) == 0
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["overlap"][0]["ids"]["shares"] == [0, 0]
    assert found["moved"][0]["went"]["b"][0]["reason"] == "caption_missing"
    assert found["vocabulary"]["pairs"][0]["divergence"] is None
    assert "Not known: fewer than two of these sets have captions with words." in out.read_text()
