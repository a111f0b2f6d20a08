"""Every native metadata file of the real sample gives as many records as other readers count in it."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from curate.sources import cc3m, cc12m, folder, redcaps, webdataset
from curate.sources.base import Record
from shards.core.errors import UsageError


def records(module: ModuleType, path: Path) -> list[Record]:
    """Return all records of all inputs."""
    options = module.Options()
    return [r for one in module.inputs(str(path), options) for r in module.read(one, options)]


@pytest.mark.parametrize("folder_name", ["native", "derived"])
def test_redcaps(realdata: Path, folder_name: str) -> None:
    files = sorted((realdata / "metadata/redcaps" / folder_name).glob("*.json"))
    expected = [a for f in files for a in json.loads(f.read_text("utf-8"))["annotations"]]
    found = records(redcaps, files[0].parent)
    assert [(r.source_id, r.captions[0], r.urls[0]) for r in found] == [(a["image_id"], a["caption"], a["url"]) for a in expected]
    assert len({r.source_id for r in found}) == len(found)
    assert {json.loads(r.meta)["subreddit"] for r in found} == {a["subreddit"] for a in expected}


@pytest.mark.parametrize(
    ("module", "name", "caption", "url"),
    [
        (cc3m, "cc3m/Train_GCC-training.tsv", 0, 1),
        (cc3m, "cc3m/Validation_GCC.sample.tsv", 0, 1),
        (cc3m, "cc3m/Image_Labels_Subset_Train_GCC-Labels-training.tsv", 0, 1),
        (cc12m, "cc12m/cc12m.tsv", 1, 0),
    ],
)
def test_conceptual_captions(realdata: Path, module: ModuleType, name: str, caption: int, url: int) -> None:
    path = realdata / "metadata" / name
    with path.open(encoding="utf-8", newline="\n") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = records(module, path)
    assert [(r.captions[0], r.urls[0], r.status) for r in found] == [(row[caption], row[url], "") for row in rows]


def test_webdataset(realdata: Path) -> None:
    for name, status in (("image3.tar", ""), ("compressed.tar", "image_missing")):
        path = realdata / "metadata/webdataset" / name
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}  # type: ignore[union-attr]
        found = records(webdataset, path)
        assert [r.source_id for r in found] == [f"{name}/{n.partition('.')[0]}" for n in files]
        assert {r.status for r in found} == {status}
        for record, content in zip(found, files.values(), strict=True):
            if record.image:
                assert path.read_bytes()[record.image.offset :][: record.image.size] == content
    with pytest.raises(UsageError, match="compressed"):
        webdataset.inputs(str(realdata / "metadata/webdataset/sample.tgz"), webdataset.Options())


def test_folders(realdata: Path) -> None:
    """Images as counted by their names on disk, captions as counted in the captions files."""
    pairs = realdata / "pairs"
    with (pairs / "flickr8k/captions.txt").open(encoding="utf-8", newline="") as file:
        flickr8k = len(list(csv.DictReader(file)))
    flickr30k = len((pairs / "flickr30k/results.token").read_text("utf-8").split("\n")) - 1
    coco = len(json.loads((pairs / "coco/captions.json").read_text("utf-8"))["annotations"])
    for name, captions in (("flickr8k", flickr8k), ("flickr30k", flickr30k), ("coco", coco)):
        found = records(folder, pairs / name)
        assert sum(len(r.captions) for r in found) == captions
        assert all(r.image and Path(r.image.path).is_file() for r in found if not r.status)
        assert len({r.source_id for r in found}) == len(found)


def test_class_folders(realdata: Path) -> None:
    root = realdata / "classification/caltech101"
    found = records(folder, root)
    assert len(found) == sum(1 for p in root.rglob("*") if p.is_file())
    assert all(r.class_name == r.source_id.split("/")[0] for r in found)
    assert sorted({r.class_name for r in found}) == sorted(p.name for p in root.iterdir())
    assert {r.class_index for r in found} == set(range(12))


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        (cc3m, "cc12m/cc12m.tsv", "looks like cc12m"),
        (cc12m, "cc3m/Validation_GCC.sample.tsv", "looks like cc3m"),
        (cc12m, "cc3m/Image_Labels_Subset_Train_GCC-Labels-training.tsv", "looks like cc3m"),
        (cc12m, "wit/wit_v1.sample.tsv", "no line of the first"),
        (cc3m, "yfcc/yfcc100m_dataset.tsv", "no line of the first"),
        (cc12m, "shutterstock/shutterstock_from_cc3m.csv", "no line of the first"),
        (cc3m, "laion/alttext.parquet", "parquet"),
        (redcaps, "redcaps/explore_healthyfood.json", "its records are lists"),
        (redcaps, "sbu/sbu-captions-all.json", "an object of image_urls"),
        (redcaps, "imagenet-captions/imagenet_captions.json", "there is no 'image_id'"),
        (redcaps, "cc3m/Train_GCC-training.tsv", "use --source cc3m"),
        (webdataset, "laion/alttext.parquet", "no tar"),
    ],
)
def test_the_wrong_source_for_a_file_is_refused(realdata: Path, module: ModuleType, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        module.inputs(str(realdata / "metadata" / name), module.Options())
