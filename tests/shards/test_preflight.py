"""What is found before a training begins. The oracle of every count is a naive loop over the members or rows that were written."""

from __future__ import annotations

import collections
import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign import foreign, good, write

from shards import tar
from shards.core import fs
from shards.core.errors import RunError, UsageError
from shards.index import index
from shards.manifest import Manifest, ShardEntry, read_manifest
from shards.preflight import preflight
from shards.writer import write_sidecar


def _reshaped(folder: str, change: Any, tar_number: int | None = None) -> None:
    """Change the rows of a build's sidecars (of one, or of all)."""
    for number, path in enumerate(sorted(Path(folder).glob("*.parquet"))):
        if tar_number in (None, number):
            old = pq.read_table(path)
            rows = [change(row) for row in old.to_pylist()]
            write_sidecar(str(path), pa.Table.from_pylist(rows, schema=old.schema))


def test_a_good_foreign_set_has_nothing_to_tell(tmp_path):
    found = preflight(foreign(tmp_path, good), captions=True, labels="class", classes=12)
    assert (found.samples, found.shards, found.members) == (64, 4, ((".jpg .txt .cls", 64),))
    assert (found.problems, found.lines()) == (0, [])
    assert found.captions_looked_at == 64


@pytest.mark.parametrize("classes", [False, True])
def test_a_build_of_ours_has_nothing_to_tell(make_shards, classes):
    manifest = read_manifest(make_shards(40, classes=classes))
    found = preflight(manifest, captions=True, labels="class" if classes else "", classes=4)
    assert (found.samples, found.problems, found.captions_looked_at) == (40, 0, 40)


def test_of_a_build_only_sizes_are_read_where_no_annotation_is_asked_for(make_shards):
    """Neither index nor sidecar is there: what the manifest proves is not read again."""
    folder = make_shards(20)
    manifest = read_manifest(folder)
    for path in [*Path(folder).glob("*.idx"), *Path(folder).glob("*.parquet")]:
        path.unlink()
    assert preflight(manifest, captions=False).samples == 20


@pytest.mark.parametrize("change", ["missing", "shorter", "longer", "a folder", "empty"])
@pytest.mark.parametrize("ours", [False, True])
def test_a_tar_that_is_not_as_the_manifest_says_is_refused(tmp_path, make_shards, change, ours):
    manifest = read_manifest(make_shards(32)) if ours else foreign(tmp_path / "foreign", good)
    path = Path(manifest.path_of(manifest.shards[2]))
    whole = path.read_bytes()
    size = manifest.shards[2].bytes
    path.unlink()
    if change == "a folder":
        path.mkdir()
    elif change != "missing":
        path.write_bytes({"shorter": whole[:-512], "longer": whole + bytes(512), "empty": b""}[change])
    with pytest.raises(UsageError) as error:
        preflight(manifest, captions=True)
    assert str(path) in error.value.found
    assert f"{size:,} bytes" in error.value.allowed
    assert "shards verify" in error.value.advice
    assert ("--overwrite" in error.value.advice) is not ours
    wanted = {"missing": "no such file", "shorter": f"{size - 512:,} bytes", "longer": f"{size + 512:,} bytes"}
    assert wanted.get(change, "bytes") in error.value.found


def test_a_set_in_a_remote_store_is_looked_at_through_fsspec(tmp_path):
    foreign(tmp_path, good)
    remote = "memory://preflight"
    for path in tmp_path.iterdir():
        fs.write_bytes(f"{remote}/{path.name}", path.read_bytes())
    manifest = read_manifest(remote)
    assert preflight(manifest, captions=True, labels="class").problems == 0
    fs.remove(f"{remote}/00003.tar")
    with pytest.raises(UsageError, match=r"preflight/00003\.tar: no such file"):
        preflight(manifest, captions=True)


@pytest.mark.parametrize(
    ("members", "found", "advice"),
    [
        ({"jpg": b"x", "cls": b"1"}, "no sample has a caption; members are .jpg .cls", "need no captions"),
        ({"jpg": b"x", "json": b'{"caption": "a"}'}, "members are .jpg .json; the .json has 'caption'", "build-shards --source webdataset"),
        ({"jpg": b"x", "json": b'{"url": "a"}'}, "members are .jpg .json", "need no captions"),
        ({"jpg": b"x", "json": b"[" * 100_000}, "members are .jpg .json", "need no captions"),
        ({"jpg": b"x", "txt": b""}, "the .txt of all 64 samples that have one are empty", ""),
        ({"jpg": b"x", "txt": b" \n\t"}, "all 64 captions looked at are blank", ""),
        ({"jpg": b"x", "txt": "\u00a0\u3000".encode()}, "all 64 captions looked at are blank", ""),
    ],
)
def test_a_set_without_captions_is_refused_with_the_members_it_has(tmp_path, members, found, advice):
    manifest = foreign(tmp_path, lambda i: members)
    with pytest.raises(UsageError) as error:
        preflight(manifest, captions=True)
    assert error.value.found.startswith(str(tmp_path))
    assert found in error.value.found
    assert advice in error.value.advice
    assert preflight(manifest, captions=False).problems == 0


