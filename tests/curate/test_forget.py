"""A take-down from a whole build: no file of build or work folder tells the caption or shows the picture any more."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawing import captioned_folder, encoded, picture
from PIL import Image

from curate import cli
from curate.report.stats import count_rows, path_of, read_statistics, write_statistics
from shards import cli as shards_cli
from shards.manifest import read_manifest
from shards.reader import read_samples
from shards.verify import verify

SECRET = "zanzibar"


@pytest.fixture(scope="module")
def build_once(tmp_path_factory):
    """A folder with `photos` and the build `out` of them: 30 pictures, number 7 with an exact and a near copy, of which 20 are kept."""
    folder = tmp_path_factory.mktemp("forget")
    rows = [(f"{i:02d}.jpg", encoded(picture(i)), f"{SECRET if i == 7 else 'plain'} words of picture {i}") for i in range(30)]
    again = Image.open(io.BytesIO(rows[7][1])).convert("RGB")
    rows += [("copy.jpg", rows[7][1], f"a copy, {SECRET} too"), ("near.jpg", encoded(again, quality=70), f"nearly {SECRET}")]
    rows += [("cmyk.jpg", encoded(picture(70).convert("CMYK")), f"{SECRET} in four colours")]
    flags = ["--source", "folder", "--input", str(captioned_folder(folder / "photos", rows)), "--samples", "20"]
    flags += ["--samples-per-shard", "8"]
    assert cli.main(["build-shards", "--engine", "inline", *flags, "--output", str(folder / "out")]) == 0
    return folder, flags


@pytest.fixture
def built(build_once, tmp_path):
    """Return (build, flags, uid by file) of a copy of the build and its work folder."""
    folder, flags = build_once
    for name in ("out", "out.work"):
        shutil.copytree(folder / name, tmp_path / name)
    return tmp_path / "out", flags, {r["source_id"]: r["uid"] for r in _ledger(tmp_path / "out")}


def _ledger(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "ledger").to_pylist()


def _telling(*folders: Path) -> list[str]:
    """Return the files that hold the secret word in any column, text or bytes."""
    found = []
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            values = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_bytes().decode("latin-1")
            if SECRET in values:
                found.append(str(path.relative_to(folder)))
    return found


def _remove(out: Path, tmp_path: Path, *uids: str) -> int:
    (tmp_path / "uids.txt").write_text("\n".join(uids))
    return shards_cli.main(["remove", str(out), "--uids", str(tmp_path / "uids.txt")])


def _named(uids: dict[str, str]) -> list[str]:
    return [uids[name] for name in ("07.jpg", "copy.jpg", "near.jpg", "cmyk.jpg")]


@pytest.mark.usefixtures("curate_here")
def test_nothing_tells_the_caption_any_more(built, tmp_path):
    out, _, uids = built
    work = Path(f"{out}.work")
    assert _telling(out) != []
    assert _telling(work) != []
    (work / "statistics").mkdir(exist_ok=True)
    write_statistics(str(work / "statistics" / "of-a-subset.parquet"), count_rows(pa.table({"caption": [SECRET]})))
    assert _remove(out, tmp_path, *_named(uids)) == 0
    left = _telling(out)
    assert all(name.endswith((".tar", ".parquet")) and "/" not in name for name in left), left  # bytes and sidecars, until compact
    assert _telling(work) == []
    assert shards_cli.main(["compact", str(out), "--engine", "inline"]) == 0
    assert _telling(out) == []
    assert list(verify(read_manifest(str(out)), engine="inline")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("curate_here")
def test_statistics_of_touched_shards_go_and_are_counted_again_from_what_is_left(built, tmp_path):
    out, _, uids = built
    before = {path.name: path.read_bytes() for path in (out / "stats").iterdir()}
    assert sorted(before) == ["00000.parquet", "00001.parquet", "00002.parquet"]
    entries = {e.name: e for e in read_manifest(str(out)).shards}
    assert _remove(out, tmp_path, *_named(uids)) == 0
    touched = {e.name.replace("tar", "parquet") for e in read_manifest(str(out)).shards if e != entries[e.name]}
    assert 0 < len(touched) < 3
    assert {path.name: path.read_bytes() for path in (out / "stats").iterdir()} == {n: b for n, b in before.items() if n not in touched}
    assert shards_cli.main(["compact", str(out), "--engine", "inline"]) == 0
    after = read_manifest(str(out))
    for entry in after.shards:
        rows = pq.read_table(after.path_of(entry, ".parquet"))
        kept = read_statistics(path_of(after, entry), entry.sidecar_sha256)
        assert kept is not None
        assert kept.equals(count_rows(rows))


@pytest.mark.usefixtures("curate_here")
@pytest.mark.parametrize("name", ["07.jpg", "copy.jpg", "near.jpg"])
def test_copies_go_with_the_picture_and_the_ledger_balances(built, tmp_path, name):
    """Only one of three equal pictures is named, the survivor or not: the others go too, so none can take its place."""
    out, _, uids = built
    before = {r["uid"]: r for r in _ledger(out)}
    three = {uids[n] for n in ("07.jpg", "copy.jpg", "near.jpg")}
    (survivor,) = [u for u in three if before[u]["decision"] != "dropped"]
    assert _remove(out, tmp_path, uids[name]) == 0
    after = {r["uid"]: r for r in _ledger(out)}
    assert {u for u, r in after.items() if r["reason"] == "removed"} == three
    for uid in three:
        row = after[uid]
        assert (row["decision"], row["source_id"], row["caption_raw"], row["duplicate_of"], row["rank"], row["shard"]) == (
            "dropped",
            uid,
            "",
            "",
            -1,
            "",
        )
    assert {u: r for u, r in after.items() if u not in three} == {u: r for u, r in before.items() if u not in three}
    assert sorted(r["detail"] for u, r in after.items() if u in three) == ["", f"copy of {survivor}", f"copy of {survivor}"]
    source = read_manifest(str(out)).sources["folder"]
    assert source["inputs"] == len(after) == source["kept"] + source["spare"] + source["holdout"] + sum(source["dropped"].values())
    assert source["dropped"]["removed"] == 3
    report = json.loads((out / "report.json").read_text())
    assert report["ledger"]["sets"][0]["sources"][0]["kept"]["count"] == source["kept"] == read_manifest(str(out)).samples
    assert report["method"]["sets"][0]["manifest"] == read_manifest(str(out)).digest
    assert not any(uid in (out / "report.json").read_text() for uid in three)
    assert Path(f"{out}.work", "removed.txt").read_text().split() == sorted(three)


@pytest.mark.usefixtures("curate_here")
def test_run_again_it_changes_nothing(built, tmp_path):
    out, _, uids = built
    assert _remove(out, tmp_path, *_named(uids)) == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert _remove(out, tmp_path, *_named(uids)) == 0
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


@pytest.mark.usefixtures("curate_here")
def test_spares_fill_the_places_at_the_next_build(built, build, tmp_path):
    out, flags, uids = built
    kept = [s.key for s in read_samples(read_manifest(str(out)), [])]
    gone = {uids["07.jpg"], *kept[:3]}
    assert _remove(out, tmp_path, *gone) == 0
    code, again, said = build(*flags, "--overwrite")
    assert code == 0, said
    now = [s.key for s in read_samples(read_manifest(str(again)), [])]
    assert len(now) == 20
    removed = {r["uid"] for r in _ledger(again) if r["reason"] == "removed"}
    assert removed == {*gone, uids["copy.jpg"], uids["near.jpg"]}
    assert now[: len(set(kept) - removed)] == [k for k in kept if k not in removed]
    assert all(SECRET not in (r["caption_raw"] + r["source_id"]) for r in _ledger(again) if r["uid"] in removed)


@pytest.mark.usefixtures("curate_here")
def test_a_list_alone_keeps_a_sample_out_even_where_it_is_measured_anew(built, build, tmp_path):
    """Another filter, so every part is measured again, and the records are listed from the native files again."""
    out, flags, uids = built
    assert _remove(out, tmp_path, uids["07.jpg"]) == 0
    shutil.rmtree(Path(f"{out}.work", "records"))
    code, other, said = build(*flags, "--work", f"{out}.work", "--image-size-min-side", "10", output="other")
    assert code == 0, said
    rows = {r["uid"]: r for r in _ledger(other)}
    assert rows[uids["07.jpg"]]["reason"] == "removed"
    assert rows[uids["07.jpg"]]["caption_raw"] == ""
    assert rows[uids["07.jpg"]]["source_id"] == uids["07.jpg"]


@pytest.mark.slow
def test_why_says_that_it_was_taken_down(built, tmp_path, capsys):
    """The one take-down of this file that starts curate as a process of its own, as a user's does."""
    out, _, uids = built
    assert _remove(out, tmp_path, uids["07.jpg"]) == 0
    capsys.readouterr()
    assert cli.main(["why", str(out), uids["07.jpg"]]) == 0
    assert "dropped: removed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("curate_here")
