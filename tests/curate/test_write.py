"""The write pass: what it copies is what was measured, or it says which file is not."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from drawing import encoded, picture

from curate.report import stats
from shards.core import fs
from shards.manifest import read_manifest

Build = Callable[..., tuple[int, Path, str]]
FLAGS = ("--source", "folder", "--samples", "all")


def test_bytes_that_changed_since_they_were_measured_are_never_written(
    build: Build, captioned: Callable[..., Path], tmp_path: Path
) -> None:
    """A byte of a photo changes behind our back: same size, same time stamp, and the measured parts are reused."""
    from curate.cli import main

    folder = captioned([(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(6)])
    flags: tuple[Any, ...] = (*FLAGS, "--input", folder, "--work", tmp_path / "work")
    assert main(["measure", "--engine", "inline", *map(str, flags)]) == 0
    victim, before = folder / "3.jpg", (folder / "3.jpg").stat()
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, out, err = build(*flags)
    assert code == 1
    assert "3.jpg" in err
    assert "not those that were measured" in err
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("*.tar"))


def test_an_encoded_picture_that_has_gone_is_named(build: Build, captioned: Callable[..., Path], tmp_path: Path) -> None:
    """Pictures that are encoded anew lie in the work folder, whose files are not looked at again before they are copied."""
    from curate.cli import main

    folder = captioned([(f"{i}.png", encoded(picture(i), "PNG"), f"picture {i}") for i in range(3)])
    flags: tuple[Any, ...] = (*FLAGS, "--input", folder, "--work", tmp_path / "work")
    assert main(["measure", "--engine", "inline", *map(str, flags)]) == 0
    (blob,) = (tmp_path / "work" / "measured").glob("*.blob")
    blob.unlink()
    code, _, err = build(*flags)
    assert code == 1
    assert f"{blob}: No such file or directory" in err


def test_statistics_lie_beside_each_shard_and_a_resumed_build_counts_those_that_are_missing(
    build: Build, captioned: Callable[..., Path]
) -> None:
    folder = captioned([(f"{i:02d}.jpg", encoded(picture(i)), f"picture {i} of a dog & a café") for i in range(20)])
    flags: tuple[Any, ...] = (*FLAGS, "--input", folder, "--samples-per-shard", 8)
    code, out, _ = build(*flags)
    assert code == 0
    counted = {path.name: path.read_bytes() for path in (out / "stats").iterdir()}
    manifest = read_manifest(str(out))
    for entry in manifest.shards:
        kept = stats.read_statistics(stats.path_of(manifest, entry), entry.sidecar_sha256)
        assert kept is not None
        assert kept.equals(stats.count_rows(pq.read_table(manifest.path_of(entry, ".parquet"))))
    (out / "manifest.json").unlink()
    (out / "stats" / "00001.parquet").unlink()
    (out / "stats" / "00002.parquet").write_bytes(counted["00000.parquet"])
    (out / "stats" / "00003.parquet").write_bytes(counted["00000.parquet"])
    (out / "stats" / ".00000.parquet.tmp-7").write_bytes(b"half")
    tars = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    code, out, _ = build(*flags)
    assert code == 0
    assert {path.name: path.read_bytes() for path in (out / "stats").iterdir()} == counted
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == tars


def test_ranges_of_many_files_are_read_right_and_few_files_stay_open(tmp_path: Path) -> None:
    rng = random.Random(0)
    contents = {str(tmp_path / f"{i}.bin"): rng.randbytes(2000) for i in range(3 * fs.Ranges.MOST)}
    for path, content in contents.items():
        Path(path).write_bytes(content)
    fs.write_bytes("memory://ranges/a.bin", content)
    before = psutil.Process().num_fds()
    with fs.Ranges() as ranges:
        for path in rng.choices(list(contents), k=1000):
            offset, place = rng.randrange(2000), bytearray(rng.randrange(1, 900))
            there = contents[path][offset : offset + len(place)]
            assert ranges.read_into(memoryview(place), path, offset) == len(there)
            assert place[: len(there)] == there
            assert psutil.Process().num_fds() <= before + fs.Ranges.MOST
        place = bytearray(100)
        assert ranges.read_into(memoryview(place), "memory://ranges/a.bin", 1950) == 50
        assert place[:50] == content[1950:]
    assert psutil.Process().num_fds() == before
