"""Every native metadata file of the real sample gives as many records as other readers count in it."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import pytest

from curate.sources import cc3m, cc12m, folder, laion, redcaps, shutterstock, webdataset, yfcc
from curate.sources.base import Record
from shards.core.errors import UsageError
from shards.tables.values import NULL_WORDS


def records(module: ModuleType, path: Path, **options: Any) -> list[Record]:
    """Return all records of all inputs."""
    chosen = module.Options(**options)
    return [r for one in module.inputs(str(path), chosen) for r in module.read(one, chosen)]


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


def test_labels_of_conceptual_captions(realdata: Path) -> None:
    path = realdata / "metadata/cc3m/Image_Labels_Subset_Train_GCC-Labels-training.tsv"
    fields = [line.split("\t") for line in path.read_text("utf-8").split("\n") if line]
    found = [json.loads(r.meta) for r in records(cc3m, path)]
    assert [[m["labels"], m["mids"], m["confidences"]] for m in found] == [f[2:] for f in fields]


def test_laion(realdata: Path) -> None:
    """DuckDB is the other reader."""
    import duckdb

    path = realdata / "metadata/laion/alttext.parquet"
    expected = duckdb.sql(f"SELECT URL, TEXT FROM read_parquet('{path}')").fetchall()
    found = records(laion, path)
    assert len(found) == 800
    assert [(r.urls[0], r.captions[0], r.status) for r in found] == [(url, text, "") for url, text in expected]
    assert [r.source_id for r in found] == [f"{url}\n{text}" for url, text in expected]


def test_yfcc(realdata: Path) -> None:
    path = realdata / "metadata/yfcc/yfcc100m_dataset.tsv"
    rows = [line.split("\t") for line in path.read_text("utf-8").split("\n") if line]
    found = records(yfcc, path)
    assert [(r.source_id, r.captions, r.urls[0], r.licence) for r in found] == [
        (row[0], (unquote_plus(row[6]), unquote_plus(row[7])), row[14], row[16]) for row in rows
    ]
    assert [json.loads(r.meta)["usertags"] for r in found] == [[unquote_plus(tag) for tag in row[8].split(",")] for row in rows]
    assert [r.captions[0] for r in records(yfcc, path, field="description")] == [unquote_plus(row[7]) for row in rows]


@pytest.mark.parametrize(
    ("name", "id_column", "caption", "url", "status"),
    [
        ("shutterstock_from_cc3m.csv", "id", "caption", "url", ""),
        ("webvid_results_2M_val.csv", "videoid", "name", "contentUrl", "unsupported"),
    ],
)
def test_shutterstock(realdata: Path, name: str, id_column: str, caption: str, url: str, status: str) -> None:
    path = realdata / "metadata/shutterstock" / name
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = records(shutterstock, path)
    assert [(r.captions[0], r.urls[0], r.status) for r in found] == [(row[caption], row[url], status) for row in rows]
    assert [r.source_id for r in found] == [row[id_column] or f"{row[url]}\n{row[caption]}" for row in rows]
    headerless = records(shutterstock, realdata / "metadata/cc12m/cc12m.tsv")
    assert [r.status for r in headerless] == [""] * 3


def test_naughty_strings_come_back(realdata: Path, tmp_path: Path) -> None:
    """Every naughty string as a caption, written by another hand: each reader gives it back as it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    listed = json.loads((realdata / "text/naughty_strings.json").read_text("utf-8"))
    naughty = [text for text in listed if "\0" not in text and text.strip().lower() not in NULL_WORDS]
    urls = [f"http://h.example/{i}.jpg" for i in range(len(naughty))]
    pq.write_table(pa.table({"URL": urls, "TEXT": naughty}), tmp_path / "laion.parquet")
    line = ["0", "", "", "", "", "", *[""] * 7, "", "", "", "", *[""] * 5, "0"]
    photos = [[str(i), *line[1:6], quote_plus(text), *line[7:14], urls[i], *line[15:]] for i, text in enumerate(naughty)]
    (tmp_path / "yfcc.tsv").write_text("".join("\t".join(photo) + "\n" for photo in photos))
    items = [{"image_id": str(i), "url": urls[i], "caption": text} for i, text in enumerate(naughty)]
    (tmp_path / "redcaps.json").write_text(json.dumps({"annotations": items}, ensure_ascii=False), encoding="utf-8")
    with (tmp_path / "export.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("id", "url", "description"), *((i, url, text) for i, (url, text) in enumerate(zip(urls, naughty, strict=True)))]
        )
    for module, name in ((laion, "laion.parquet"), (yfcc, "yfcc.tsv"), (redcaps, "redcaps.json"), (shutterstock, "export.csv")):
        found = records(module, tmp_path / name)
        assert [r.status for r in found] == [""] * len(naughty)
        assert [r.captions[0] for r in found] == naughty
    plain = [(url, text) for url, text in zip(urls, naughty, strict=True) if not re.search(r"[\t\n\r]", text)]
    (tmp_path / "cc12m.tsv").write_text("".join(f"{url}\t{text}\n" for url, text in plain), encoding="utf-8")
    assert [(r.urls[0], r.captions[0]) for r in records(cc12m, tmp_path / "cc12m.tsv")] == plain


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
    path = realdata / "metadata/webdataset/sample.tgz"
    with tarfile.open(path) as tar:
        keys = {m.name.partition(".")[0] for m in tar.getmembers() if m.isfile()}
    assert {r.source_id for r in records(webdataset, path)} == {f"sample.tgz/{key}" for key in keys}


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
        (laion, "cc12m/cc12m.tsv", "use --source cc12m"),
        (laion, "shutterstock/shutterstock_from_cc3m.csv", "a csv file of id, kind"),
        (laion, "redcaps/native/abandoned_2017.json", "an object of annotations"),
        (yfcc, "yfcc/pass_metadata.csv", "no line of the first 6 is YFCC100M's"),
        (yfcc, "cc3m/Validation_GCC.sample.tsv", "use --source cc3m"),
        (yfcc, "wit/wit_v1.sample.tsv", "use --source wit"),
        (yfcc, "laion/alttext.parquet", "a parquet file"),
        (shutterstock, "cc3m/Train_GCC-training.tsv", "use --source cc3m"),
        (shutterstock, "yfcc/yfcc100m_dataset.tsv", "use --source yfcc"),
        (shutterstock, "laion/alttext.parquet", "use --source laion"),
        (shutterstock, "imagenet-captions/imagenet_captions.json", "use --source imagenet_captions"),
        (shutterstock, "webdataset/image3.tar", "a tar"),
        (redcaps, "wit/wit_v1.sample.tsv", "use --source wit"),
        (redcaps, "yfcc/yfcc100m_dataset.tsv", "use --source yfcc"),
        (redcaps, "webdataset/image3.tar", "a tar"),
    ],
)
def test_the_wrong_source_for_a_file_is_refused(realdata: Path, module: ModuleType, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        module.inputs(str(realdata / "metadata" / name), module.Options())
