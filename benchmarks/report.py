"""A report over a build of 1,000 shards: 10 M samples, 300,000 words by Zipf's law, a ledger of 12 M inputs.

The build is made as a builder leaves it: sidecars, statistics, ledger, manifest. Only the first tars are there, with the
pictures that the page shows: nothing else of a report opens a tar. `curate report` runs as its user runs it; memory is the
sum of the proportional set sizes of its processes.

    python benchmarks/report.py [--shards 1000] [--folder FOLDER]    FOLDER is kept, and used again
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import record
from words import PER_SHARD, zipf

SOURCES = ("one", "two", "three")
WITH_PICTURES = 2  # shards whose tars are there
TARGET_SECONDS, TARGET_MB = 60, 2000


def main() -> None:
    """Make the build, report on it, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "build"
        if not (folder / "manifest.json").exists():
            make(folder, arguments.shards)
        values = measured(folder)
    record("report", values, line(values))


def line(values: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    return (
        f"a build of {values['shards']:,} shards, {values['samples'] / 1e6:.1f} M samples ({values['words']:,} words, "
        f"{values['bigrams'] / 1e6:.1f} M bigrams, ledger of {values['inputs'] / 1e6:.1f} M inputs): page and JSON in "
        f"{values['seconds']:.0f} s by the wall (target {TARGET_SECONDS}), {values['cpu_seconds']:.0f} CPU-s, peak "
        f"{values['peak_mb']:,} MB (target {TARGET_MB:,}); page {values['page_kb']:,} kB"
    )


def make(folder: Path, shards: int) -> None:
    """Write the build, its shards in parallel."""
    from shards.manifest import Manifest, ShardEntry

    (folder / "stats").mkdir(parents=True)
    blocks = [(folder, start, min(start + 50, shards)) for start in range(0, shards, 50)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        entries = [ShardEntry(**entry) for found in pool.map(_make_shards, blocks) for entry in found]
    counts = _write_ledger(folder, [e.samples for e in entries])
    sources = {s: {"reader": "folder", "unit": "record", **counts[s]} for s in SOURCES}
    total = sum(e.samples for e in entries)
    size, members = sum(e.bytes for e in entries), ("jpg", "txt")
    Manifest(total, size, tuple(entries), builder="benchmark", seed=0, members=members, sources=sources).save(str(folder))


def _make_shards(block: tuple[Path, int, int]) -> list[dict[str, Any]]:
    """Write the shards of one block; returns their entries as dictionaries."""
    import dataclasses

    import numpy as np
    import pyarrow as pa

    from curate.report.stats import count_rows, write_statistics
    from shards.core import fs
    from shards.manifest import ShardEntry
    from shards.schema import SIDECAR, arrow_schema
    from shards.writer import write_shard, write_sidecar

    folder, start, stop = block
    schema, entries = arrow_schema(SIDECAR), []
    picture = _picture()
    for number, rows in zip(range(start, stop), zipf(stop - start, seed=start), strict=True):
        name, first = f"{number:05d}", number * PER_SHARD
        ranks = np.arange(first, first + PER_SHARD)
        keys = pa.array([f"{rank:032x}" for rank in ranks.tolist()])
        given = {"key": keys, "uid": keys, "rank": ranks, "original_format": pa.repeat("JPEG", PER_SHARD)}
        given |= {"information": 13.0 + ranks % 100} | {c: rows[c] for c in rows.column_names}
        columns = []
        for field in schema:
            value = given.get(field.name)
            columns.append(pa.nulls(PER_SHARD, field.type) if value is None else _plain(value).cast(field.type))
        sidecar = pa.table(columns, schema=schema)
        if number < WITH_PICTURES:
            captions = rows["caption"].to_pylist()
            samples = [(key, {"jpg": picture, "txt": text.encode()}) for key, text in zip(keys.to_pylist(), captions, strict=True)]
            entry = write_shard(str(folder), name, samples, sidecar)
        else:
            write_sidecar(str(folder / f"{name}.parquet"), sidecar)
            digest = fs.sha256(str(folder / f"{name}.parquet"))
            entry = ShardEntry(path=f"{name}.tar", samples=PER_SHARD, bytes=10**9, sha256="", sidecar_sha256=digest)
        write_statistics(str(folder / "stats" / f"{name}.parquet"), count_rows(sidecar), entry.sidecar_sha256)
        entries.append(dataclasses.asdict(entry))
    return entries


def _plain(value: Any) -> Any:
    import pyarrow as pa

    return value.combine_chunks() if isinstance(value, pa.ChunkedArray) else pa.array(value)


def _picture() -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.effect_noise((128, 96), 60).convert("RGB").save(out, "JPEG", quality=50)
    return out.getvalue()


def _write_ledger(folder: Path, samples: list[int]) -> dict[str, Any]:
    """Write a ledger in which every sixth input is dropped, a third of these as duplicates; returns the counts of each source."""
    import duckdb

    (folder / "ledger").mkdir()
    kept = sum(samples)
    con = duckdb.connect(config={"memory_limit": "4GB"})
    # Which source a sample is of stands in the sidecars; the ledger must agree.
    con.execute(f"CREATE VIEW sidecars AS SELECT uid, source FROM read_parquet('{folder}/*.parquet')")
    con.execute(f"""
        CREATE VIEW ledger AS
        SELECT uid, source, uid AS source_id, 'a.tsv' AS input, 0::BIGINT AS row, 'kept' AS decision, '' AS reason, '' AS detail,
               '' AS duplicate_of, 0::BIGINT AS rank, '' AS shard, '' AS caption_raw FROM sidecars
        UNION ALL BY NAME
        SELECT md5(i::VARCHAR) AS uid, ['one', 'two', 'three'][1 + i % 3] AS source, uid AS source_id, 'a.tsv' AS input, i AS row,
               'dropped' AS decision,
               ['profanity', 'near_duplicate', 'image_missing'][1 + (i // 3) % 3] AS reason,
               CASE WHEN (i // 3) % 3 = 0 THEN 'word' || hash(i) % 500 ELSE '' END AS detail,
               CASE WHEN (i // 3) % 3 = 1 THEN lpad(to_hex((hash(i) % {kept // 4})::BIGINT), 32, '0') ELSE '' END AS duplicate_of,
               -1::BIGINT AS rank, '' AS shard, '' AS caption_raw
        FROM range({kept // 5}) t(i)
    """)
    con.execute(f"COPY (FROM ledger ORDER BY uid) TO '{folder}/ledger/00000.parquet' (COMPRESSION zstd)")
    counts: dict[str, Any] = {s: {"inputs": 0, "kept": 0, "holdout": 0, "spare": 0, "dropped": {}} for s in SOURCES}
    for source, decision, reason, n in con.execute("SELECT source, decision, reason, count(*) FROM ledger GROUP BY ALL").fetchall():
        counts[source]["inputs"] += n
        if decision == "dropped":
            counts[source]["dropped"][reason] = n
        else:
            counts[source][decision] += n
    return counts


def measured(folder: Path) -> dict[str, Any]:
    """Run the command and watch its processes."""
    page = folder / "report.html"
    command = [str(Path(sys.executable).parent / "curate"), "report", str(folder), "--output", str(page), "--json"]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out)
        peak, cpu = _watched(process)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"report: exit {process.returncode}")
        out.seek(0)
        values = json.load(out)
    manifest = json.loads((folder / "manifest.json").read_text())
    return {
        "shards": len(manifest["shards"]),
        "samples": manifest["samples"],
        "inputs": values["ledger"]["sets"][0]["total"]["inputs"],
        "words": values["vocabulary"]["all"]["types"],
        "bigrams": values["vocabulary"]["all"]["bigrams"]["types"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": peak,
        "page_kb": page.stat().st_size // 1000,
        "statistics_mb": sum(p.stat().st_size for p in (folder / "stats").iterdir()) // 10**6,
    }


def _watched(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Return the peak memory in MB (proportional set sizes) and the CPU-seconds of a process and its children, at its end."""
    import psutil

    peak, cpu = 0, {}
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        memory = 0
        for one in [parent, *parent.children(recursive=True)]:
            try:
                memory += one.memory_full_info().pss
                times = one.cpu_times()
                cpu[one.pid] = times.user + times.system
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peak = max(peak, memory)
        time.sleep(0.1)
    return peak // 10**6, sum(cpu.values())


if __name__ == "__main__":
    main()
