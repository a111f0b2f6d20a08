"""The captions section against plain Python over the same captions; what nobody counted stays unknown."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from section_subject import numbers_in, page_of, subject_of

from curate.filters.repetition import repeated
from curate.report import sampled
from curate.report.plots import colours_of
from curate.report.sampled import estimated, languages
from curate.report.sections.captions import PERCENTILES, collect, figures
from curate.report.stats import sums
from curate.report.wordcount import tokens

QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
WORDS = [
    "a",
    "cat",
    "dog",
    "on",
    "the",
    "mat",
    "with",
    "red",
    "and",
    "blue",
    "stripes",
    "sleeping",
    "in",
    "sun",
    "near",
    "old",
    "house",
    "Katze",
    "schläft",
]
ODD = ["IMG_1234.jpg", "https://example.com/cat", "click to enlarge", "123 456", "cat", "no image available", "", "sunset.png", "???"]


def rows(n: int = 300, seed: int = 3) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    found = []
    for i in range(n):
        caption = draw.choice(ODD) if draw.random() < 0.2 else " ".join(draw.choices(WORDS, k=draw.choice([2, 3, 5, 9, 14, 40, 90])))
        found.append({"source": draw.choice(["redcaps", "it's <b>"]), "uid": f"{i:032x}", "caption": caption})
    return found


def of(source: str, every: list[dict[str, Any]]) -> list[str]:
    return [row["caption"] for row in every if row["source"] == source and row["caption"] is not None]


def checked(found: dict[str, Any], values: list[float]) -> None:
    assert {q: found[q] for q in QUANTILES} == {q: np.quantile(values, at, method="inverted_cdf") for q, at in QUANTILES.items()}
    assert (found["n"], found["min"], found["max"]) == (len(values), min(values), max(values))
    assert found["mean"] == pytest.approx(np.mean(values), abs=0.00501)
    assert sum(found["histogram"]["counts"]) == len(values)


def test_lengths_are_those_of_the_captions(tmp_path: Path) -> None:
    every = rows()
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    clip = open_clip.get_tokenizer("ViT-B-32")
    over = 0
    for source, found in values["sources"].items():
        captions = of(source, every)
        assert found["captions"] == len(captions)
        checked(found["words"], [len(tokens(c)) for c in captions])
        checked(found["characters"], [len(c) for c in captions])
        whole = [len(clip.encode(c)) + 2 for c in captions]
        checked(found["clip_tokens"], whole)
        over += found["clip_tokens"]["over_77"]
        assert found["clip_tokens"]["over_77"] == sum(n > 77 for n in whole)
        assert found["clip_tokens"]["over_77_share"] == pytest.approx(sum(n > 77 for n in whole) / len(whole), abs=1e-6)
        again = [float(np.round(repeated(tokens(c)), 2)) for c in captions if tokens(c)]
        checked(found["repetition"], again)
        assert found["repetition"]["over"] == sum(part > 0.2 for part in again)
    assert over > 10


def test_duplicates_are_the_counters(tmp_path: Path) -> None:
    every = rows(2000)
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    for source, found in values["sources"].items():
        said = Counter(tuple(tokens(c)) or c for c in of(source, every))
        n, duplicates = said.total(), found["duplicates"]
        assert (duplicates["captions"], duplicates["distinct"], duplicates["duplicates"]) == (n, len(said), n - len(said))
        assert (duplicates["standard_error"], duplicates["share_error"]) == (0, 0)
        assert duplicates["share"] == pytest.approx((n - len(said)) / n, abs=1e-6)
        assert [row["count"] for row in duplicates["most"]] == [k for _, k in said.most_common(10)]
        assert all(said[tuple(tokens(row["caption"])) or row["caption"]] == row["count"] for row in duplicates["most"])


def test_an_estimate_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(5)
    every = [{"source": "a", "uid": f"{i:032x}", "caption": f"cat {draw.randint(0, 3000)}"} for i in range(8000)]
    monkeypatch.setattr(sums, "MOST_CAPTIONS", 3000)
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    found, distinct = values["sources"]["a"]["duplicates"], len({row["caption"] for row in every})
    assert 0 < found["standard_error"] < 200
    assert abs(found["distinct"] - distinct) < 4 * found["standard_error"]
    assert found["share_error"] == pytest.approx(found["standard_error"] / 8000, abs=1e-6)
    page = page_of("captions", values)
    assert "± " in page.text
    assert "standard error" in page.text
    assert str(found["standard_error"]) in page.numbers


def test_readability_has_every_class_and_examples_of_the_odd_ones(tmp_path: Path) -> None:
    every = rows()
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    classes = {
        "IMG_1234.jpg": "file_name", "sunset.png": "file_name", "https://example.com/cat": "url", "click to enlarge": "boilerplate",
        "no image available": "boilerplate", "123 456": "no_letters", "": "no_letters", "???": "no_letters", "cat": "single_word",
    }  # fmt: skip
    for source, found in values["sources"].items():
        expected = Counter(classes.get(c, "words") for c in of(source, every))
        assert {row["class"]: row["count"] for row in found["readability"]["classes"]} == {c: expected[c] for c in values["classes"]}
        assert found["readability"]["n"] == expected.total()
        for row in found["readability"]["classes"]:
            own = [c for c in of(source, every) if classes.get(c, "words") == row["class"]]
            assert [e["caption"] for e in row["examples"]] == ([] if row["class"] == "words" else own[:3])


def test_languages_are_of_the_first_captions_with_the_filters_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    english, german = "a dog is running through the green grass with a ball", "eine Katze schläft auf dem alten Sofa im Wohnzimmer"
    found = languages([english] * 6 + [german] * 3 + ["123 ?", "zx"])
    assert found is not None
    assert [(row["code"], row["count"]) for row in found["shares"]] == [("en", 6), ("de", 3), ("none", 1), ("unsure", 1)]
    assert found["n"] == 11
    monkeypatch.setattr(sampled, "CAPTIONS", 2)
    assert languages([german, english, english]) == {"n": 2, "shares": [{"code": c, **estimated(1, 2)} for c in ("de", "en")]}
    assert languages([]) is None


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 1), (3, 10), (0, 2000), (1999, 2000), (500, 2000)])
def test_intervals_are_wilsons(count: int, n: int) -> None:
    """The ends are the shares p from which the estimate lies 1.96 of their own standard errors away: n (p̂ - p)² = z² p (1 - p)."""
    found = estimated(count, n)
    z = 1.959963984540054
    a, b, c = n + z * z, -(2 * count + z * z), count * count / n
    assert [found["low"], found["high"]] == pytest.approx(sorted(np.clip(np.roots([a, b, c]).real, 0, 1)), abs=1e-6)
    assert found["low"] <= found["share"] <= found["high"]


def test_samples_at_the_quantiles_are_the_nearest_of_lowest_rank(tmp_path: Path) -> None:
    every = rows()
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    for source, found in values["sources"].items():
        own = [(f"0/0/{i}", len(tokens(row["caption"])), row) for i, row in enumerate(every) if row["source"] == source]
        taken: set[str] = set()
        for percentile, row in zip(PERCENTILES, found["quantile_samples"], strict=True):
            target = np.quantile([n for _, n, _ in own], percentile / 100, method="inverted_cdf")
            at, length, expected = min((one for one in own if one[0] not in taken), key=lambda one: abs(one[1] - target))
            taken.add(at)
            assert (row["percentile"], row["target"], row["words"], row["picture"]) == (percentile, target, length, at)
            assert (row["uid"], row["caption"]) == (expected["uid"], expected["caption"])


def test_what_nobody_counted_is_null_and_never_zero(tmp_path: Path) -> None:
    images = [{"source": "a", "uid": f"{i:032x}", "width": 5, "height": 4, "bytes": 9} for i in range(5)]
    with subject_of(images, tmp_path, ["a", "gone"]) as subject:
        values = collect(subject)
    unknown = dict.fromkeys(("captions", "words", "characters", "clip_tokens", "repetition", "language", "duplicates", "readability"))
    assert values["sources"] == {source: {**unknown, "quantile_samples": []} for source in ("a", "gone")}
    assert figures(values, {"a": "#0072b2", "gone": "#e69f00"}) == {}


def test_one_caption_and_captions_without_words(tmp_path: Path) -> None:
    every = [
        {"source": "a", "uid": "0" * 32, "caption": "cat"},
        {"source": "b", "uid": "1" * 32, "caption": ""},
        {"source": "b", "uid": "2" * 32, "caption": None},
    ]
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    a, b = values["sources"]["a"], values["sources"]["b"]
    assert (a["captions"], b["captions"]) == (1, 1)
    assert [row["percentile"] for row in a["quantile_samples"]] == [50]
    assert (b["words"]["max"], b["clip_tokens"]["max"], b["repetition"]) == (0, 2, None)
    assert set(figures(values, colours_of(["a", "b"]))) == {"words", "characters", "clip_tokens"}


def test_json_is_plain_and_charts_are_small(tmp_path: Path) -> None:
    with subject_of(rows(), tmp_path) as subject:
        values = collect(subject)
    again = json.loads(json.dumps(values, allow_nan=False))
    assert again == values
    for source in again["sources"].values():
        assert all(len(source[kind]["histogram"]["counts"]) <= 64 for kind in ("words", "characters", "clip_tokens", "repetition"))
    found = figures(again, colours_of(list(values["sources"])))
    assert list(found) == ["words", "characters", "clip_tokens"]
    assert all(len(svg) < 40_000 for svg in found.values())
    assert found == figures(values, colours_of(list(values["sources"])))


def test_the_page_says_every_number_of_the_json_and_no_caption_is_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> <img src=x onerror=alert(2)> \x00\x1b[31m \u202e"
    every = [{**row, "source": row["source"] + evil} for row in rows()] + [
        {"source": "it's <b>" + evil, "uid": "f" * 32, "caption": evil}
    ] * 40
    with subject_of(every, tmp_path) as subject:
        values = collect(subject)
    page = page_of("captions", values)
    assert set(page.numbers) <= numbers_in(values)
    for source in values["sources"].values():
        for kind in ("words", "characters", "clip_tokens", "repetition"):
            assert {str(value) for name, value in source[kind].items() if name != "histogram"} <= set(page.numbers)
    assert (page.tags["script"], page.tags["img"], page.tags["b"]) == (0, 0, 0)
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    assert page.tags["bdi"] > 50


def test_the_page_says_what_is_not_known(tmp_path: Path) -> None:
    with subject_of([{"source": "a", "uid": "0" * 32, "width": 5, "height": 4}], tmp_path) as subject:
        page = page_of("captions", collect(subject))
    assert page.text.count("not known: there are no captions") == 5
    assert set(page.numbers) == {"77", "0.2"}
