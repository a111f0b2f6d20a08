"""Comparing two builds that share half their samples: seconds and memory, from sidecars and ledgers alone.

Sidecars are as wide as CC12M's (ids of URL and caption), captions Zipf-like over 200,000 words, ledgers two rows a sample.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _record import record

from shards.manifest import Manifest, ShardEntry
from shards.schema import SIDECAR, arrow_schema

PER_SHARD, WORDS = 50_000, 200_000


def hexes(number: int, n: int, digits: int, salt: int) -> list[str]:
    """Return n random hex numbers, the same for the same shard number and salt."""
    text = np.random.default_rng([salt, number]).bytes(n * digits // 2).hex()
    return [text[i * digits : (i + 1) * digits] for i in range(n)]


def captions(number: int, n: int) -> list[str]:
    """Return n captions of ten words on average."""
    rng = np.random.default_rng([0, number])
    shares = (1 / np.arange(1, WORDS + 1) ** 1.05).cumsum()
    lengths = rng.poisson(9, n) + 1
    words = [f"w{i:x}" for i in np.searchsorted(shares, rng.random(lengths.sum()) * shares[-1]).tolist()]
    ends = lengths.cumsum().tolist()
    return [" ".join(words[end - length : end]) for end, length in zip(ends, lengths.tolist(), strict=True)]


def sidecar(number: int, rank: int) -> pa.Table:
    """Return the sidecar of one shard; `number` says which samples it holds."""
    uids, texts, digests = hexes(number, PER_SHARD, 32, 1), captions(number, PER_SHARD), hexes(number, PER_SHARD, 64, 2)
    sides = np.random.default_rng([3, number]).integers(200, 900, (2, PER_SHARD))
    columns: dict[str, Any] = {
        "key": uids,
        "uid": uids,
        "source": pa.repeat("cc12m", PER_SHARD),
        "source_id": [f"https://example.org/{uid}.jpg\n{text}" for uid, text in zip(uids, texts, strict=True)],
        "caption": texts,
        "caption_raw": texts,
        "width": sides[0],
        "height": sides[1],
        "sha256": digests,
        "original_sha256": digests,
        "phash": hexes(number, PER_SHARD, 16, 4),
        "rank": np.arange(rank, rank + PER_SHARD),
    }
    schema = arrow_schema(SIDECAR)
    return pa.table(
        [pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(PER_SHARD, f.type) for f in schema], schema=schema
    )


def build(out: Path, first: int, shards: int, dropped: int) -> None:
    """Write sidecars, ledger and manifest of a build of the samples of some shard numbers; as many others are dropped."""
    (out / "ledger").mkdir(parents=True)
    entries = []
    for i in range(shards):
        pq.write_table(sidecar(first + i, i * PER_SHARD), out / f"{i:05d}.parquet", compression="zstd")
        (out / f"{i:05d}.tar").touch()
        entries.append(ShardEntry(f"{i:05d}.tar", PER_SHARD, 0, sidecar_sha256="0" * 64))
        for name, number, decision, reason in (("k", first + i, "kept", ""), ("d", dropped + i, "dropped", "near_duplicate")):
            detail = "3 of 64 bits differ" if reason else ""
            rows = {"uid": hexes(number, PER_SHARD, 32, 1), "decision": pa.repeat(decision, PER_SHARD)}
            rows |= {key: pa.repeat(value, PER_SHARD) for key, value in (("reason", reason), ("detail", detail))}
            pq.write_table(pa.table(rows), out / "ledger" / f"{name}{i:05d}.parquet", compression="zstd")
    Manifest(samples=shards * PER_SHARD, bytes=0, shards=tuple(entries), seed=0, sources={"cc12m": {}}).save(str(out))


def main() -> None:
    """Build, compare in a process of its own, check the counts, record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1_000_000)
    shards = parser.parse_args().samples // PER_SHARD
    with tempfile.TemporaryDirectory() as folder:
        a, b = Path(folder) / "a", Path(folder) / "b"
        build(a, 0, shards, dropped=shards)
        build(b, shards // 2, shards, dropped=0)
        command = "import sys; from curate.cli import main; sys.exit(main(sys.argv[1:]))"
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", command, "compare", str(a), str(b), "--json"], check=True, capture_output=True)
        seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, processor = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
    found = json.loads(done.stdout)
    half, n = shards // 2 * PER_SHARD, shards * PER_SHARD
    assert found["overlap"][0]["ids"]["a_in_b"] == found["overlap"][0]["bytes"]["b_in_a"] == half
    assert [(w["reason"], w["count"]) for w in found["moved"][0]["went"]["a"]] == [("near_duplicate", n - half)]
    figures = {"samples": n, "seconds": round(seconds, 1), "processor_seconds": round(processor, 1), "peak_mib": round(peak)}
    line = f"two builds of {n:,} samples, half shared, ledgers of {2 * n:,} rows"
    line += f": {seconds:.0f} s ({processor:.0f} s of a processor), {peak:,.0f} MiB at the peak"
    record("compare", figures, line)


if __name__ == "__main__":
    main()