@pytest.mark.parametrize("indexed", [True, False])
def test_missing_empty_and_blank_captions_are_counted(tmp_path, indexed):
    kinds = [random.Random(i).choice(["good", "absent", "empty", "blank"]) for i in range(64)]
    texts = {"good": b"words", "empty": b"", "blank": b"  "}
    manifest = foreign(tmp_path, lambda i: {"jpg": b"x"} | ({"txt": texts[kinds[i]]} if kinds[i] in texts else {}))
    if not indexed:
        for path in tmp_path.glob("*.idx"):
            path.unlink()
    found = preflight(manifest, captions=True)
    count = collections.Counter(kinds)
    assert (found.without_caption, found.empty_captions, found.blank_captions) == (count["absent"], count["empty"], count["blank"])
    assert found.captions_looked_at == count["good"] + count["blank"]
    assert found.problems == 64 - count["good"]
    first = {kind: kinds.index(kind) for kind in count}
    assert found.lines() == [
        f"{count['absent']} samples without a caption, such as {first['absent'] // 16:05d}.tar: s{first['absent']:06d}",
        f"{count['empty']} samples with an empty .txt, such as {first['empty'] // 16:05d}.tar: s{first['empty']:06d}",
        f"{count['blank']} of {found.captions_looked_at} captions looked at are blank, or only say nan, None or null,"
        f" such as {first['blank'] // 16:05d}.tar: s{first['blank']:06d}",
    ]


def test_at_most_256_captions_are_read_spread_over_all_tars(tmp_path):
    manifest = foreign(tmp_path, lambda i: {"jpg": b"x", "txt": b" " if i >= 600 else b"word"}, samples=1200, per_tar=20)
    found = preflight(manifest, captions=True)
    assert found.captions_looked_at == 256
    assert 0.45 < found.blank_captions / 256 < 0.55, "half of the tars are blank"


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_build_whose_sidecar_captions_are_all_blank_is_refused(make_shards, blank):
    folder = make_shards(40)
    _reshaped(folder, lambda row: row | {"caption": blank, "captions": []})
    with pytest.raises(UsageError, match=r"all 40 captions looked at are blank or absent, such as 00000\.tar: [0-9a-f]{32}"):
        preflight(read_manifest(folder), captions=True)
    _reshaped(folder, lambda row: row | {"caption": "words"}, tar_number=1)
    assert preflight(read_manifest(folder), captions=True).blank_captions == 32


def _with_layer(folder: Path, captions: list[str | None], tars: int) -> None:
    layer = folder / "layers" / "recap"
    layer.mkdir(parents=True)
    for number in range(tars):
        rows = captions[number * 16 : (number + 1) * 16]
        pq.write_table(pa.table({"uid": [""] * len(rows), "caption": pa.array(rows, pa.string())}), layer / f"{number:05d}.parquet")
    (layer / "layer.json").write_text(json.dumps({"columns": ["caption"]}))


def test_captions_of_a_layer_count(tmp_path):
    manifest = foreign(tmp_path, lambda i: {"jpg": b"x"})
    captions = [None if i % 3 else f"caption {i}" for i in range(64)]
    _with_layer(tmp_path, captions, 4)
    found = preflight(manifest, captions=True, layers=["recap"])
    assert (found.without_caption, found.captions_looked_at) == (captions.count(None), 64 - captions.count(None))
    with pytest.raises(UsageError, match="no sample has a caption"):
        preflight(manifest, captions=True)
    with pytest.raises(UsageError, match="no captions in a layer 'recup'"):
        preflight(manifest, captions=True, layers=["recap", "recup"])


