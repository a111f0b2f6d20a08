"""`evaluate pack`: what it writes proves itself, opens as any set, and says where its splits come from."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from published_sets import MINIATURES, cifar_pixels

from eval import packed
from eval.cli import main
from eval.data import open_examples, resolve, sniff
from shards.cli import main as shards
from shards.core.errors import RunError, TornFileError, UsageError
from shards.manifest import read_manifest


def encoded(seed: int, kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


def folders(root: Path, per_class: int = 6) -> Path:
    """Write real class folders, three classes of real JPEGs."""
    for label, name in enumerate(("cat", "dog", "fox")):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            (root / name / f"{i}.jpg").write_bytes(encoded(100 * label + i))
    return root


def test_a_named_set_is_packed_as_builds_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = MINIATURES["cifar10"](tmp_path / "raw")
    out = tmp_path / "sets" / "cifar10"
    assert main(["pack", "cifar10", "--input", str(tmp_path / "raw"), "--output", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["splits"]) == ["train", "test", *(f"fog-{i}" for i in range(1, 6))]
    dataset = packed.read(str(out))
    assert (dataset.name, dataset.metric, dataset.split_rule, len(dataset.templates)) == ("cifar10", "acc1", "official", 18)
    assert dataset.split("fog-3").shift == "test images under fog of severity 3 of 5"
    for split, rows in truth.items():
        assert "-" in split or shards(["verify", str(out / split), "--engine", "inline"]) == 0
        examples = open_examples(str(out / split))
        assert sorted(zip(examples.ids, examples.labels.tolist(), strict=True)) == sorted(rows)
        assert examples.digest == dataset.split(split).digest
        assert read_manifest(str(out / split)).digest == dataset.split(split).manifest
    test = open_examples(str(out))
    assert (test.name, test.metric, test.templates, test.class_digest) == ("cifar10", "acc1", dataset.templates, dataset.class_digest)
    pixels = {id: np.asarray(Image.open(io.BytesIO(test.read(i)))) for i, id in enumerate(test.ids)}
    assert all(np.array_equal(pixels[f"test/{i:05d}"], cifar_pixels(10, 9)[i]) for i in range(10))


def test_samples_lie_in_rank_order_as_in_every_build(tmp_path: Path) -> None:
    out = tmp_path / "out"
    raw = folders(tmp_path / "raw")
    assert main(["pack", "mine", "--kind", "folder", "--input", str(raw), "--output", str(out), "--test-share", "0"]) == 0
    ids = [f.relative_to(raw).as_posix() for f in raw.rglob("*.jpg")]
    uids = {id: hashlib.sha256(f"mine\0{id}".encode()).hexdigest()[:32] for id in ids}
    ranks = {id: hashlib.sha256(f"0:{uid}".encode()).digest()[:8] for id, uid in uids.items()}
    assert list(open_examples(str(out / "train")).ids) == sorted(ids, key=ranks.__getitem__)
    sidecar = pq.read_table(out / "train" / "00000.parquet").to_pylist()
    assert [(row["key"], row["rank"]) for row in sidecar] == [(uids[row["source_id"]], i) for i, row in enumerate(sidecar)]


def test_hashes_are_known_without_reading_an_image(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert main(["pack", "mine", "--kind", "folder", "--input", str(folders(tmp_path / "raw")), "--output", out]) == 0
    examples = open_examples(out)
    naive = [hashlib.sha256(examples.read(i)).hexdigest() for i in range(len(examples))]
    assert examples.hashes.astype(str).tolist() == naive
    for tar in Path(out).rglob("*.tar"):
        tar.write_bytes(b"\0" * tar.stat().st_size)
    blind = open_examples(out)
    assert blind.hashes.astype(str).tolist() == naive
    assert blind.limit(2).hashes.shape == (2,)


def test_a_set_of_ones_own_is_split_by_the_hash_of_its_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rule's naive twin over the same bytes gives the same sides; copies fall together; nothing is deduplicated."""
    raw = folders(tmp_path / "raw", 20)
    (raw / "fox" / "copy.jpg").write_bytes((raw / "cat" / "0.jpg").read_bytes())
    out = tmp_path / "out"
    assert main(["pack", "mine", "--kind", "auto", "--input", str(raw), "--output", str(out), "--val-share", "0.25"]) == 0
    found = {id: split for split in ("train", "val", "test") for id in open_examples(str(out / split)).ids}
    assert len(found) == 61
    for id, split in found.items():
        x = int(hashlib.sha256((raw / id).read_bytes()).hexdigest()[:16], 16) / 2**64
        assert split == ("test" if x < 0.2 else "val" if x < 0.45 else "train")
    assert found["fox/copy.jpg"] == found["cat/0.jpg"]
    dataset = packed.read(str(out))
    assert "test where x < 0.2, val where x < 0.45" in dataset.split_rule
    rows = [(id, ("cat", "dog", "fox").index(id.split("/")[0]), split) for id, split in found.items()]
    lines = "".join(sorted(f"{id}\t{label}\t{split}\n" for id, label, split in rows))
    assert dataset.split_checksum == hashlib.sha256(lines.encode()).hexdigest()


