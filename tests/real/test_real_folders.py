"""The real pairs and classification sets are read as they are; counts are taken from the files by other means."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from shards.folders import read_folder


@pytest.mark.parametrize(("name", "layout"), [("flickr8k", "csv"), ("flickr30k", "token"), ("coco", "coco"), ("cc-by", "csv")])
def test_pairs(realdata, name, layout):
    folder = realdata / "pairs" / name
    found = read_folder(str(folder))
    items = list(found)
    assert found.layout == layout
    assert not [i for i in items if i.problem or not Path(i.image).is_file()]
    assert len({i.id for i in items}) == len(items) == sum(1 for p in folder.rglob("*.jpg"))
    assert sum(len(i.captions) for i in items) == _captions(folder)


def _captions(folder: Path) -> int:
    if (folder / "captions.json").is_file():
        return len(json.loads((folder / "captions.json").read_text())["annotations"])
    if (folder / "results.token").is_file():
        return len((folder / "results.token").read_text().splitlines())
    with next(p for p in folder.iterdir() if p.suffix in (".txt", ".csv")).open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def test_licences_come_with_each_picture(realdata):
    photos = json.loads((realdata / "pairs/coco/captions.json").read_text())
    names = {x["id"]: x["url"] for x in photos["licenses"]}
    expected = {x["file_name"]: names[x["license"]] for x in photos["images"]}
    assert {Path(i.id).name: i.licence for i in read_folder(str(realdata / "pairs/coco"))} == expected
    assert all("creativecommons.org/licenses/by/" in i.licence for i in read_folder(str(realdata / "pairs/cc-by")))


@pytest.mark.parametrize("name", ["caltech101", "cifar10", "dtd", "eurosat", "oxford-pets", "pacs"])
def test_class_folders(realdata, name):
    folder = realdata / "classification" / name
    found = read_folder(str(folder))
    pictures = [p for p in folder.rglob("*") if p.is_file()]
    assert found.layout == "classes"
    assert found.classes == tuple(sorted({p.parent.name for p in pictures}))
    assert [i.id for i in found] == sorted(p.relative_to(folder).as_posix() for p in pictures)
    assert all(found.classes[i.class_index] == i.class_name == Path(i.image).parent.name for i in found)
