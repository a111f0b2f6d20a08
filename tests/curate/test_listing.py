"""Listing native files: given twice, changed between runs, and what is said of their layout."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from drawing import encoded, picture
from native import ledger, make_pool

from curate.listing import identity

Build = Callable[..., tuple[int, Path, str]]
LAYOUT = "headerless TSV: url⇥caption"


def url(i: int) -> str:
    return f"http://h.example/{i}.jpg"


def tsv(path: Path, numbers: range) -> Path:
    """Write a file as CC12M has them."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{url(i)}\tpicture number {i}\n" for i in numbers))
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", {url(i): encoded(picture(i)) for i in range(12)})


def fates(out: Path) -> Counter[str]:
    return Counter(row["reason"] or row["decision"] for row in ledger(out))


def test_a_file_named_twice_gives_duplicate_ids(build: Build, pool: Path, tmp_path: Path) -> None:
    path = tsv(tmp_path / "native" / "cc12m.tsv", range(6))
    twice = f"{{{path},{path.parent}/../native/*.tsv}}"
    code, out, err = build("--source", "cc12m", "--input", twice, "--images", pool, "--samples", "all")
    assert code == 0, err
    assert fates(out) == {"kept": 6, "duplicate_id": 6}
    assert f"cc12m: 2 files, {LAYOUT}" in err


def test_one_file_as_two_sources_is_listed_once_and_its_uids_are_theirs(build: Build, pool: Path, tmp_path: Path) -> None:
    path = tsv(tmp_path / "cc12m.tsv", range(6))
    source = {"reader": "cc12m", "input": str(path), "images": str(pool)}
    (tmp_path / "recipe.yaml").write_text(json.dumps({"sources": [source | {"name": "a"}, source | {"name": "b"}], "samples": "all"}))
    code, out, err = build("--config", tmp_path / "recipe.yaml", "--dedup-scope", "all")
    assert code == 0, err
    assert fates(out) == {"kept": 6, "exact_duplicate": 6}
    assert len({row["uid"] for row in ledger(out)}) == 12


def test_shards_of_ours_given_twice_keep_their_uids_so_the_second_source_repeats_them(
    build: Build, captioned: Callable[..., Path], tmp_path: Path
) -> None:
    folder = captioned([(f"{i}.jpg", encoded(picture(i)), f"picture number {i}") for i in range(6)])
    assert build("--source", "folder", "--input", folder, "--samples", "all", output="first")[0] == 0
    source = {"reader": "webdataset", "input": str(tmp_path / "first")}
    (tmp_path / "recipe.yaml").write_text(json.dumps({"sources": [source | {"name": "a"}, source | {"name": "b"}], "samples": "all"}))
    code, out, err = build("--config", tmp_path / "recipe.yaml")
    assert code == 0, err
    assert {(r["source"], r["reason"]) for r in ledger(out)} == {("a", ""), ("b", "duplicate_id")}


@pytest.mark.parametrize("silently", [False, True])
def test_a_source_file_that_changed_is_listed_anew_and_the_others_are_not(silently: bool, build: Build, pool: Path, tmp_path: Path) -> None:
    """Also where size and time stamp are those of before: metadata is known by its content."""
    tsv(tmp_path / "native" / "a.tsv", range(4))
    path = tsv(tmp_path / "native" / "b.tsv", range(4, 8))
    flags = ("--source", "cc12m", "--input", tmp_path / "native", "--images", pool, "--samples", "all", "--work", tmp_path / "work")
    assert build(*flags)[0] == 0
    listed = {p: p.stat().st_mtime_ns for p in (tmp_path / "work" / "records").iterdir()}
    before = path.stat()
    tsv(path, range(5, 9) if silently else range(4, 9))
    if silently:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
    code, _, err = build(*flags)
    assert code == 2
    assert "over other inputs" in err
    code, out, err = build(*flags, output="second")
    assert code == 0, err
    assert sorted(int(r["source_id"].partition(".jpg")[0].rpartition("/")[2]) for r in ledger(out)) == [
        *range(4),
        *(range(5, 9) if silently else range(4, 9)),
    ]
    now = {p: p.stat().st_mtime_ns for p in (tmp_path / "work" / "records").iterdir()}
    assert {p: now[p] for p in listed} == listed
    assert len(now) == len(listed) + 2  # the changed file's records, and the join with the pool


def test_the_layout_is_said_and_stands_in_the_manifest(build: Build, pool: Path, tmp_path: Path) -> None:
    tsv(tmp_path / "native" / "a.tsv", range(4))
    flags = ("--images", pool, "--samples", "all", "--work", tmp_path / "work")
    for output in ("first", "again"):  # again: nothing is listed, the layout is known all the same
        code, out, err = build("--source", "cc12m", "--input", tmp_path / "native", *flags, output=output)
        assert code == 0, err
        assert f"cc12m: 1 file, {LAYOUT}\n" in err
        assert json.loads((out / "manifest.json").read_text())["sources"]["cc12m"]["layout"] == LAYOUT


def test_a_folder_is_another_when_a_file_is_renamed_touched_or_grows(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.jpg").write_bytes(b"one")
    seen = [identity(str(folder), by_content=False)]
    assert identity(str(folder), by_content=False) == seen[0]
    (folder / "inner" / "a.jpg").rename(folder / "b.jpg")
    seen.append(identity(str(folder), by_content=False))
    os.utime(folder / "b.jpg", ns=(1, 1))
    seen.append(identity(str(folder), by_content=False))
    (folder / "b.jpg").write_bytes(b"ones")
    os.utime(folder / "b.jpg", ns=(1, 1))
    seen.append(identity(str(folder), by_content=False))
    (folder / "b.jpg").rename(tmp_path / "elsewhere.jpg")
    seen.append(identity(str(folder), by_content=False))
    assert len(set(seen)) == 5
