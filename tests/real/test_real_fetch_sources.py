"""The real LAION, YFCC, Shutterstock and WIT samples from native file to shards: their URLs lead to loopback, a tenth is dead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photo_server import Photos, is_dead
from test_real_fetch import build

from curate.cli import main
from curate.config import source_options
from curate.recipe import SourceSpec
from shards.core import registry
from shards.manifest import read_manifest
from shards.reader import read_samples

pytestmark = pytest.mark.slow

FILES = {
    "laion": "metadata/laion/alttext.parquet",
    "yfcc": "metadata/yfcc/yfcc100m_dataset.tsv",
    "shutterstock": "metadata/shutterstock/shutterstock_from_cc3m.csv",
    "wit": "metadata/wit/wit_v1.sample.tsv",
}


def records(source: str, path: Path) -> list[Any]:
    module, spec = registry.get("curate.sources", source), SourceSpec(source, str(path))
    options = source_options(spec)
    return [record for one in module.inputs(str(path), options) for record in module.read(one, options)]


def rewrite(source: str, native: Path, copy: Path, photos: Photos) -> dict[str, int]:
    """Copy native metadata with URLs of ours in the place of each record's; return the number behind each native URL."""
    numbers: dict[str, int] = {}
    for record in records(source, native):
        for url in record.urls:
            numbers.setdefault(url, len(numbers))
    if native.suffix == ".parquet":
        table = pq.read_table(native)
        urls = [photos.url_of(numbers[url.strip()]) if url and url.strip() in numbers else url for url in table["URL"].to_pylist()]
        pq.write_table(table.set_column(table.column_names.index("URL"), "URL", pa.array(urls)), copy)
        return numbers
    text = native.read_bytes().decode()
    for url, number in sorted(numbers.items(), key=lambda one: -len(one[0])):
        assert url in text
        text = text.replace(url, photos.url_of(number))
    copy.write_bytes(text.encode())
    return numbers


@pytest.mark.parametrize(("source", "least"), [("laion", 700), ("yfcc", 2), ("shutterstock", 150), ("wit", 3)])
def test_from_native_metadata_to_shards(source: str, least: int, realdata: Path, photos: Photos, tmp_path: Path) -> None:
    native = realdata / FILES[source]
    copy, pool = tmp_path / native.name, tmp_path / "pool"
    numbers = rewrite(source, native, copy, photos)
    given = records(source, copy)
    assert len(given) >= least
    flags = {"source": source, "input": copy, "output": pool, "workers": 1, "threads": 16, "samples-per-shard": 200}
    assert main(["fetch", "--allow-private-hosts", *(str(w) for name, value in flags.items() for w in (f"--{name}", value))]) == 0
    built = build(tmp_path / "out", "--source", source, "--input", copy, "--images", pool)
    assert built["inputs"] == len(given)
    assert built["kept"] + sum(built["dropped"].values()) == len(given)
    dead = [r for r in given if r.urls and not r.status and is_dead(int(r.urls[0].rpartition("/")[2].removesuffix(".jpg")))]
    assert len(dead) > 0 or len(numbers) < 2
    assert built["dropped"].get("failed_to_download", 0) + built["dropped"].get("duplicate_id", 0) >= len({r.source_id for r in dead})
    by_id = {r.source_id: r for r in given}
    for sample in read_samples(read_manifest(str(tmp_path / "out")), columns=["source_id", "caption_raw"]):
        record = by_id[str(sample.row["source_id"])]
        assert sample.members["jpg"] == photos.photo(int(record.urls[0].rpartition("/")[2].removesuffix(".jpg")))
        assert sample.row["caption_raw"] in record.captions
