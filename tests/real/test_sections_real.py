"""The captions and images sections on real captions and pictures, against plain Python, open_clip and Pillow."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from PIL import Image
from real_captions import by_origin

from curate.cli import main
from curate.report.plots import colours_of
from curate.report.sections import captions, images
from curate.report.stats import add_up, count_rows, write_statistics
from curate.report.subject import Subject, open_subject
from curate.report.wordcount import tokens
from shards.manifest import read_manifest


def collected(found: dict[str, list[str]], folder: Path) -> dict[str, Any]:
    import pyarrow as pa

    rows = [{"source": source, "caption": c} for source, own in found.items() for c in own]
    for i, row in enumerate(rows):
        row["uid"] = hashlib.sha256(f"{i}".encode()).hexdigest()[:32]
    table = pa.Table.from_pylist(rows).sort_by("uid")
    write_statistics(str(folder / "0.parquet"), count_rows(table))
    unknown = {
        name: pa.nulls(len(rows), kind)
        for name, kind in (("width", pa.int32()), ("height", pa.int32()), ("bytes", pa.int64()), ("at", pa.string()))
    }
    for name, column in unknown.items():
        table = table.append_column(name, column)
    with add_up([str(folder / "0.parquet")]) as con:
        return captions.collect(Subject(con, tuple(sorted(found)), table, {"most": 5000}, (), ()))


@pytest.mark.slow
def test_the_five_origins(realdata: Path, tmp_path: Path) -> None:
    found = by_origin(realdata)
    assert sorted(found) == ["alttext", "cc3m", "coco", "flickr30k", "redcaps"]
    values = collected(found, tmp_path)
    clip = open_clip.get_tokenizer("ViT-B-32")
    for source, own in found.items():
        one = values["sources"][source]
        measures = {
            "words": [len(tokens(c)) for c in own], "characters": [len(c) for c in own], "clip_tokens": [len(clip.encode(c)) + 2 for c in own],
        }  # fmt: skip
        for kind, numbers in measures.items():
            assert [one[kind][q] for q in ("median", "p95", "max")] == [
                np.quantile(numbers, q, method="inverted_cdf") for q in (0.5, 0.95, 1)
            ]
        assert one["clip_tokens"]["over_77"] == sum(n > 77 for n in measures["clip_tokens"])
        said = Counter(tuple(tokens(c)) or c for c in own)
        assert (one["duplicates"]["captions"], one["duplicates"]["distinct"]) == (len(own), len(said))
        assert [row["count"] for row in one["duplicates"]["most"]] == [n for _, n in said.most_common(10) if n > 1]
        assert sum(row["count"] for row in one["readability"]["classes"]) == len(own)
        language = one["language"]
        assert language["n"] == min(len(own), 2000)
        assert next(row for row in language["shares"] if row["code"] != "unsure")["code"] == "en"
        assert len(one["quantile_samples"]) == 7
    most = {source: {row["class"]: row["share"] for row in one["readability"]["classes"]} for source, one in values["sources"].items()}
    assert max(most, key=lambda source: most[source]["file_name"]) == "alttext"
    assert max(most, key=lambda source: most[source]["single_word"]) == "redcaps"
    assert [s for s, one in values["sources"].items() if one["clip_tokens"]["over_77"]] == ["alttext"]
    assert set(captions.figures(values, colours_of(sorted(found)))) == {"words", "characters", "clip_tokens"}


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.slow
def test_the_images_of_a_build(realdata: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    pairs, classes = realdata / "pairs", realdata / "classification"
    recipe.write_text(
        f"sources:\n  - {{name: coco, reader: folder, input: {pairs / 'coco'}, images: {pairs / 'coco/images'}}}\n"
        f"  - {{name: eurosat, reader: folder, input: {classes / 'eurosat'}, template: ['a photo of a {{}}']}}\n"
        "samples: all\n"
    )
    assert main(["build-shards", "--config", str(recipe), "--output", str(tmp_path / "out")]) == 0
    with open_subject([read_manifest(str(tmp_path / "out"))]) as subject:
        values = images.collect(subject)
    files = {"coco": sorted((pairs / "coco/images").iterdir()), "eurosat": sorted((classes / "eurosat").rglob("*.jpg"))}
    for source, paths in files.items():
        one = values["sources"][source]
        assert one["samples"] == len(paths)
        sizes = [size_of(path) for path in paths]
        for name, sides in zip(("width", "height"), zip(*sizes, strict=True), strict=True):
            assert [one[name][q] for q in ("min", "median", "max")] == [np.quantile(sides, q, method="inverted_cdf") for q in (0, 0.5, 1)]
        assert one["shorter_side"]["below"] == sum(min(size) < images.SIDE for size in sizes)
        assert one["formats"] == [{"format": "JPEG", "count": one["samples"], "share": 1.0}]
        assert one["information"]["n"] == one["samples"]
        assert len(one["sheet"]) == 24
        assert all(row["picture"] for row in one["sheet"])
    assert values["sources"]["eurosat"]["samples"] == 80
    assert values["sources"]["coco"]["information"]["near_constant"]["count"] == 0
    assert values["sources"]["eurosat"]["information"]["near_constant"]["share"] > 0.05  # sea and forest
