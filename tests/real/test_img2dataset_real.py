"""What img2dataset itself leaves of real photos behind loopback: `files` and `webdataset` output make the same build."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from photo_server import Photos, is_dead
from test_real_fetch import build

from shards import cli
from shards.manifest import read_manifest
from shards.reader import read_samples

pytestmark = pytest.mark.slow

COUNT, SHARD = 40, 15
PEOPLE = ("anna", "bernd", "clara")
DOWNLOAD = """
import sys
from img2dataset import download

if __name__ == "__main__":
    download(
        url_list=sys.argv[1], output_folder=sys.argv[2], output_format=sys.argv[3], input_format="csv", url_col="url", caption_col="caption",
        save_additional_columns=["artist"], processes_count=1, thread_count=4, number_sample_per_shard=15, resize_mode="no", skip_reencode=True,
        disallowed_header_directives=[], retries=0, timeout=20,
    )
"""


def downloaded(photos: Photos, folder: Path, form: str) -> Path:
    (folder / "go.py").write_text(DOWNLOAD)
    with (folder / "urls.csv").open("w", newline="") as file:
        rows = ((photos.url_of(i), f"a real photo, number {i}", PEOPLE[i % 3]) for i in range(COUNT))
        csv.writer(file).writerows([("url", "caption", "artist"), *rows])
    command = [sys.executable, str(folder / "go.py"), str(folder / "urls.csv"), str(folder / form), form]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / form


def test_both_formats_make_the_same_build(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = sum(map(is_dead, range(COUNT)))
    kept = []
    for form in ("files", "webdataset"):
        pool = downloaded(photos, tmp_path, form)
        flags = ["--source", "img2dataset", "--input", pool, "--keep-columns", "artist", "--no-near"]
        built = build(tmp_path / f"out-{form}", *flags)
        assert (built["inputs"], built["dropped"]) == (COUNT, {"failed_to_download": dead})
        assert built["kept"] == COUNT - dead
        samples = list(read_samples(read_manifest(str(tmp_path / f"out-{form}")), columns=["url", "img2dataset.artist"]))
        for sample in samples:
            number = int(str(sample.row["url"]).rpartition("/")[2].removesuffix(".jpg"))
            assert sample.members["jpg"] == photos.photo(number)
            assert sample.row["img2dataset.artist"] == PEOPLE[number % 3]
        kept.append(samples)
    assert kept[0] == kept[1]
    out = str(tmp_path / "out-files")
    capsys.readouterr()
    assert cli.main(["remove", out, "--where", "artist = 'anna'"]) == 0
    anna = sum(1 for i in range(COUNT) if i % 3 == 0 and not is_dead(i))
    assert f"{anna} samples taken down" in capsys.readouterr().out