def test_members_apart_in_a_set_indexed_by_others_are_refused(tmp_path):
    """As wds2idx and our own older releases index it: 4 samples for 2."""
    write(tmp_path / "0.tar", [("a.jpg", b"x"), ("b.jpg", b"x"), ("a.txt", b"y"), ("b.txt", b"y")])
    groups = tar.read_index(str(tmp_path / "0.tar"))
    (tmp_path / "0.idx").write_text(tar.format_index(groups))
    entry = ShardEntry("0.tar", len(groups), (tmp_path / "0.tar").stat().st_size)
    manifest = Manifest(len(groups), entry.bytes, (entry,), folder=str(tmp_path))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"0\.tar: members of 2 samples stand apart, such as those of 'a'") as error:
            preflight(manifest, captions=True)
        assert "tar --sort=name" in error.value.advice
        (tmp_path / "0.idx").unlink(missing_ok=True)


def test_repeated_keys_are_counted_as_a_dictionary_counts_them(tmp_path):
    rng = random.Random(0)
    keys = []
    for number in range(5):
        mine = rng.sample(range(100), 20)
        keys += mine
        write(tmp_path / f"{number}.tar", [(f"{'long/' * (key % 2 * 4)}{key}.{ext}", b"x") for key in mine for ext in ("jpg", "txt")])
    found = preflight(index(str(tmp_path), engine="inline"), captions=True)
    assert found.repeated_keys == sum(n > 1 for n in collections.Counter(keys).values())
    assert "keys that stand for several samples" in found.lines()[-1]


def test_samples_without_an_image_are_counted_and_a_set_without_one_is_refused(tmp_path):
    manifest = foreign(tmp_path / "some", lambda i: {"txt": b"words"} if i % 4 == 1 else {"PNG": b"x", "txt": b"words"})
    found = preflight(manifest, captions=True)
    assert (found.without_image, found.lines()) == (16, ["16 samples without an image, such as 00000.tar: s000001.txt"])
    with pytest.raises(UsageError, match=r"no sample has an image; members are \.txt \.cls"):
        preflight(foreign(tmp_path / "none", lambda i: {"txt": b"words", "cls": b"1"}), captions=True)


@pytest.mark.parametrize(
    ("label", "classes", "refusal"),
    [
        (b"11", 12, ""),
        (b" 11\n", 12, ""),
        (b"12", 12, "00000.tar: s000005: .cls holds '12'"),
        (b"12", 0, ""),
        (b"-1", 12, "s000005: .cls holds '-1'"),
        (b"9" * 20, 0, "s000005: .cls holds '9999"),
        (b"cat", 0, "s000005: .cls holds 'cat'"),
        (b"\xff", 0, r"s000005: .cls holds '\\xff'"),
    ],
)
def test_class_members_out_of_range_are_refused_by_name(tmp_path, label, classes, refusal):
    manifest = foreign(tmp_path, lambda i: {"jpg": b"x", "cls": label if i == 5 else b"3"})
    if not refusal:
        assert preflight(manifest, captions=False, labels="class", classes=classes).problems == 0
        return
    with pytest.raises(UsageError, match=re.escape(refusal)) as error:
        preflight(manifest, captions=False, labels="class", classes=classes)
    assert error.value.allowed == (f"a class number from 0 to {classes - 1}" if classes else "a class number from 0 on")


def test_samples_without_a_class_member_are_counted_and_a_set_without_one_is_refused(tmp_path):
    manifest = foreign(tmp_path / "some", lambda i: {"jpg": b"x"} | ({"cls": b"1"} if i % 3 else {}))
    found = preflight(manifest, captions=False, labels="class")
    assert (found.without_label, found.lines()) == (22, ["22 samples without a label, such as 00000.tar: s000000"])
    bare = foreign(tmp_path / "none", lambda i: {"jpg": b"x"})
    with pytest.raises(UsageError, match=r"no sample has a label in 'class'; members are \.jpg"):
        preflight(bare, captions=False, labels="class")
    with pytest.raises(UsageError, match="no column 'clas' with labels") as error:
        preflight(manifest, captions=False, labels="clas")
    assert "did you mean 'class'?" in error.value.advice


