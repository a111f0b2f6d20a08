"""The images section against plain Python over the same rows; what nobody measured stays unknown."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from section_subject import numbers_in, page_of, subject_of

from curate.report.sections.images import MEASURES, SHEET, SIDE, collect, figures

QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def rows(n: int = 400, seed: int = 1) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    found = []
    for i in range(n):
        width, height = draw.choice([(500, 375), (375, 500), (640, 480), (draw.randint(30, 2000), draw.randint(30, 2000))])
        found.append({
            "source": draw.choice(["redcaps", "it's <b>"]), "uid": f"{i:032x}", "caption": f"a photo {i}", "width": width, "height": height,
            "bytes": draw.randint(900, 3_000_000), "original_format": draw.choice(["JPEG", "JPEG", "PNG", None]),
        })  # fmt: skip
    return found


def of(source: str, every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in every if row["source"] == source]


def test_numbers_are_those_of_the_rows(tmp_path: Path) -> None:
    every = rows()
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    for source, found in values["sources"].items():
        own = of(source, every)
        assert found["samples"] == len(own)
        measures = {name: [row[name] for row in own] for name in ("width", "height", "bytes")}
        measures["aspect"] = [row["width"] / row["height"] for row in own]
        measures["shorter_side"] = [min(row["width"], row["height"]) for row in own]
        for name in MEASURES:
            exact = {q: float(np.quantile(measures[name], at, method="inverted_cdf")) for q, at in QUANTILES.items()}
            close = 0.0051 if name == "aspect" else 0.0050001 if name == "bytes" else 0  # aspects are given by 0.01, too
            assert {q: found[name][q] for q in QUANTILES} == {
                q: pytest.approx(v, rel=close, abs=0.005 if name == "aspect" else 0) for q, v in exact.items()
            }
            assert found[name]["n"] == sum(found[name]["histogram"]["counts"]) == len(own)
            assert found[name]["mean"] == pytest.approx(np.mean(measures[name]), rel=0.005)
        formats = Counter(row["original_format"] for row in own if row["original_format"])
        assert [(f["format"], f["count"]) for f in found["formats"]] == formats.most_common()
        assert sum(f["share"] for f in found["formats"]) == pytest.approx(1, abs=1e-5)


def test_the_shorter_side_is_exact(tmp_path: Path) -> None:
    every = rows()
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    for source, found in values["sources"].items():
        sides = [min(row["width"], row["height"]) for row in of(source, every)]
        below = sum(side < SIDE for side in sides)
        assert 0 < below < len(sides)
        side = found["shorter_side"]
        assert (side["n"], side["below"], side["below_share"]) == (len(sides), below, round(below / len(sides), 6))
        assert [side[name] for name in ("p5", "median", "p95")] == list(np.quantile(sides, (0.05, 0.5, 0.95), method="inverted_cdf"))


def test_information_is_counted_below_its_limits(tmp_path: Path) -> None:
    every = [{"source": "a", "uid": f"{i:032x}", "information": level} for i, level in enumerate([0, 0.94, 1.0, 2.9, 2.94, 3.0, 20, None])]
    with subject_of(every, tmp_path) as subject:
        if not subject.con.execute("SELECT count(*) FROM others WHERE kind = 'information'").fetchall()[0][0]:
            pytest.skip("no statistics of information yet")
        found = collect(subject)["sources"]["a"]["information"]
    assert found == {
        "n": 7, "median": 2.9,
        "near_constant": {"count": 5, "share": 0.714286}, "flat": {"count": 2, "share": 0.285714},
    }  # fmt: skip


def test_the_sheet_is_the_first_of_the_sample(tmp_path: Path) -> None:
    every = rows()
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    for source, found in values["sources"].items():
        first = [(f"0/0/{i}", row) for i, row in enumerate(every) if row["source"] == source][:SHEET]
        assert found["sheet"] == [
            {name: row[name] for name in ("source", "uid", "caption", "width", "height")} | {"picture": at} for at, row in first
        ]


def test_what_nobody_measured_is_null_and_never_zero(tmp_path: Path) -> None:
    every = [{"source": "a", "uid": f"{i:032x}", "caption": "a cat", **({"bytes": 9} if i else {})} for i in range(5)]
    with subject_of(every, tmp_path, ["a", "gone"]) as subject:
        values = collect(subject)
    unknown = {*MEASURES, "formats", "information"} - {"bytes"}
    for source in ("a", "gone"):
        found = values["sources"][source]
        assert {name: found[name] for name in unknown} == dict.fromkeys(unknown)
    assert values["sources"]["a"]["bytes"]["n"] == 4
    assert values["sources"]["gone"]["bytes"] is None
    assert list(figures(values, {"a": "#0072b2", "gone": "#e69f00"})) == ["bytes"]
    assert (values["sources"]["a"]["samples"], values["sources"]["gone"]["samples"]) == (5, 0)


def test_captions_alone_have_no_section_of_images(tmp_path: Path) -> None:
    with subject_of([{"source": "a", "uid": "0" * 32, "caption": "a cat"}], tmp_path) as subject:
        assert collect(dataclasses.replace(subject, sample=subject.sample.set_column(8, "at", pa.nulls(1, pa.string())))) == {}


def test_json_is_plain_and_charts_are_small(tmp_path: Path) -> None:
    with subject_of(rows(), tmp_path) as subject:
        values = collect(subject)
    again = json.loads(json.dumps(values, allow_nan=False))
    assert again == values
    for source in again["sources"].values():
        assert all(len(source[name]["histogram"]["counts"]) <= 64 for name in MEASURES)
    found = figures(again, {"redcaps": "#0072b2", "it's <b>": "#e69f00"})
    assert list(found) == list(MEASURES)
    assert all(len(svg) < 40_000 for svg in found.values())
    assert "<b>" not in "".join(found.values())


def test_the_page_says_every_number_of_the_json(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>" onload="alert(2)'
    every = [{**row, "caption": evil, "information": 2.0 + i} for i, row in enumerate(rows())]
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    page = page_of("images", values, {"0/0/0": "data:image/webp;base64,AA=="})
    assert set(page.numbers) <= numbers_in(values)
    for source in values["sources"].values():
        for kind in MEASURES:
            assert {str(value) for name, value in source[kind].items() if name != "histogram"} <= set(page.numbers)
    assert (page.tags["script"], page.tags["b"], page.tags["img"]) == (0, 0, 1)
    assert page.text.count(evil) == 2 * SHEET
    assert "by its order, rank: as given." in page.text


def test_the_page_says_what_is_not_known(tmp_path: Path) -> None:
    with subject_of([{"source": "a", "uid": "0" * 32, "caption": "a cat"}], tmp_path, ["a", "b"]) as subject:
        page = page_of("images", collect(subject))
    for unknown in ("no sizes of files stand with", "no formats stand with", "only a build measures it"):
        assert f"not known: {unknown}" in page.text
    assert page.text.count("not known: no width and height stand with") == 4
    assert set(page.numbers) == {"3", "1"}
