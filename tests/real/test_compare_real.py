"""Builds of the real pairs side by side: what sets Flickr8k's words apart from COCO's, and where a stricter build's samples went."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import jensenshannon

from curate.cli import main
from curate.report.wordcount import tokens


def build(out: Path, pairs: Path, names: tuple[str, ...], *flags: str) -> Path:
    coco = {"images": str(pairs / "coco" / "images")}
    sources = [{"name": n, "reader": "folder", "input": str(pairs / n)} | (coco if n == "coco" else {}) for n in names]
    recipe = out.with_suffix(".yaml")
    recipe.write_text(json.dumps({"sources": sources, "samples": "all"}))
    assert main(["build-shards", "--config", str(recipe), "--output", str(out), "--work", str(out.parent / "work"), *flags]) == 0
    return out


def compare(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["compare", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def kept(folder: Path) -> dict[str, str]:
    rows = [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path, columns=["uid", "caption"]).to_pylist()]
    return {row["uid"]: row["caption"] for row in rows}


@pytest.mark.slow
def test_flickr_against_coco(realdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [build(tmp_path / name, realdata / "pairs", (name,)) for name in ("flickr8k", "coco")]
    found = compare(capsys, *sets, "--output", tmp_path / "page.html")
    words = found["vocabulary"]
    (pair,) = words["pairs"]
    assert words["captions"] == min(len(kept(one)) for one in sets) == 122
    assert pair["by_chance_high"] < pair["interval"][0] < pair["divergence"] < pair["interval"][1]
    assert {"dog", "black", "boy"} <= {w["word"] for w in pair["more_a"]}
    assert {"table", "kitchen", "computer"} <= {w["word"] for w in pair["more_b"]}
    counted = Counter(word for caption in kept(sets[1]).values() for word in tokens(caption))
    assert {w["word"]: w["b"] for w in pair["more_b"]} == {w["word"]: counted[w["word"]] for w in pair["more_b"]}
    rows = {row[0]: row[1:] for row in words["listed"]["rows"]}
    assert pair["divergence"] > jensenshannon(*zip(*rows.values(), strict=True), base=2) ** 2 * 0.8
    assert 0 < (tmp_path / "page.html").stat().st_size < 5_000_000


@pytest.mark.slow
def test_a_stricter_build_says_what_it_left_out(realdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("flickr8k", "flickr30k", "coco")
    loose = build(tmp_path / "loose", realdata / "pairs", names)
    strict = build(tmp_path / "strict", realdata / "pairs", names, "--near-radius", "16", "--caption-length-min-words", "9")
    found = compare(capsys, loose, strict)
    (moved,) = found["moved"]
    gone = {uid: caption for uid, caption in kept(loose).items() if uid not in kept(strict)}
    went = {w["reason"]: w for w in moved["went"]["a"]}
    assert moved["total"]["a"] == {"samples": 379, "both": 379 - len(gone), "only": len(gone)}
    assert sum(w["count"] for w in went.values()) == len(gone)
    short = {uid for uid, caption in gone.items() if len(caption.split()) < 9}
    assert went["caption_length"]["count"] == len(short) == 56
    assert {e["uid"] for e in went["caption_length"]["examples"]} <= short
    assert went["near_duplicate"]["count"] == len(gone) - len(short) == 9
    assert {row["key"]: row["values"] for row in found["recipes"]["rows"]} == {
        "filters.caption_length.min_words": ["1", "9"],
        "dedup.near.radius": ["4", "16"],
    }
    (pair,) = found["vocabulary"]["pairs"]
    assert pair["divergence"] < 0.05  # nine in ten captions are the same
