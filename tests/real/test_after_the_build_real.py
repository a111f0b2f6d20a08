"""After a build of real photos: parts by condition, captions laid beside, a take-down, and what two builds share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate import cli
from shards import cli as shards_cli
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.verify import verify


def _rows(folder: Path, *columns: str) -> list[dict[str, Any]]:
    return [s.row for s in read_samples(read_manifest(str(folder)), [], columns)]


def _sound(folder: Path) -> bool:
    return list(verify(read_manifest(str(folder), removed=True), engine="inline")) == []


@pytest.fixture
def flickr(realdata: Path, tmp_path: Path) -> Path:
    flags = ["--input", str(realdata / "pairs" / "flickr8k"), "--samples", "all", "--samples-per-shard", "50", "--engine", "inline"]
    assert cli.main(["build-shards", "--source", "folder", *flags, "--output", str(tmp_path / "flickr")]) == 0
    return tmp_path / "flickr"


@pytest.mark.slow
def test_parts_layers_and_a_take_down(flickr: Path, tmp_path: Path) -> None:
    rows = _rows(flickr, "uid", "caption", "captions", "width", "phash")
    assert len(rows) > 100
    layer = "".join(json.dumps({"uid": r["uid"], "caption": c}) + "\n" for r in rows[::2] for c in r["captions"])
    (tmp_path / "more.jsonl").write_text(layer)
    assert cli.main(["layer", "add", str(flickr), "human", str(tmp_path / "more.jsonl"), "--many"]) == 0
    condition = "width > 180 AND len(human.caption) = 5 AND contains(lower(caption), 'dog')"
    part = ["subset", str(flickr), "--where", condition, "--output", str(tmp_path / "dogs")]
    assert shards_cli.main(part) == 0
    expected = [r for r in rows[::2] if r["width"] > 180 and len(r["captions"]) == 5 and "dog" in r["caption"].lower()]
    assert _rows(tmp_path / "dogs", "uid", "human.caption") == [{"uid": r["uid"], "human.caption": r["captions"]} for r in expected]
    assert len(expected) > 5
    assert _sound(tmp_path / "dogs")

    gone = expected[0]
    pictures = {s.key: s.members["jpg"] for s in read_samples(read_manifest(str(flickr)), ["jpg"])}
    (tmp_path / "uids.txt").write_text(gone["uid"])
    assert shards_cli.main(["remove", str(flickr), "--uids", str(tmp_path / "uids.txt")]) == 0
    assert [r["uid"] for r in _rows(tmp_path / "dogs", "uid")] == [r["uid"] for r in expected[1:]]
    assert shards_cli.main(["compact", str(flickr), "--engine", "inline"]) == 0
    assert [r["uid"] for r in _rows(tmp_path / "dogs", "uid")] == [r["uid"] for r in expected[1:]]
    assert _sound(flickr)
    for path in (p for folder in (flickr, Path(f"{flickr}.work")) for p in folder.rglob("*") if p.is_file()):
        text = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_bytes().decode("latin-1")
        assert gone["caption"] not in text, path
        assert pictures[gone["uid"]][-500:].decode("latin-1") not in text, path


@pytest.mark.slow
def test_what_a_build_shares_with_itself_recoded_and_with_another(realdata: Path, flickr: Path, tmp_path: Path, capsys) -> None:
    coco = realdata / "pairs" / "coco"
    flags = ["--input", str(coco), "--images", str(coco / "images"), "--samples", "all", "--engine", "inline"]
    assert cli.main(["build-shards", "--source", "folder", "--name", "coco", *flags, "--output", str(tmp_path / "coco")]) == 0
    small = ["--input", str(realdata / "pairs" / "flickr8k"), "--name", "small", "--image-max-side", "120", "--samples", "all"]
    assert cli.main(["build-shards", "--source", "folder", *small, "--engine", "inline", "--output", str(tmp_path / "small")]) == 0

    def compare(one: Path, two: Path) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.main(["compare", str(one), str(two), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    other = compare(flickr, tmp_path / "coco")
    (shared,), (words,) = other["overlap"], other["vocabulary"]["pairs"]
    assert shared["ids"]["a_in_b"] == shared["bytes"]["a_in_b"] == 0
    assert shared["near"]["a_in_b"] <= 1
    assert words["divergence"] > 1.2 * words["by_chance"]
    same = compare(flickr, tmp_path / "small")
    (shared,), (words,) = same["overlap"], same["vocabulary"]["pairs"]
    n = same["sets"][0]["samples"]
    assert shared["ids"]["a_in_b"] == 0
    assert shared["bytes"]["a_in_b"] == n  # original bytes are compared, whatever the shards hold
    assert shared["near"]["a_in_b"] == n
    assert words["divergence"] == 0
