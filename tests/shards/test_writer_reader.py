"""What is written is what is read, byte for byte, in order, with and without windows."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from shards.reader import Shard, read_samples
from shards.writer import finished, write_shard


def test_a_build_reads_back_as_tarfile_reads_it(make_shards):
    manifest = read_manifest(make_shards(20, classes=True))
    expected = []
    for entry in manifest.shards:
        with tarfile.open(manifest.path_of(entry)) as file:
            expected += [(m.name, file.extractfile(m).read()) for m in file]
    got = [(f"{s.key}.{ext}", content) for s in read_samples(manifest) for ext, content in s.members.items()]
    assert got == expected
    assert len(got) == 60


def test_rows_come_with_their_sample(make_shards):
    for sample in read_samples(read_manifest(make_shards(11)), ["jpg", "txt"], ["uid", "sha256", "caption"]):
        assert sample.row["uid"] == sample.key
        assert sample.row["sha256"] == hashlib.sha256(sample.members["jpg"]).hexdigest()
        assert sample.row["caption"] == sample.members["txt"].decode()


def test_a_window_is_honoured_by_shard_sidecar_and_samples(make_shards):
    manifest = read_manifest(make_shards(20))
    keys = [s.key for s in read_samples(manifest)]
    first = dataclasses.replace(manifest.shards[0], use=(3, 5))
    cut = dataclasses.replace(manifest, samples=14, shards=(first, *manifest.shards[1:]))
    assert [s.key for s in read_samples(cut, columns=["uid"])] == keys[3:5] + keys[8:]
    with Shard(cut, first) as shard:
        assert len(shard) == 2
        assert shard.sidecar(["uid"])["uid"].to_pylist() == keys[3:5]
        with pytest.raises(RunError, match=r"has no \.cls"):
            shard.read(0, "cls")


def test_equal_samples_give_equal_bytes_and_hashes_of_the_files(make_shards):
    one, two = Path(make_shards(9, "a")), Path(make_shards(9, "b"))
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
    assert all((two / p.name).read_bytes() == p.read_bytes() for p in one.iterdir())
    entry = read_manifest(str(one)).shards[0]
    for suffix, stated in ((".tar", entry.sha256), (".idx", entry.index_sha256), (".parquet", entry.sidecar_sha256)):
        assert hashlib.sha256((one / "00000").with_suffix(suffix).read_bytes()).hexdigest() == stated


@pytest.mark.parametrize("key", ["a.b", "a b", "a/b", "ü", "", "x" * 91])
def test_keys_that_some_reader_cannot_read_are_refused(tmp_path, key):
    with pytest.raises(UsageError, match="key"):
        write_shard(str(tmp_path), "00000", [(key, {"jpg": b"x"})], pa.table({"uid": ["1"]}))
    assert list(tmp_path.iterdir()) == []


def test_members_and_rows_must_agree(tmp_path):
    table = pa.table({"uid": ["1", "2"]})
    with pytest.raises(UsageError, match="has members"):
        write_shard(str(tmp_path), "00000", [("a", {"jpg": b"x"}), ("b", {"jpg": b"x", "txt": b""})], table)
    with pytest.raises(UsageError, match="1 samples"):
        write_shard(str(tmp_path), "00000", [("a", {"jpg": b"x"})], table)


def test_finished_knows_a_whole_shard_of_this_plan_alone(tmp_path):
    table = pa.table({"uid": ["1"]})
    entry = write_shard(str(tmp_path), "00000", [("a", {"jpg": b"x"})], table, plan="p")
    assert finished(str(tmp_path), "00000", "p") == entry
    assert finished(str(tmp_path), "00000", "q") is None
    (tmp_path / "00000.idx").unlink()
    assert finished(str(tmp_path), "00000", "p") is None


def test_a_tar_shorter_than_its_index_says_so(make_shards):
    manifest = read_manifest(make_shards(4))
    path = Path(manifest.path_of(manifest.shards[0]))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RunError, match="bytes at"):
        list(read_samples(manifest))
