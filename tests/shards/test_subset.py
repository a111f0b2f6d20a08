"""Subsets are exact to the sample, nest, compose, and are honoured by our reader and by what they write for others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from shards import cli, tar
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.verify import verify


def _keys(folder: str | Path) -> list[str]:
    return [s.key for s in read_samples(read_manifest(str(folder)), [])]


def _subset(*arguments: str) -> int:
    return cli.main(["subset", *arguments])


@pytest.mark.parametrize("window", [(0, 1), (0, 8), (0, 20), (3, 5), (7, 9), (8, 16), (5, 17), (19, 20)])
@pytest.mark.parametrize("materialize", [False, True])
def test_a_window_holds_exactly_its_samples(make_shards, tmp_path, window, materialize):
    folder, out = make_shards(20), str(tmp_path / "sub")
    start, stop = window
    assert _subset(folder, "--window", f"{start}:{stop}", "--output", out, *(["--materialize"] if materialize else [])) == 0
    manifest = read_manifest(out)
    assert _keys(out) == _keys(folder)[start:stop]
    assert [s.row["uid"] for s in read_samples(manifest, [], ["uid"])] == _keys(folder)[start:stop]
    assert manifest.samples == stop - start == sum(json.loads(Path(out, "sizes.json").read_text()).values())
    assert manifest.sources == {"drawn": {"reader": "drawn", "unit": "image", "kept": stop - start}}
    assert manifest.parents[0]["manifest"] == read_manifest(folder).digest
    assert list(verify(manifest, engine="inline")) == []


def test_whole_shards_are_never_copied_and_a_cut_one_carries_its_range(make_shards, tmp_path):
    folder, out = make_shards(20), tmp_path / "deep" / "sub"
    assert _subset(folder, "--window", "5:20", "--output", str(out)) == 0
    shards = read_manifest(str(out)).shards
    assert [(e.path, e.use, e.index) for e in shards] == [
        ("../../build/00000.tar", (5, 8), "00000.idx"),
        ("../../build/00001.tar", None, None),
        ("../../build/00002.tar", None, None),
    ]
    assert sorted(p.name for p in out.iterdir()) == ["00000.idx", "manifest.json", "sizes.json"]
    whole = tar.parse_index(Path(folder, "00000.idx").read_text())
    assert tar.parse_index((out / "00000.idx").read_text()) == whole[5:8]


def test_materialized_shards_are_the_bytes_a_build_of_that_size_would_have(make_shards, tmp_path):
    """The first 13 of 20, cut, and the same 13 written by themselves: the same tar, byte for byte."""
    folder, out = make_shards(20), tmp_path / "sub"
    assert _subset(folder, "--samples", "13", "--output", str(out), "--materialize") == 0
    assert sorted(p.name for p in out.iterdir()) == ["00001.idx", "00001.parquet", "00001.tar", "manifest.json", "sizes.json"]
    with Path(folder, "00001.tar").open("rb") as file:
        members = [m for g in list(tar.samples(tar.walk(file)))[:5] for m in g]
        end = members[-1].offset - 512 + tar.padded(members[-1].size)
        file.seek(0)
        expected = file.read(end) + tar.END
    assert (out / "00001.tar").read_bytes() == expected
    entry = read_manifest(str(out)).shards[1]
    assert (entry.samples, entry.use, entry.sha256) == (5, None, hashlib.sha256(expected).hexdigest())


def test_windows_compose(make_shards, tmp_path):
    folder, middle, inner = make_shards(20), str(tmp_path / "m"), str(tmp_path / "x" / "i")
    assert _subset(folder, "--window", "3:18", "--output", middle) == 0
    assert _subset(middle, "--window", "2:12", "--output", inner) == 0
    assert _keys(inner) == _keys(folder)[5:15]
    assert list(verify(read_manifest(inner), engine="inline")) == []
    assert _subset(middle, "--samples", "15", "--output", str(tmp_path / "all")) == 0
    assert _keys(tmp_path / "all") == _keys(middle)


def test_the_manifest_does_not_depend_on_where_it_lies(make_shards, tmp_path):
    """A build and its subset moved together still fit, and no absolute path is written."""
    folder = make_shards(20, "one/build")
    assert _subset(folder, "--samples", "5", "--output", str(tmp_path / "one" / "sub")) == 0
    (tmp_path / "one").rename(tmp_path / "two")
    assert len(_keys(tmp_path / "two" / "sub")) == 5
    assert str(tmp_path) not in (tmp_path / "two" / "sub" / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--samples", "21"], "at most 20"),
        (["--samples", "0"], "holds no sample"),
        (["--window", "5:5"], "holds no sample"),
        (["--window", "-1:5"], "argument"),
        (["--window=-1:5"], "holds no sample"),
        (["--window", "5"], "A:B"),
        (["--window", "1:2:3"], "A:B"),
        (["--window", "0:25"], "at most 20"),
        ([], "one of --samples N and --window A:B"),
        (["--samples", "1", "--window", "0:1"], "one of --samples N and --window A:B"),
    ],
)
def test_what_cannot_be_cut_is_exit_2_and_writes_nothing(make_shards, tmp_path, capsys, arguments, said):
    folder = make_shards(20)
    assert _subset(folder, *arguments, "--output", str(tmp_path / "sub")) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "sub").exists()


def test_what_is_there_is_kept_unless_told(make_shards, tmp_path, capsys):
    folder, out = make_shards(20), str(tmp_path / "sub")
    assert _subset(folder, "--samples", "5", "--output", out) == 0
    assert _subset(folder, "--samples", "6", "--output", out) == 2
    assert len(_keys(out)) == 5
    assert _subset(folder, "--samples", "6", "--output", out, "--overwrite", "--json") == 0
    assert json.loads(capsys.readouterr().out.rpartition("\n{")[2].join(("{", "")))["samples"] == 6
    assert _subset(folder, "--samples", "6", "--output", folder, "--overwrite") == 2
    assert _subset(out, "--samples", "3", "--output", folder, "--overwrite") == 2
    assert len(_keys(folder)) == 20


def test_sources_are_counted_in_the_window(make_shards, tmp_path):
    import dataclasses

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = make_shards(20)
    manifest, total = read_manifest(folder), 0
    for entry in manifest.shards:
        path = manifest.path_of(entry, ".parquet")
        table = pq.read_table(path)
        names = ["a" if (total + i) % 3 else "b" for i in range(len(table))]
        pq.write_table(table.set_column(2, "source", pa.array(names)), path)
        total += len(table)
    dataclasses.replace(manifest, sources={"a": {"kept": 13}, "b": {"kept": 7}}).save(folder)
    assert _subset(folder, "--window", "6:13", "--output", str(tmp_path / "sub")) == 0
    assert read_manifest(str(tmp_path / "sub")).sources == {"a": {"kept": 4}, "b": {"kept": 3}}