def test_one_caption_of_several_is_a_sample_of_its_own(build, captioned, tmp_path):
    """`captions: each`: the picture stays with its other captions, the one that was named goes from everywhere."""
    rows = [(f"{i}.jpg", encoded(picture(i)), f"words {k} of {i}") for i in range(6) for k in range(2)]
    rows.append(("2.jpg", rows[4][1], f"{SECRET} of two"))
    flags = ["--source", "folder", "--input", str(captioned(rows)), "--samples", "all", "--captions", "each"]
    code, out, said = build(*flags)
    assert code == 0, said
    (child,) = [r for r in _ledger(out) if SECRET in r["caption_raw"]]
    assert _remove(out, tmp_path, child["uid"]) == 0
    assert shards_cli.main(["compact", str(out), "--engine", "inline"]) == 0
    assert _telling(out, Path(f"{out}.work")) == []
    assert len([s.key for s in read_samples(read_manifest(str(out)), [])]) == 12
    code, again, said = build(*flags, "--overwrite")
    assert code == 0, said
    assert {r["uid"] for r in _ledger(again) if r["reason"] == "removed"} == {child["uid"]}
    assert _telling(again) == []
    assert sum(r["decision"] == "kept" for r in _ledger(again)) == 12


@pytest.mark.slow
@pytest.mark.usefixtures("curate_here")
def test_a_picture_that_the_work_folder_holds_itself_is_overwritten_there(build, tmp_path):
    """A parquet data set hands its images over as bytes, which the work folder keeps: the others are still found by a next build."""
    pictures = [encoded(picture(i)) for i in range(8)]
    columns = {"image": [{"bytes": p, "path": None} for p in pictures], "caption": [f"words of {i}" for i in range(8)]}
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "set" / "train.parquet")
    flags = ["--source", "huggingface", "--input", str(tmp_path / "set"), "--samples", "all"]
    code, out, said = build(*flags)
    assert code == 0, said
    blobs = [p for p in Path(f"{out}.work").rglob("*.blob") if pictures[3] in p.read_bytes()]
    assert blobs
    (row,) = [r for r in _ledger(out) if r["caption_raw"] == "words of 3"]
    assert _remove(out, tmp_path, row["uid"]) == 0
    assert not [p for p in Path(f"{out}.work").rglob("*") if p.is_file() and pictures[3][-200:] in p.read_bytes()]
    code, again, said = build(*flags, "--overwrite")
    assert code == 0, said
    assert sorted(s.members["jpg"] for s in read_samples(read_manifest(str(again)))) == sorted(p for i, p in enumerate(pictures) if i != 3)