def test_labels_of_a_sidecar_are_judged_as_a_loop_judges_them(make_shards):
    folder = make_shards(60, classes=True)
    rng = random.Random(0)
    labels: dict[str, int | None] = {}

    def change(row: dict[str, Any]) -> dict[str, Any]:
        labels[row["key"]] = rng.choice([0, 1, 2, 3, 9, -1, None])
        return row | {"class": labels[row["key"]]}

    _reshaped(folder, change)
    manifest = read_manifest(folder)
    assert preflight(manifest, captions=False, labels="class", classes=10).without_label == sum(v in (-1, None) for v in labels.values())
    first = next(key for key, label in labels.items() if label == 9)
    with pytest.raises(UsageError, match=rf"\d{{5}}\.tar: {first}: label 9 in 'class'"):
        preflight(manifest, captions=False, labels="class", classes=9)
    _reshaped(folder, lambda row: row | {"class": -2 if row["key"] == first else 0})
    with pytest.raises(UsageError, match=f"{first}: label -2"):
        preflight(manifest, captions=False, labels="class")
    _reshaped(folder, lambda row: row | {"class": -1})
    with pytest.raises(UsageError, match="no sample has a label in 'class'"):
        preflight(manifest, captions=False, labels="class")
    with pytest.raises(UsageError, match="holds string"):
        preflight(manifest, captions=False, labels="caption")


def test_statistics_prove_labels_up_to_the_last_class_alone(make_shards):
    manifest = read_manifest(make_shards(60, classes=True))
    assert preflight(manifest, captions=False, labels="class", classes=4).without_label == 0
    with pytest.raises(UsageError, match="label 3 in 'class'"):
        preflight(manifest, captions=False, labels="class", classes=3)


def test_only_labels_of_samples_in_use_are_judged(make_shards):
    folder = make_shards(16, per_shard=16, classes=True)
    keys = pq.read_table(Path(folder) / "00000.parquet")["key"].to_pylist()
    _reshaped(folder, lambda row: row | {"class": 7 if row["key"] == keys[12] else 0})
    whole = read_manifest(folder)
    for use, fine in (((0, 12), True), ((13, 16), True), ((0, 13), False), ((12, 16), False)):
        entry = dataclasses.replace(whole.shards[0], use=use)
        manifest = dataclasses.replace(whole, shards=(entry,), samples=entry.used)
        if fine:
            assert preflight(manifest, captions=True, labels="class", classes=4).samples == entry.used
        else:
            with pytest.raises(UsageError, match=keys[12]):
                preflight(manifest, captions=True, labels="class", classes=4)


def test_lists_of_labels_in_a_layer_are_judged(tmp_path):
    manifest = foreign(tmp_path, good, samples=16)
    layer = tmp_path / "layers" / "tags"
    layer.mkdir(parents=True)
    (layer / "layer.json").write_text(json.dumps({"columns": ["ids"]}))
    rows = [[1, 4], [], None, *([[i] for i in range(13)])]
    pq.write_table(pa.table({"uid": [""] * 16, "ids": pa.array(rows, pa.list_(pa.int32()))}), layer / "00000.parquet")
    assert preflight(manifest, captions=False, labels="tags.ids", classes=13).without_label == 2
    with pytest.raises(UsageError, match=r"00000\.tar: s000015: label 12 in 'tags\.ids'"):
        preflight(manifest, captions=False, labels="tags.ids", classes=12)


def test_hashes_of_keys_are_alike_in_every_tar_and_walk(tmp_path):
    """Keys of other lengths stand beside them, indices are absent: repeated keys are found all the same."""
    keys = ["k", "k" * 8, "k" * 9, "k" * 90, "0", "00", "000"]
    for number in range(6):
        lengths = [key for key in keys if len(key) <= 90 - 15 * number]
        write(tmp_path / f"{number}.tar", [(f"{key}.jpg", b"x") for key in lengths])
    manifest = index(str(tmp_path), engine="inline")
    (tmp_path / "3.idx").unlink()
    assert preflight(manifest, captions=False).repeated_keys == 6


@pytest.mark.parametrize("text", ["v1.2 3\njpg 512 1 a.jpg\n", "v1.2 2\njpg 512 1\n", "v1.2 1\njpg 512 1 a.jpg txt\n", "", "v9 1\nx\n"])
def test_a_torn_index_is_refused(tmp_path, text):
    manifest = foreign(tmp_path, good, samples=16)
    (tmp_path / "00000.idx").write_text(text)
    with pytest.raises((RunError, UsageError), match=r"00000\.idx"):
        preflight(manifest, captions=True)


def test_an_index_of_version_1_1_has_no_keys_that_repeat(tmp_path):
    manifest = foreign(tmp_path, good)
    for path in tmp_path.glob("*.idx"):
        lines = [f"v1.1 {16}"]
        lines += [" ".join(f"{m.ext} {m.offset} {m.size}" for m in group) for group in tar.parse_index(path.read_text())]
        path.write_text("\n".join(lines) + "\n")
    assert preflight(manifest, captions=True, labels="class", classes=12).problems == 0
