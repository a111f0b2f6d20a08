"""The card and the metadata of a build of real photos with real licences, held against the files by other means."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from card_reader import card, issues, load, records, sidecar, table

from curate.cli import main


@pytest.mark.slow
def test_the_card_of_a_real_build_is_true(realdata: Path, tmp_path: Path) -> None:
    recipe = {
        "sources": [{"name": name, "reader": "folder", "input": str(realdata / "pairs" / name)} for name in ("flickr8k", "coco")],
        "samples": "all",
        "exclude": {"sets": [str(realdata / "classification" / "oxford-pets")]},
        "shards": {"samples": 64},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "out"
    assert main(["build-shards", "--config", str(tmp_path / "recipe.yaml"), "--output", str(out)]) == 0
    text, croissant = card(out)
    assert issues(out / "croissant.json")[0] == []
    assert not any(str(place) in text + json.dumps(croissant) for place in (realdata, tmp_path))

    rows = {row["uid"]: row for row in sidecar(out)}
    content = json.loads((realdata / "pairs/coco/captions.json").read_text())
    names = {one["id"]: one["url"] for one in content["licenses"]}
    stated = Counter(names[image["license"]] for image in content["images"])
    said = {row[1]: int(row[2]) for row in table(text, "source", "licence") if row[0] == "coco"}
    assert sum(said.values()) == sum(row["source"] == "coco" for row in rows.values())
    assert set(said) <= set(stated)
    assert all(count <= stated[name] for name, count in said.items())

    pets = json.loads((out / "manifest.json").read_text())["notes"]["excluded"]["sets"][0]
    (as_it_is, views) = table(text, "test set", "searched with")
    assert views[3:] == [f"{share:.1%}" for share in pets["recall"]["23 views"].values()]
    assert float(as_it_is[7][:-1]) < float(views[7][:-1])  # flipped copies are found by views alone

    found = {record["uid"]: record for record in records(out / "croissant.json", "samples", tmp_path / "croissant")}
    assert {uid: (r["caption"], r["captions"], r["licence"], r["image"]) for uid, r in found.items()} == {
        uid: (r["caption"], r["captions"], r["licence"], r["sha256"]) for uid, r in rows.items()
    }
    originals = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (realdata / "pairs").rglob("*.jpg")}
    assert len({r["image"] for r in found.values()} & originals) > len(found) // 2  # most are the sources' own bytes
    loaded = load(out, tmp_path / "cache").select_columns(["__key__", "txt"])
    assert {s["__key__"]: s["txt"] for s in loaded} == {uid: row["caption"] for uid, row in rows.items()}
