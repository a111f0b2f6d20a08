"""What sets the five origins of the real captions apart, and how rich their words are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from real_captions import rows

from curate.report.sections import apart, vocabulary
from curate.report.stats import add_up, count_rows, write_statistics
from curate.report.subject import Subject

# Words that everybody who has seen the data sets expects among the words they say more often than the others.
EXPECTED = {
    "flickr30k": ["man", "woman", "wearing", "shirt", "young"],  # people and what they wear
    "coco": ["bus", "cat", "bathroom", "plate", "standing", "table", "train", "pizza"],  # things of everyday life
    "redcaps": ["found", "first", "kayak", "id", "fishing", "mushroom"],  # people tell what they did, on boards of kayaks and mushrooms
    "cc3m": ["person", "artist", "actor", "film", "festival"],  # names have become what they are names of
    "alttext": ["stock", "vector", "sale", "free", "photo"],  # shops and stock photos
}


@pytest.fixture(scope="module")
def found(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sections vocabulary and apart of the captions by origin."""
    every = rows(realdata)
    names = [f"{i}" for i in range(len(every))]
    sample = pa.table({
        "source": [origin for origin, _ in every], "uid": names, "caption": [caption for _, caption in every],
        **{name: pa.nulls(len(every), pa.int64()) for name in ("width", "height", "bytes")}, "at": names,
    })  # fmt: skip
    path = str(tmp_path_factory.mktemp("stats") / "00000.parquet")
    write_statistics(path, count_rows(sample.select(["source", "caption"])))
    with add_up([path]) as con:
        subject = Subject(con, tuple(EXPECTED), sample, {}, (), ())
        return vocabulary.collect(subject), apart.collect(subject)


@pytest.mark.parametrize("origin", EXPECTED)
def test_what_sets_an_origin_apart(found: tuple[dict[str, Any], dict[str, Any]], origin: str) -> None:
    rows = [row for row in found[1]["words"] if (row["source"], row["side"]) == (origin, "over")]
    assert set(EXPECTED[origin]) <= {row["word"] for row in rows}
    assert all(row["per_million"] > 2 * row["rest_per_million"] for row in rows if row["word"] in EXPECTED[origin])
    assert all(found[1]["samples"][origin][row["word"]] for row in rows)
    stop = {row["word"] for row in rows if row["stop"]}
    assert stop >= {"redcaps": {"my", "this", "i"}, "coco": {"a", "next"}, "flickr30k": {"a", "is"}, "cc3m": {"the"}}.get(origin, set())


def test_no_letter_that_a_tokeniser_left_is_among_the_content_words(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    words = {row["word"] for row in found[1]["words"] if not row["stop"]}
    assert {word for word in words if len(word) == 1 and not word.isdigit()} == set()


def test_people_who_were_asked_to_describe_use_fewer_words(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """At equal size the crowd-sourced captions (COCO, Flickr30k) have the smallest vocabularies, alt-texts the largest."""
    sources = found[0]["sources"]
    order = sorted(sources, key=lambda source: sources[source]["rarefied"]["types"])
    assert set(order[:2]) == {"coco", "flickr30k"}
    assert order[-1] == "alttext"
    assert all(0.5 < one["zipf"]["exponent"] < 1.6 and one["zipf"]["ks"] < 0.05 for one in sources.values())
    assert all(0.5 < one["heaps"]["beta"] < 0.95 for one in sources.values())
    assert found[0]["all"]["captions"] == 10_895
