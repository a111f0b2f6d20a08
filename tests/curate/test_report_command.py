"""`curate report` as a command: what it writes and prints, its tables as CSV, and over which sets."""

from __future__ import annotations

import collections
import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from report_synthetic import Row, picture, write_build

from curate.cli import main
from shards.cli import main as shards_main

TEXTS = ["a dog runs", "two dogs and a red fox", "=cmd|' /C calc'!A0", 'a "quoted", text\nof two lines', "IMG_2041.jpg", "a dog runs"]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, one of them called as a column of a table; drops and a duplicate."""
    out = tmp_path_factory.mktemp("command") / "out"
    image = out.parent / "photo.jpg"
    image.write_bytes(picture(300, 200))
    rows = [Row(source, f"k{i}", text, image=str(image)) for source in ("count", "web") for i, text in enumerate(TEXTS)]
    rows += [Row("web", f"d{i}", "rude", "dropped", "profanity", "rude") for i in range(4)]
    write_build(out, [*rows, Row("web", "x", "spare", "spare")], "seed: 7\n")
    return out


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_hold_the_numbers_of_the_json(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(build), "--csv", str(tmp_path / "csv"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    folder = tmp_path / "csv"
    ledger = [(r["source"], r["decision"], r["reason"], int(r["count"])) for r in table(folder, "ledger")]
    assert ("web", "dropped", "profanity", 4) in ledger
    assert [n for source, decision, _, n in ledger if (source, decision) == ("web", "kept")] == [6]
    words = {row["word"]: row for row in table(folder, "words")}
    counted = collections.Counter(word for text in TEXTS for word in ("dog", "fox", "a") for w in text.split() if w == word)
    for word, n in counted.items():
        assert (words[word]["count"], words[word]["source count"], words[word]["web"]) == (str(2 * n), str(n), str(n))
    quantiles = {(r["source"], r["measure"]): r for r in table(folder, "quantiles")}
    for source, found in values["captions"]["sources"].items():
        assert float(quantiles[source, "words"]["median"]) == found["words"]["median"]
        bins = [r for r in table(folder, "histograms") if (r["source"], r["measure"]) == (source, "words")]
        assert sum(int(r["count"]) for r in bins) == found["words"]["n"] == len(TEXTS)
    assert {(r["source"], r["caption"], r["count"]) for r in table(folder, "repeated")} == {
        (s, "a dog runs", "2") for s in ("count", "web")
    }
    files = [r for r in table(folder, "shares") if (r["kind"], r["class"]) == ("readability", "file_name")]
    assert [(r["source"], r["count"]) for r in files] == [("count", "1"), ("web", "1")]
    dogs = [r for r in table(folder, "concepts") if (r["set"], r["class"]) == ("DomainNet REAL and CLIPART", "dog")]
    assert [(r["mentions"], r["captions"], r["web"]) for r in dogs] == [("6", "6", "3")]
    assert len(table(folder, "commonest")) == sum(
        len(found[kind][which])
        for found in values["vocabulary"]["sources"].values()
        for kind in ("words", "bigrams")
        for which in ("all", "content")
    )


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("flags", [["--json"], ["--terminal"], ["--word", "dog"]])
def test_what_prints_writes_no_page(build: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    before = written(build)
    assert main(["report", str(build), *flags]) == 0
    assert "dog" in capsys.readouterr().out
    assert written(build) - before <= {"stats"}


@pytest.mark.slow
def test_the_page_of_one_set_lies_with_it_and_of_several_here(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    subset = tmp_path / "subset"
    assert shards_main(["subset", str(build), "--samples", "5", "--output", str(subset)]) == 0
    assert main(["report", str(subset / "manifest.json")]) == 0
    assert (subset / "report.html").exists()
    assert main(["report", str(build), str(subset)]) == 0
    values = json.loads((tmp_path / "report.json").read_text())
    assert [s["name"] for s in values["sources"]] == ["out/count", "out/web", "subset/count", "subset/web"]
    assert sum(s["samples"] for s in values["sources"]) == 12 + 5
    assert [found["set"] for found in values["ledger"]["sets"]] == [1]
    assert main(["report", str(build), str(build), "--output", str(tmp_path / "twice.html")]) == 0
    assert '<h3>Set <data value="2">2</data>: <bdi>out (2)</bdi></h3>' in (tmp_path / "twice.html").read_text()


def test_foreign_tars_are_reported_on_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Path) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "a.tar").write_bytes((build / "00000.tar").read_bytes())
    assert main(["report", str(foreign), "--output", str(tmp_path / "page.html"), "--engine", "inline"]) == 0
    values: dict[str, Any] = json.loads((tmp_path / "page.json").read_text())
    with tarfile.open(foreign / "a.tar") as tar:
        texts = [name for name in tar.getnames() if name.endswith(".txt")]
    assert values["sources"] == [{"name": "foreign", "samples": len(texts)}]
    assert values["images"]["sources"]["foreign"]["width"]["n"] == len(texts)
    assert values["ledger"] == {}
    assert written(foreign) == {"a.tar"}
    assert (tmp_path / "page.html").read_text().count("data:image/webp") > 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "nothing to report on"),
        (["--source", "cc3m"], "no input"),
        (["--source", "cc3n", "--input", "x"], "cc3m"),
        (["no/such/folder"], "no folder at 'no/such/folder'"),
        (["--config", "no-such-recipe"], "no-such-recipe"),
    ],
)
def test_what_cannot_be_reported_on(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *flags]) == 2
    assert said in capsys.readouterr().err