def test_splits_of_folders_and_of_tables_are_kept(tmp_path: Path) -> None:
    folders(tmp_path / "raw" / "train", 3)
    folders(tmp_path / "raw" / "val", 2)
    shutil.rmtree(tmp_path / "raw" / "val" / "dog")
    assert main(["pack", "mine", "--kind", "auto", "--input", str(tmp_path / "raw"), "--output", str(tmp_path / "a")]) == 0
    assert {split: len(open_examples(path)) for split, path in packed.splits_of(str(tmp_path / "a")).items()} == {"train": 9, "val": 4}
    assert open_examples(str(tmp_path / "a" / "val")).classes == ("cat", "dog", "fox")
    with pytest.raises(UsageError, match="no test split"):
        open_examples(str(tmp_path / "a"))
    rows = [f"train/{name}/{i}.jpg,{name},{'test' if i else 'train'}" for name in ("cat", "fox") for i in range(3)]
    (tmp_path / "raw" / "labels.csv").write_text("\n".join(["file,kind,fold", *rows]))
    flags = ["--input", str(tmp_path / "raw" / "labels.csv"), "--output", str(tmp_path / "b")]
    flags += ["--image-column", "file", "--label-column", "kind", "--split-column", "fold"]
    assert main(["pack", "tabled", "--kind", "table", *flags]) == 0
    assert {name: len(open_examples(path)) for name, path in packed.splits_of(str(tmp_path / "b" / "test")).items()} == {
        "train": 2,
        "test": 4,
    }
    parts = [f"train={tmp_path / 'raw' / 'train'}", f"test={tmp_path / 'raw' / 'val'}"]
    assert main(["pack", "parted", "--kind", "folder", "--parts", *parts, "--output", str(tmp_path / "c")]) == 0
    assert len(open_examples(str(tmp_path / "c"))) == 4


