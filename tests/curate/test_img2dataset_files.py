"""img2dataset's `files` output, and the further columns that its tables, and anybody's, keep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from native import jpeg, ledger, make_tar, pointed, records, sidecar

from curate.cli import main
from curate.fetch.pool import read_pool
from curate.sources import folder, img2dataset
from shards import cli
from shards.core.errors import UsageError
from shards.folders import read_folder

SHARD = 3  # URLs in a table


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What img2dataset 1.x leaves with output_format=files: two tables, their statistics, and a folder for each."""
    pool = tmp_path / "pool"
    for shard in range(2):
        stem = pool / f"{shard:05d}"
        stem.mkdir(parents=True)
        rows = []
        for i in range(shard * SHARD, shard * SHARD + SHARD):
            key, dead = f"{i:09d}", i == 4
            row = {"artist": "anna" if i % 2 else "bernd", "year": 2000 + i, "caption": f"photo {i}", "url": f"http://h.example/{i}.jpg"}
            row |= {"key": key, "status": "failed_to_download" if dead else "success", "error_message": "HTTP Error 404" if dead else None}
            rows.append(row | {"width": 8, "exif": "{}", "sha256": "0" * 64})
            if not dead:
                (stem / f"{key}.jpg").write_bytes(jpeg(i))
                (stem / f"{key}.txt").write_text(f"photo {i}")
                (stem / f"{key}.json").write_text(json.dumps(row))
        pq.write_table(pa.Table.from_pylist(rows), f"{stem}.parquet")
        (pool / f"{shard:05d}_stats.json").write_text('{"count": 3}')
    return pool


def test_the_files_output_is_read_with_the_status_of_each_url(files: Path) -> None:
    listed = records(img2dataset, files)
    options = img2dataset.Options()
    (folder_input,) = img2dataset.inputs(str(files), options)
    assert img2dataset.layout(folder_input, options) == "img2dataset's files output: 2 tables with each URL's status"
    assert [r.source_id for r in listed] == [f"http://h.example/{i}.jpg\nphoto {i}" for i in range(6)]
    assert [r.status for r in listed] == ["", "", "", "", "failed_to_download", ""]
    assert listed[4].detail == "HTTP Error 404"
    assert [pointed(listed[i]) for i in (0, 3, 5)] == [jpeg(0), jpeg(3), jpeg(5)]
    assert json.loads(listed[1].meta) == {"artist": "anna", "year": 2001}
    (files / "00000/000000001.jpg").unlink()
    lost = records(img2dataset, files)[1]
    assert (lost.status, lost.image) == ("lost", None)


def test_files_and_webdataset_output_make_the_same_build(files: Path, tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    """Oracle: the same pictures in tars."""
    tars = tmp_path / "tars"
    for stem in sorted(files.glob("?????")):
        pictures = [(f"{stem.name}/{path.name}", path.read_bytes()) for path in sorted(stem.glob("*.jpg"))]
        make_tar(tars / f"{stem.name}.tar", [(name.partition("/")[2], content) for name, content in pictures])
        (tars / f"{stem.name}.parquet").write_bytes(Path(f"{stem}.parquet").read_bytes())
    rows = []
    for name, pool in (("a", files), ("b", tars)):
        code, out, talk = build("--source", "img2dataset", "--input", pool, "--samples", "all", "--no-near", output=name)
        assert code == 0, talk
        assert sorted(r["reason"] for r in ledger(out)) == ["", "", "", "", "", "failed_to_download"]
        rows.append((out / "00000.tar").read_bytes())
    assert rows[0] == rows[1]


def test_images_of_a_table_may_lie_in_the_files_output(files: Path, tmp_path: Path, build: Callable[..., tuple[int, Path, str]]) -> None:
    lines = ["url,caption", *(f"http://h.example/{i}.jpg,words {i}" for i in range(7))]
    (tmp_path / "urls.csv").write_text("\n".join(lines))
    code, out, talk = build("--source", "table", "--input", tmp_path / "urls.csv", "--images", files, "--samples", "all", "--no-near")
    assert code == 0, talk
    reasons = {r["source_id"].rpartition("/")[2].partition(".")[0]: r["reason"] for r in ledger(out)}
    assert reasons == {"0": "", "1": "", "2": "", "3": "", "4": "failed_to_download", "5": "", "6": "image_missing"}


def test_the_folder_source_leads_to_the_source_that_reads_it_and_counts_no_statistics(files: Path) -> None:
    with pytest.raises(UsageError, match="img2dataset's output, 2 tables") as refused:
        folder.inputs(str(files), folder.Options())
    assert refused.value.advice.startswith("--source img2dataset")
    items = list(read_folder(str(files), layout="sidecar"))
    assert len(items) == 5
    assert all(item.image and not item.problem for item in items)


def test_a_pool_of_files_is_a_pool_of_whole_files(files: Path) -> None:
    rows = list(read_pool(str(files)))
    assert [(r.offset, r.size) for r in rows if r.status == "success"] == [(0, -1)] * 5
    assert [r.tar for r in rows if r.status != "success"] == [""]


@pytest.mark.parametrize(
    "where",
    [
        "artist = 'anna'",
        pytest.param("\"img2dataset.artist\" = 'anna'", marks=pytest.mark.slow),
        pytest.param("ARTIST = 'anna'", marks=pytest.mark.slow),
    ],
)
def test_kept_columns_choose_samples(
    where: str, files: Path, tmp_path: Path, build: Callable[..., tuple[int, Path, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--source", "img2dataset", "--input", files, "--samples", "all", "--no-near"]
    code, out, talk = build(*flags, "--keep-columns", "artist", "year")
    assert code == 0, talk
    assert {row["url"]: row["img2dataset.year"] for row in sidecar(out)} == {
        f"http://h.example/{i}.jpg": f"{2000 + i}" for i in (0, 1, 2, 3, 5)
    }
    assert cli.main(["remove", str(out), "--where", where]) == 0
    assert sorted(row["url"][-5] for row in sidecar(out) if row["img2dataset.artist"] == "anna") == ["1", "3", "5"]
    assert "3 samples taken down" in capsys.readouterr().out


def test_a_column_that_is_not_there_is_refused_before_any_work(
    files: Path, tmp_path: Path, build: Callable[..., tuple[int, Path, str]]
) -> None:
    code, _, talk = build("--source", "img2dataset", "--input", files, "--samples", "all", "--keep-columns", "Artist")
    assert code == 2
    assert "no further column 'Artist' to keep" in talk
    assert "allowed: artist, year" in talk
    assert "did you mean 'artist'?" in talk
    (tmp_path / "t.csv").write_text("url,caption,who\nhttp://h.example/0.jpg,words,anna\n")
    code, _, talk = build(
        "--source", "table", "--input", tmp_path / "t.csv", "--images", files, "--samples", "all", "--keep-columns", "caption"
    )
    assert code == 2
    assert "allowed: who" in talk


def test_digests_of_recipes_without_kept_columns_stay(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for more in ([], ["--keep-columns", "artist"]):
        flags = ["--source", "img2dataset", "--input", str(files), "--samples", "all", *more]
        assert main(["build-shards", *flags, "--output", str(tmp_path / "x"), "--dry-run", "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        digests.append(plan["digest"])
        assert plan["recipe"]["sources"][0]["keep_columns"] == more[1:]
    assert digests[0] != digests[1]
