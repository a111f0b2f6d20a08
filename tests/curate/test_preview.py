"""Before a build: `decide` and `--dry-run` show samples of what would go, on the console, as JSON and as a page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawing import encoded, picture

from curate.cli import main

Captioned = Callable[..., Path]
CAPTIONS = ["a red barn", "what the fuck", "two dogs", "dogs", "<b>cats</b>\x1b[31m", "a tall tree by the sea"]


@pytest.fixture
def flags(captioned: Captioned, tmp_path: Path) -> list[str]:
    rows = [(f"{i}.jpg", encoded(picture(i)), text) for i, text in enumerate(CAPTIONS)]
    rows.append(("copy.jpg", rows[0][1], "a red barn again"))
    given = ["--source", "folder", "--input", str(captioned(rows)), "--samples", "all", "--caption-length-min-words", "2"]
    return [*given, "--engine", "inline", "--work", str(tmp_path / "work")]


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = main(list(map(str, arguments)))
    return (code, *capsys.readouterr())


def test_decide_shows_samples_of_each_reason(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "decide", *flags)
    assert code == 0, err
    said = out.split("\n")
    assert {line for line in said if "dogs" in line} == {"  folder: dogs (1 words, 4 characters)"}
    assert said[said.index("profanity, such as:") + 1].startswith("  folder: what the fuck (")
    assert "exact_duplicate, such as:" in said
    assert "\x1b" not in out
    code, out, _ = run(capsys, "decide", *flags, "--json")
    found = json.loads(out)["folder"]
    assert {reason: len(rows) for reason, rows in found["examples"].items()} == found["dropped"]


def test_the_page_of_decide_has_thumbnails_of_dropped_pictures_and_of_copies_that_stay(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    code, _, err = run(capsys, "decide", *flags, "--report", page)
    assert code == 0, err
    text = page.read_text()
    dropped = json.loads(run(capsys, "decide", *flags, "--json")[1])["folder"]["dropped"]
    assert text.count("data:image/webp;base64,") == sum(dropped.values()) + dropped["exact_duplicate"]
    assert text.count('alt="the copy that stays"') == dropped["exact_duplicate"] == 1
    assert "<b>" not in text
    assert "\x1b" not in text
    assert "<script" not in text
    for reason, count in dropped.items():
        assert f"<tr><td>- {reason}</td><td>{count}</td></tr>" in text


def test_a_dry_run_shows_samples_and_what_cannot_be_known(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    code, out, err = run(capsys, "build-shards", *flags, "--image-size-min-side", "9", "--dry-run", "--report", page)
    assert code == 0, err
    assert "    folder: what the fuck (fuck)" in out
    unknown = out.partition("not known before pictures are opened")[2]
    assert "which pictures are missing or do not decode" in unknown
    assert "what image_size would remove" in unknown
    assert "which pictures are duplicates (exact, near)" in unknown
    assert "caption_length" not in unknown
    text = re.sub(r"<[^>]*>", " ", page.read_text())
    assert "what image_size would remove" in text
    assert "dogs" in text
    assert "data:image" not in page.read_text()


@pytest.mark.parametrize("command", ["decide", "build-shards"])
def test_what_a_block_list_drops_is_counted_and_not_shown(
    command: str, captioned: Captioned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import hashlib

    content = encoded(picture(3))
    (tmp_path / "withdrawn.txt").write_text(hashlib.sha256(content).hexdigest() + "\n")
    folder = captioned([("0.jpg", content, "a secret garden"), ("1.jpg", encoded(picture(4)), "a barn")])
    page = tmp_path / "page.html"
    flags = ["--source", "folder", "--input", folder, "--samples", "all", "--blocklist-sha256", tmp_path / "withdrawn.txt"]
    more = ["--dry-run"] if command == "build-shards" else []
    code, out, err = run(capsys, command, *flags, *more, "--engine", "inline", "--work", tmp_path / "work", "--report", page)
    assert code == 0, err
    assert "secret" not in out + page.read_text()
    assert ("- blocklist" in page.read_text()) == (command == "decide")
    assert ("what blocklist would remove" in out) == (command == "build-shards")


def test_a_page_that_cannot_be_written_is_refused_before_any_work(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path, tmp_path / "photos" / "captions.csv"):
        code, _, err = run(capsys, "decide", *flags, "--report", place)
        assert code == 2
        assert "--report" in err
    code, _, err = run(capsys, "build-shards", *flags, "--output", tmp_path / "out", "--report", tmp_path / "page.html")
    assert code == 2
    assert not (tmp_path / "out" / "manifest.json").exists()
