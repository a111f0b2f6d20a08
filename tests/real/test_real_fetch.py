"""The real RedCaps, CC3M and CC12M metadata, fetched from loopback: photo i mod n stands for record i, a tenth is dead.

Counts come from the metadata files themselves, read here by other means.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photo_server import Photos, is_dead

from curate.cli import main
from curate.fetch.pool import read_pool
from shards.manifest import read_manifest
from shards.reader import read_samples

pytestmark = pytest.mark.slow

FILES = {"redcaps": "metadata/redcaps/*/*.json", "cc3m": "metadata/cc3m/*.tsv", "cc12m": "metadata/cc12m/*.tsv"}
COLUMN = {"cc3m": 1, "cc12m": 0}


def rewrite(source: str, realdata: Path, output: Path, photos: Photos) -> dict[int, tuple[str, str]]:
    """Copy the metadata with URLs of ours; return each record's own (id, caption) by its number."""
    known: dict[int, tuple[str, str]] = {}
    output.mkdir()
    for path in sorted(realdata.glob(FILES[source])):
        name = f"{path.parent.name}-{path.name}"
        if source == "redcaps":
            whole = json.loads(path.read_text())
            for item in whole["annotations"]:
                item["url"] = photos.url_of(len(known))
                known[len(known)] = (item["image_id"], item["caption"])
            (output / name).write_text(json.dumps(whole))
            continue
        text = ""
        for line in path.read_bytes().decode().removesuffix("\n").split("\n"):
            fields = line.split("\t")
            fields[COLUMN[source]] = url = photos.url_of(len(known))
            caption = fields[1 - COLUMN[source]]
            known[len(known)] = (f"{url}\n{caption}", caption)
            text += "\t".join(fields) + "\n"
        (output / name).write_bytes(text.encode())
    return known


@pytest.mark.parametrize(("source", "least"), [("redcaps", 1500), ("cc3m", 600), ("cc12m", 3)])
def test_real_metadata_is_fetched_to_the_last_record(source: str, least: int, realdata: Path, photos: Photos, tmp_path: Path) -> None:
    known = rewrite(source, realdata, tmp_path / "metadata", photos)
    pool = tmp_path / "pool"
    flags = {"source": source, "input": tmp_path / "metadata", "output": pool, "workers": 1, "threads": 16, "samples-per-shard": 400}
    words = ["fetch", "--allow-private-hosts", *(str(w) for name, value in flags.items() for w in (f"--{name}", value))]
    assert main(words) == 0

    rows = {int(re.sub(r"\D", "", r.url.rpartition("/")[2])): r for r in read_pool(str(pool))}
    assert len(known) >= least
    assert rows.keys() == known.keys()
    assert Counter(photos.log) == dict.fromkeys(known, 1)
    dead = {number for number in known if is_dead(number)}
    assert {n for n, r in rows.items() if r.status == "failed_to_download"} == dead
    assert {n for n, r in rows.items() if r.status == "success"} == known.keys() - dead
    assert {n: (r.source_id, r.caption) for n, r in rows.items()} == known
    tars = {str(p): p.read_bytes() for p in pool.glob("*.tar")}
    for number in known.keys() - dead:
        row = rows[number]
        assert tars[row.tar][row.offset : row.offset + row.size] == photos.photo(number)

    built = build(tmp_path / "out", "--source", source, "--input", tmp_path / "metadata", "--images", pool)
    assert built["inputs"] == len(known)
    empty = {n for n in known.keys() - dead if not known[n][1].strip()}
    expected = {"failed_to_download": len(dead), "caption_missing": len(empty)}
    assert built["dropped"] == {reason: n for reason, n in expected.items() if n}
    assert built["kept"] == len(known) - len(dead) - len(empty)
    by_id = {known[n][0]: n for n in known}
    for sample in read_samples(read_manifest(str(tmp_path / "out")), columns=["source_id", "caption_raw"]):
        number = by_id[str(sample.row["source_id"])]
        assert sample.members["jpg"] == photos.photo(number)
        assert sample.row["caption_raw"] == known[number][1]


def build(out: Path, *flags: Any) -> dict[str, Any]:
    """Build all of it, without dedup and word lists, and return the one source's counts."""
    off = ["--no-profanity", "--no-exact", "--no-near", "--samples", "all", "--workers", "1"]
    assert main(["build-shards", *map(str, flags), *off, "--output", str(out)]) == 0
    (counts,) = read_manifest(str(out)).sources.values()
    assert counts["inputs"] == counts["kept"] + sum(counts["dropped"].values())
    return counts


PLAIN = """
import sys
import img2dataset

if __name__ == "__main__":
    img2dataset.download(
        sys.argv[1], output_folder=sys.argv[2], input_format="parquet", caption_col="caption", output_format="webdataset",
        number_sample_per_shard=50, processes_count=1, thread_count=8, disable_all_reencoding=True, max_shard_retry=0,
    )
"""


def test_a_folder_of_img2dataset_itself_is_read_with_its_failures(realdata: Path, photos: Photos, tmp_path: Path) -> None:
    count = 120
    urls = pa.table({"url": [photos.url_of(i) for i in range(count)], "caption": [f'caption {i}, "x"' for i in range(count)]})
    pq.write_table(urls, tmp_path / "urls.parquet")
    (tmp_path / "plain.py").write_text(PLAIN)
    command = [sys.executable, str(tmp_path / "plain.py"), str(tmp_path / "urls.parquet"), str(tmp_path / "pool")]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"})
    rows = {int(re.sub(r"\D", "", r.url.rpartition("/")[2])): r for r in read_pool(str(tmp_path / "pool"))}
    assert sorted(rows) == list(range(count))
    for number, row in rows.items():
        assert (row.caption, row.source_id) == (f'caption {number}, "x"', "")
        assert row.status == ("failed_to_download" if is_dead(number) else "success")
        content = Path(row.tar).read_bytes()[row.offset : row.offset + row.size] if row.tar else b""
        assert content == (b"" if is_dead(number) else photos.photo(number))

    built = build(tmp_path / "out", "--source", "img2dataset", "--input", tmp_path / "pool")
    dead = sum(map(is_dead, range(count)))
    assert (built["inputs"], built["kept"], built["dropped"]) == (count, count - dead, {"failed_to_download": dead})
