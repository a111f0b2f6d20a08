"""Bad input: one clear message, the contract's exit code, nothing half-written that looks whole."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from drawing import encoded, picture
from fsspec.implementations.memory import MemoryFileSystem

from shards.core.errors import RunError

Build = Callable[..., tuple[int, Path, str]]
Captioned = Callable[..., Path]
PAIRS = [(f"{i}.jpg", encoded(picture(i)), f"picture {i}") for i in range(12)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "no source"),
        (("--source", "redcap", "--input", "x"), "did you mean 'redcaps'?"),
        (("--source", "folder", "--input", "no/such/folder", "--samples", "all"), "no/such/folder"),
        (("--source", "redcaps", "--input", "x.json", "--samples", "all"), "--images POOL"),
        (("--config", "no.yaml"), "no file and no recipe 'no.yaml'"),
        (("--source", "folder", "--input", ".", "--sample", "3"), "--sample"),
        (("--source", "folder", "--input", ".", "--samples", "some"), "samples: found 'some'"),
        (("--source", "folder", "--input", "."), "no size"),
        (("--source", "folder", "--input", ".", "--samples", "0"), "at least 1, or all"),
        (("--source", "cc3m", "--input", ".", "--images", ".", "--image-column", "x"), "no option of the source 'cc3m'"),
        (("--source", "folder", "--input", ".", "--samples", "all", "--engine", "slurm"), "unknown engine 'slurm'"),
    ],
)
def test_what_cannot_be_done_as_written(build: Build, flags: tuple[str, ...], message: str) -> None:
    code, out, err = build(*flags)
    assert code == 2
    assert message in err
    assert "\nerror: " in f"\n{err}"
    assert not out.exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"sources": [{"reader": "folder", "input": ".", "imput": "."}]}, "did you mean 'input'?"),
        ({"sources": [{"reader": "folder", "input": "."}], "sample": 5}, "did you mean 'samples'?"),
        ({"sources": [{"reader": "folder"}]}, "missing key 'sources[0].input'"),
        ({"sources": [{"reader": "folder", "input": "."}], "filters": [{"name": "caption_lenght"}]}, "did you mean 'caption_length'?"),
        (
            {"sources": [{"reader": "folder", "input": "."}], "filters": [{"name": "caption_length", "min": 3}]},
            "unknown key 'filters.caption_length.min'",
        ),
        ({"sources": [{"reader": "folder", "input": "."}] * 2, "samples": "all"}, "a name of its own"),
        (
            {"sources": [{"reader": "folder", "input": ".", "samples": 3}, {"name": "b", "reader": "folder", "input": "."}]},
            "a quota for every source",
        ),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_by_name(build: Build, tmp_path: Path, recipe: dict[str, Any], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    code, out, err = build("--config", path)
    assert code == 2
    assert message in err
    assert not out.exists()


def test_a_missing_column_is_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "list.csv").write_text("image,words\n1.jpg,one\n")
    code, _, err = build("--source", "folder", "--input", tmp_path / "set", "--caption-column", "caption", "--samples", "all")
    assert code == 2
    assert "caption" in err
    assert "words" in err


def test_the_wrong_source_for_a_file_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "cc12m.tsv").write_text("https://example.org/1.jpg\ta caption\nhttps://example.org/2.jpg\tanother\n")
    (tmp_path / "pool").mkdir()
    code, _, err = build("--source", "cc3m", "--input", tmp_path / "cc12m.tsv", "--images", tmp_path / "pool", "--samples", "all")
    assert code == 2
    assert "cc12m" in err


def torn_tar(folder: Path) -> Path:
    import io
    import tarfile

    path = folder / "a.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(6):
            for ext, content in (("jpg", encoded(picture(i))), ("txt", f"picture {i}".encode())):
                info = tarfile.TarInfo(f"{i}.{ext}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_half_a_tar_stops_the_build_unless_told_to_skip(build: Build, tmp_path: Path) -> None:
    path = torn_tar(tmp_path)
    code, out, err = build("--source", "webdataset", "--input", path, "--samples", "all")
    assert code == 1
    assert "a.tar" in err
    assert "--bad-files skip" in err
    assert not out.exists()
    code, out, err = build("--source", "webdataset", "--input", path, "--samples", "all", "--bad-files", "skip")
    assert code == 0, err
    manifest = json.loads((out / "manifest.json").read_text())
    source = manifest["sources"]["webdataset"]
    assert source["dropped"] == {"torn_input": 1}
    assert 0 < source["kept"] < 6
    assert source["inputs"] == source["kept"] + 1
    assert manifest["notes"]["bad_files"] == ["webdataset: a.tar"]


def test_an_output_folder_with_other_files_is_refused(build: Build, captioned: Captioned, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    code, out, err = build("--source", "folder", "--input", captioned(PAIRS), "--samples", "all")
    assert code == 2
    assert "holds other files" in err
    assert (out / "thesis.tex").read_text() == "years of work"


class FullFileSystem(MemoryFileSystem):
    """A memory file system that is full after `room` bytes."""

    protocol = "full"
    room = 0
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode, **options)
        if "w" not in mode:
            return file
        plain = file.write

        def write(content: bytes) -> int:
            type(self).room -= len(content)
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return plain(content)

        file.write = write
        return file


@pytest.mark.parametrize("room", [0, 3_000, 30_000, 60_000])
def test_a_full_file_system_leaves_nothing_that_looks_whole(captioned: Captioned, tmp_path: Path, room: int) -> None:
    import pyarrow as pa

    from shards.core import fs
    from shards.writer import write_shard

    fsspec.register_implementation("full", FullFileSystem, clobber=True)
    FullFileSystem.store.clear()
    FullFileSystem.room = room
    samples = [(f"k{i}", {"jpg": content, "txt": caption.encode()}) for i, (_, content, caption) in enumerate(PAIRS * 2)]
    table = pa.table({"key": [key for key, _ in samples]})
    with pytest.raises(OSError, match="No space left"):
        write_shard("full://disk", "00000", samples, table)
    assert not fs.exists("full://disk/00000.parquet")
    assert [n for n in fs.names("full://disk") if ".tmp-" in n] == []


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root to mount a small tmpfs")
def test_a_disk_that_is_really_full(captioned: Captioned, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)], check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    try:
        folder = captioned([(f"{i}.jpg", encoded(picture(i, 200, 160)), f"picture {i}") for i in range(40)])
        command = [sys.executable, "-c", "import sys; from curate.cli import main; sys.exit(main())", "build-shards", "--source", "folder"]
        command += [
            "--input",
            str(folder),
            "--samples",
            "all",
            "--samples-per-shard",
            "4",
            "--work",
            str(tmp_path / "work"),
            "--output",
            str(disk / "out"),
        ]
        full = subprocess.run(command, check=False, capture_output=True, text=True)
        assert full.returncode == 1
        assert full.stderr.splitlines()[-3].startswith("error: ") or "error: " in full.stderr
        assert "No space left" in full.stderr
        assert "Traceback" not in full.stderr
        assert not (disk / "out" / "manifest.json").exists()
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        subprocess.run(command, check=True, capture_output=True)
        assert json.loads((disk / "out" / "manifest.json").read_text())["samples"] == 40
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def measured_rows(tmp_path: Path, folder: Path, fn: Any, **changes: Any) -> list[dict[str, Any]]:
    """Run the measure pass over a folder in workers, by another function or tasks that differ, and return its rows."""
    from curate.config import BuildConfig, resolve
    from curate.listing import list_records
    from curate.measure import _tasks, pieces, quarantine
    from shards.core.engine import Done, map_unordered

    recipe = resolve(BuildConfig(source="folder", input=(str(folder),), samples="all"))
    files, _ = list_records(recipe, recipe.sources[0], str(tmp_path / "work"), 1, "inline")
    (tmp_path / "work" / "measured").mkdir()
    tasks = [dataclasses.replace(t, **changes) for t in _tasks(recipe, [(recipe.sources[0], files)], str(tmp_path / "work" / "measured"))]
    found = []
    for outcome in map_unordered(fn, tasks, split=pieces):
        part = outcome.result if isinstance(outcome, Done) else quarantine(outcome.spec, outcome.reason)
        found += pq.read_table(part.path).to_pylist()
    assert sorted(r["source_id"] for r in found) == sorted(name for name, _, _ in PAIRS)
    return [r for r in found if r["status"]]


@pytest.mark.parametrize(
    ("poison", "why"),
    [
        ("measure_or_die", f"worker killed by {signal.SIGKILL.name}"),
        ("measure_or_crash", f"worker killed by {signal.SIGSEGV.name}"),
        ("measure_or_starve", "worker ran out of memory"),
    ],
)
def test_a_poisonous_sample_is_quarantined_and_the_rest_survives(tmp_path: Path, captioned: Captioned, poison: str, why: str) -> None:
    import poison as poisons

    refused = measured_rows(tmp_path, captioned(PAIRS), getattr(poisons, poison))
    assert [(r["source_id"], r["status"], r["detail"]) for r in refused] == [("7.jpg", "worker_killed", why)]


@pytest.mark.slow
def test_a_pipe_among_pictures_is_not_waited_for(tmp_path: Path, captioned: Captioned) -> None:
    """Opening a named pipe that nobody writes to would never return."""
    from curate.measure import measure_part

    folder = captioned(PAIRS)
    (folder / "7.jpg").unlink()
    os.mkfifo(folder / "7.jpg")
    refused = measured_rows(tmp_path, folder, measure_part, patience=3.0)
    assert [(r["source_id"], r["status"], r["detail"]) for r in refused] == [("7.jpg", "image_missing", "no regular file")]


def test_a_run_error_says_three_things() -> None:
    assert str(RunError("found", "this", "that")) == "found\n  allowed: this\n  try: that"
