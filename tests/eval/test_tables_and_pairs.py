"""Tables of paths and labels, and sets of images with captions: readers, splits, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.cli import main
from eval.data import open_examples, sniff
from eval.datasets.base import Columns
from eval.datasets.paired import Paired, open_paired
from shards.core.errors import TornFileError, UsageError
from shards.manifest import Manifest
from shards.writer import write_shard

Images = list[tuple[str, int, bytes]]
NAMES = ("blue_square", "green_square", "red_square")


def written(path: Path, rows: list[dict[str, object]]) -> str:
    """Write rows as the suffix of a path says."""
    plain = path.name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    if plain.endswith(".jsonl"):
        text = "\n".join(json.dumps(row) for row in rows)
    elif plain.endswith(".json"):
        text = json.dumps(rows)
    else:
        mark = "\t" if plain.endswith(".tsv") else ","
        text = "\n".join(mark.join(map(str, row)) for row in [list(rows[0]), *(list(row.values()) for row in rows)])
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("file", ["x.csv", "x.tsv", "x.jsonl", "x.json", "x.parquet", "x.csv.gz"])
def test_a_table_gives_what_folders_give(file: str, images: Images, class_folders: str) -> None:
    path = Path(class_folders).parent / file
    table = written(path, [{"path": f"squares/{name}", "label": NAMES[label]} for name, label, _ in images])
    assert sniff(table) == "table"
    ours, theirs = open_examples(table), open_examples(class_folders)
    assert (ours.classes, ours.class_digest, ours.digest) == (theirs.classes, theirs.class_digest, theirs.digest)
    path.unlink()


def test_columns_of_any_name_and_splits(images: Images, class_folders: str) -> None:
    rows = [{"kind": label, "where": name, "split": ("train", "val", "test")[i % 3]} for i, (name, label, _) in enumerate(images)]
    table = written(Path(class_folders) / "labels.csv", rows)
    columns = Columns("where", "kind")
    for split, start in (("train", 0), ("val", 1), ("test", 2)):
        found = open_examples(f"{table}@{split}", columns=columns)
        assert found.ids == tuple(name for name, _, _ in images[start::3])
        assert found.labels.tolist() == [label for _, label, _ in images[start::3]]
        assert not found.named
    assert open_examples(table, columns=columns).ids == open_examples(f"{table}@test", columns=columns).ids
    with pytest.raises(UsageError, match="no split 'tset'") as error:
        open_examples(f"{table}@tset", columns=columns)
    assert error.value.allowed == "train, val, test"
    with pytest.raises(UsageError, match="no label column") as error:
        open_examples(table, columns=Columns("where"))
    assert error.value.advice == "--label-column NAME"
    with pytest.raises(UsageError, match="no column 'kinds'") as error:
        open_examples(table, columns=Columns("where", "kinds"))
    assert "kind" in error.value.advice
    Path(table).unlink()


def test_labels_that_pandas_made_floats_are_numbers(images: Images, class_folders: str) -> None:
    table = written(Path(class_folders) / "floats.parquet", [{"image": n, "label": float(label)} for n, label, _ in images])
    assert open_examples(table).labels.tolist() == [label for _, label, _ in images]
    Path(table).unlink()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["a.png", "cat"], ["b.png", ""]], "entry 2 has no 'label'"),
        ([["a.png", "-1"], ["b.png", "2"]], "label -1"),
        ([["a.png", "0"], ["b.png", "2000000"]], "label 2000000"),
        ([["nowhere.png", "cat"], ["b.png", "dog"]], r"nowhere\.png is not there"),
        ([["https://a.org/x.png", "cat"], ["b.png", "dog"]], "is a web address"),
    ],
)
def test_bad_tables_are_refused(rows: list[list[str]], said: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    table = written(tmp_path / "t.csv", [{"image": image, "label": label} for image, label in rows])
    with pytest.raises(UsageError, match=said):
        open_examples(table)


def test_several_splits_without_a_test_are_refused_and_torn_rows_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    table = written(tmp_path / "t.csv", [{"image": "a.png", "label": "x", "split": s} for s in ("train", "val")])
    with pytest.raises(UsageError, match="holds the splits train, val") as error:
        open_examples(table)
    assert error.value.advice == f"--data {table}@train"
    (tmp_path / "t.csv").write_text("image,label\na.png,cat\na.png,dog,extra\na.png,dog\n")
    with pytest.raises(TornFileError, match="row 2"):
        open_examples(table)
    with pytest.raises(UsageError, match="no split column for @test"):
        open_examples(written(tmp_path / "u.csv", [{"image": "a.png", "label": "x"}]) + "@test")


# Pairs


def contents(paired: Paired) -> dict[bytes, tuple[str, ...]]:
    return {paired.read(i): paired.captions[i] for i in range(len(paired))}


@pytest.fixture
def pairs(images: Images, tmp_path: Path) -> list[tuple[str, bytes, tuple[str, ...]]]:
    """(file name, bytes, captions) of eight images with one to three captions; the files lie in `images/`."""
    found = []
    (tmp_path / "set" / "images").mkdir(parents=True)
    for i, (_, _, content) in enumerate(images[:8]):
        captions = tuple(f"picture {i}, said {k} times" for k in range(1 + i % 3))
        found.append((f"p{i}.png", content, captions))
        (tmp_path / "set" / "images" / f"p{i}.png").write_bytes(content)
    return found


Pairs = list[tuple[str, bytes, tuple[str, ...]]]


def as_coco(pairs: Pairs, folder: Path) -> str:
    listed = [{"id": i, "file_name": name} for i, (name, _, _) in enumerate(pairs)]
    said = [{"image_id": i, "id": 10 * i + k, "caption": text} for i, (_, _, texts) in enumerate(pairs) for k, text in enumerate(texts)]
    (folder / "captions.json").write_text(json.dumps({"images": listed, "annotations": said}))
    return str(folder / "captions.json")


def as_csv(pairs: Pairs, folder: Path) -> str:
    rows: list[dict[str, object]] = [{"image": name, "caption": f'"{text}"'} for name, _, texts in pairs for text in texts]
    return written(folder / "captions.csv", rows)


def as_token(pairs: Pairs, folder: Path) -> str:
    lines = [f"{name}#{k}\t{text}" for name, _, texts in pairs for k, text in enumerate(texts)]
    (folder / "results.token").write_text("\n".join(lines))
    return str(folder / "results.token")


def as_tars(pairs: Pairs, folder: Path) -> str:
    """CLIP_benchmark's retrieval layout, by webdataset's own writer."""
    import webdataset

    (folder / "wds" / "test").mkdir(parents=True)
    (folder / "wds" / "dataset_type.txt").write_text("retrieval\n")
    with webdataset.TarWriter(str(folder / "wds" / "test" / "0.tar")) as writer:
        for i, (_, content, texts) in enumerate(pairs):
            writer.write({"__key__": f"s{i:07d}", "png": content, "txt": "\n".join(texts)})
    return str(folder / "wds" / "test")


def as_build(pairs: Pairs, folder: Path) -> str:
    """A build of ours: `.txt` has the first caption, the sidecar all of them."""
    (folder / "build").mkdir()
    samples = [(f"{i:032x}", {"jpg": content, "txt": texts[0].encode()}) for i, (_, content, texts) in enumerate(pairs)]
    hashes = [hashlib.sha256(content).hexdigest() for _, content, _ in pairs]
    columns = {"key": [key for key, _ in samples], "captions": [list(texts) for _, _, texts in pairs], "sha256": hashes}
    entry = write_shard(str(folder / "build"), "00000", samples, pa.table(columns))
    Manifest(samples=entry.samples, bytes=entry.bytes, shards=(entry,)).save(str(folder / "build"))
    return str(folder / "build")


@pytest.mark.parametrize("write", [as_coco, as_csv, as_token, as_tars, as_build])
def test_pairs_are_the_same_from_every_container(write: Callable[[Pairs, Path], str], pairs: Pairs, tmp_path: Path) -> None:
    found = open_paired(write(pairs, tmp_path / "set"))
    assert contents(found) == {content: texts for _, content, texts in pairs}
    assert len(found.pairs) == sum(len(texts) for _, _, texts in pairs)
    naive = sorted([hashlib.sha256(content).hexdigest(), *texts] for _, content, texts in pairs)
    text = json.dumps(naive, separators=(",", ":"))
    assert found.digest == hashlib.sha256(text.encode()).hexdigest()
    part = found.take([2, 0])
    assert part.captions == (found.captions[2], found.captions[0])
    assert part.read(0) == found.read(2)
    assert np.array_equal(part.hashes, found.hashes[[2, 0]])


def test_karpathys_splits(pairs: Pairs, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    listed = [
        {"filename": name, "split": ("train", "test")[i % 2], "sentences": [{"raw": text} for text in texts], "imgid": i}
        for i, (name, _, texts) in enumerate(pairs)
    ]
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": listed, "dataset": "flickr8k"}))
    path = str(folder / "dataset_flickr8k.json")
    assert contents(open_paired(path)) == {content: texts for _, content, texts in pairs[1::2]}
    assert contents(open_paired(path, split="train")) == {content: texts for _, content, texts in pairs[::2]}
    with pytest.raises(UsageError, match="no split 'val'") as error:
        open_paired(path, split="val")
    assert error.value.allowed == "train (4), test (4)"


def test_what_pairs_lack_is_told_or_refused(pairs: Pairs, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "images" / "p3.png").unlink()
    found = open_paired(as_csv(pairs, folder))
    assert len(found) == 7
    assert found.told == ((1, "[image|images] that captions name [is|are] not there", "such as p3.png"),)
    with pytest.raises(UsageError, match="no splits in it"):
        open_paired(str(folder / "captions.csv"), split="test")
    with pytest.raises(UsageError, match="no data at"):
        open_paired(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="images without captions"):
        open_paired(str(folder / "images"))
    with pytest.raises(UsageError, match="no image with a caption"):
        Paired("x", (), lambda i: b"", ())
    tars = as_tars(pairs, folder)
    with pytest.raises(UsageError, match="without labels") as error:
        open_examples(tars)
    assert error.value.advice == "evaluate retrieval"
    (folder / "wds" / "dataset_type.txt").write_text("multilabel")
    with pytest.raises(UsageError, match=r"dataset_type\.txt says 'multilabel'"):
        open_examples(tars)


def test_labelled_tars_are_no_pairs(foreign_tars: str) -> None:
    with pytest.raises(UsageError, match=r"has \.cls, \.png"):
        open_paired(foreign_tars)


def test_a_packed_set_has_no_captions(class_folders: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "packed")
    assert main(["pack", "squares", "--kind", "folder", "--input", class_folders, "--output", folder]) == 0
    with pytest.raises(UsageError, match="a packed set, whose images have classes and no captions"):
        open_paired(folder)


def test_a_hub_parquet_with_images_is_no_table(images: Images, tmp_path: Path) -> None:
    rows = [{"image": {"bytes": content, "path": None}, "label": label} for _, label, content in images]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test-00000-of-00001.parquet")
    assert sniff(str(tmp_path / "test-00000-of-00001.parquet")) == "huggingface"
    examples = open_examples(str(tmp_path / "test-00000-of-00001.parquet"))
    assert io.BytesIO(examples.read(3)).getvalue() == images[3][2]