def test_bytes_stay_where_every_reader_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plain JPEG, gray or coloured, keeps its bytes; one that is turned, CMYK or no JPEG is encoded again, and told."""
    raw = folders(tmp_path / "raw")
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = {"turned.jpg": encoded(1, exif=exif), "cmyk.jpg": encoded(2, mode="CMYK"), "mask.png": encoded(3, "PNG", "RGBA")}
    odd["tile.tif"] = encoded(4, "TIFF")
    kept = {"gray.jpg": encoded(5, mode="L"), "progressive.jpg": encoded(6, progressive=True)}
    for name, content in {**odd, **kept}.items():
        (raw / "cat" / name).write_bytes(content)
    out = tmp_path / "out"
    flags = ["--input", str(raw), "--output", str(out), "--test-share", "0"]
    assert main(["pack", "mine", "--kind", "folder", *flags]) == 0
    assert "4 images of train encoded again as .jpg" in capsys.readouterr().err
    assert shards(["verify", str(out / "train"), "--engine", "inline"]) == 0
    examples = open_examples(str(out / "train"))
    contents = {id: examples.read(i) for i, id in enumerate(examples.ids)}
    for id, content in contents.items():
        same = content == (raw / id).read_bytes()
        assert same == (id.rpartition("/")[2] not in odd), id
    assert Image.open(io.BytesIO(contents["cat/turned.jpg"])).size == (9, 12)


def test_tiles_of_a_set_without_jpegs_keep_their_pixels(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for name in ("a", "b"):
        (raw / name).mkdir(parents=True)
        for i in range(4):
            (raw / name / f"{i}.tif").write_bytes(encoded(10 * i + ord(name), "TIFF"))
    out = tmp_path / "out"
    assert main(["pack", "tiles", "--kind", "folder", "--input", str(raw), "--output", str(out), "--test-share", "0"]) == 0
    examples = open_examples(str(out / "train"))
    assert read_manifest(str(out / "train")).members == ("png", "txt", "cls")
    for i, id in enumerate(examples.ids):
        ours, theirs = np.asarray(Image.open(io.BytesIO(examples.read(i)))), np.asarray(Image.open(raw / id))
        assert np.array_equal(ours, theirs)


def test_undecodable_images_are_rows_with_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = folders(tmp_path / "raw")
    whole = encoded(7)
    (raw / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (raw / "dog" / "page.jpg").write_bytes(b"<html>not found</html>")
    out = tmp_path / "out"
    flags = ["pack", "mine", "--kind", "folder", "--input", str(raw), "--output", str(out), "--test-share", "0"]
    assert main(flags) == 0
    assert "2 images of train left out" in capsys.readouterr().err
    ledger = {row["source_id"]: row for row in pq.read_table(out / "train" / "ledger" / "00000.parquet").to_pylist()}
    assert len(ledger) == 20
    assert {id for id, row in ledger.items() if row["decision"] == "dropped"} == {"dog/cut.jpg", "dog/page.jpg"}
    assert ledger["dog/page.jpg"]["reason"] == "undecodable"
    assert "no image of a known format" in ledger["dog/page.jpg"]["detail"]
    assert ledger["cat/0.jpg"]["shard"] == "00000"
    examples = open_examples(str(out / "train"))
    assert [count for count, _, _ in examples.told] == [2]
    assert packed.read(str(out)).split("train").undecodable == 2
    assert main([*flags, "--overwrite", "--strict"]) == 1
    for file in raw.rglob("*.jpg"):
        file.write_bytes(b"nothing")
    assert main([*flags, "--overwrite"]) == 2
    assert "none of the 20 images decodes" in capsys.readouterr().err


def test_test_images_that_are_training_images_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path / "raw" / "train", 3)
    shutil.copytree(tmp_path / "raw" / "train", tmp_path / "raw" / "test")
    (tmp_path / "raw" / "test" / "cat" / "0.jpg").write_bytes(encoded(999))
    assert main(["pack", "mine", "--kind", "auto", "--input", str(tmp_path / "raw"), "--output", str(tmp_path / "out")]) == 0
    assert "8 images of test are training images too, byte for byte" in capsys.readouterr().err


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    raw = folders(tmp_path / "raw")
    for name in ("a", "b"):
        assert main(["pack", "mine", "--kind", "folder", "--input", str(raw), "--output", str(tmp_path / name), "--workers", "3"]) == 0
    first = {f.relative_to(tmp_path / "a"): f.read_bytes() for f in (tmp_path / "a").rglob("*") if f.is_file()}
    second = {f.relative_to(tmp_path / "b"): f.read_bytes() for f in (tmp_path / "b").rglob("*") if f.is_file()}
    assert first == second


def test_what_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = folders(tmp_path / "raw")
    flags = ["pack", "mine", "--kind", "folder", "--input", str(raw), "--output", str(tmp_path / "out")]
    assert main(flags) == 0
    assert main(flags) == 2
    assert "try: --overwrite" in capsys.readouterr().err
    assert main([*flags, "--overwrite", "--only", "train"]) == 0
    assert list(packed.splits_of(str(tmp_path / "out"))) == ["train"]
    assert not (tmp_path / "out" / "test").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    assert main(["pack", "mine", "--kind", "folder", "--input", str(raw), "--output", str(tmp_path / "other"), "--overwrite"]) == 2
    assert (tmp_path / "other" / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["pack", "cifar11", "--input", "{raw}", "--output", "{out}"], "did you mean 'cifar10'?"),
        (["pack", "--input", "{raw}", "--output", "{out}"], "--kind auto"),
        (["pack", "cifar10", "--output", "{out}"], "where is the set?"),
        (["pack", "cifar10", "--input", "{raw}"], "no output folder"),
        (["pack", "cifar10", "--input", "{raw}", "--output", "{raw}"], "the input itself"),
        (["pack", "cifar10", "--input", "{raw}", "--output", "{out}"], "no data_batch_1"),
        (["pack", "cifar10", "--input", "{raw}", "--output", "{out}", "--label-column", "x"], "columns or class names given"),
        (["pack", "m", "--kind", "folder", "--input", "{raw}", "--output", "{out}", "--only", "tets"], "--only tets: no such split"),
        (
            ["pack", "m", "--kind", "auto", "--input", "{raw}", "--output", "{out}", "--test-share", "0.7", "--val-share", "0.5"],
            "a sum below 1",
        ),
    ],
)
def test_bad_flags_write_nothing(flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = folders(tmp_path / "raw"), tmp_path / "out"
    assert main([flag.format(raw=raw, out=out) for flag in flags]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_spoiled_packed_set_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["pack", "mine", "--kind", "folder", "--input", str(folders(tmp_path / "raw")), "--output", str(out)]) == 0
    assert sniff(str(out)) == sniff(str(out / "train")) == sniff(str(out / "train" / "manifest.json")) == "packed"
    text = (out / "dataset.json").read_text()
    (out / "dataset.json").write_text(text.replace('"cat"', '"dog "'))
    with pytest.raises(UsageError, match="classes are not those that class_digest is of"):
        open_examples(str(out))
    (out / "dataset.json").write_text(text[:-30])
    with pytest.raises(TornFileError, match="not JSON"):
        open_examples(str(out))
    (out / "dataset.json").write_text(text)
    (out / "test" / "00000.parquet").unlink()
    with pytest.raises(RunError, match="no whole sidecar"):
        open_examples(str(out))


def test_data_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import dataclass

    @dataclass
    class Flags:
        data: str | tuple[str, ...]
        data_root: str = ""

    root = tmp_path / "sets"
    assert main(["pack", "mine", "--kind", "folder", "--input", str(folders(tmp_path / "raw")), "--output", str(root / "mine")]) == 0
    assert resolve(Flags("mine", str(root))) == [str(root / "mine")]
    assert resolve(Flags(("mine/train", str(tmp_path / "raw")), str(root))) == [str(root / "mine" / "train"), str(tmp_path / "raw")]
    monkeypatch.setenv("PROVENDER_DATA", str(root))
    assert resolve(Flags("mine")) == [str(root / "mine")]
    with pytest.raises(UsageError, match="no data at 'cifar100'") as error:
        resolve(Flags("cifar100"))
    assert error.value.advice.startswith("evaluate pack cifar100 --input")
    assert resolve(Flags("s3://bucket/x")) == ["s3://bucket/x"]
    with pytest.raises(UsageError, match="no data to evaluate on"):
        resolve(Flags(""))


def test_every_set_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows if row["kind"] == "set"} == set(MINIATURES)
    assert all(row["summary"] for row in rows)
