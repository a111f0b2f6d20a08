"""Subsets: choosing by condition and by uids, writing a scattered part out beside webdataset, and what a scattered manifest costs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from _record import record

from shards import cli
from shards.manifest import Manifest, ShardEntry, read_manifest
from shards.reader import read_samples
from shards.schema import SIDECAR, arrow_schema
from shards.uids import pack, write_uids
from shards.writer import write_shard

PER_SHARD = 10_000
CONDITION = '"width" >= 900 AND "caption" NOT LIKE \'%7 %\''

PEER = """
import sys
import webdataset as wds
wanted = set(open(sys.argv[1]).read().split())
with wds.ShardWriter(sys.argv[2] + "/%05d.tar", maxcount=10000, verbose=0) as out:
    for sample in wds.WebDataset(sys.argv[3:], shardshuffle=False):
        if sample["__key__"] in wanted:
            out.write(sample)
"""


def build(folder: Path, n: int) -> None:
    """Write n samples of 20 to 40 kB, whose bytes are noise, with whole sidecars."""
    rng, noise, entries = random.Random(0), random.Random(1).randbytes(80_000), []
    for start in range(0, n, PER_SHARD):
        rows: list[dict[str, Any]] = []
        for i in range(start, min(start + PER_SHARD, n)):
            uid = f"{rng.getrandbits(128):032x}"
            text = f"a photo of thing {rng.randrange(1000)} seen on day {i}"
            own = {"key": uid, "uid": uid, "source": "noise", "caption": text, "captions": [text], "width": rng.randrange(200, 1000)}
            rows.append(
                {name: own.get(name, 0 if kind.startswith(("int", "double")) else "") for name, kind in SIDECAR} | {"captions": [text]}
            )
        table = pa.Table.from_pylist(rows, arrow_schema(SIDECAR))
        cuts = ((rng.randrange(40_000), rng.randrange(20_000, 40_000)) for _ in rows)
        samples = ((r["key"], {"jpg": noise[at : at + k], "txt": r["caption"].encode()}) for r, (at, k) in zip(rows, cuts, strict=True))
        entries.append(write_shard(str(folder), f"{start // PER_SHARD:05d}", samples, table))
    total = sum(e.bytes for e in entries)
    sources = {"noise": {"kept": n}}
    Manifest(samples=n, bytes=total, shards=tuple(entries), members=("jpg", "txt"), sources=sources).save(str(folder))


def timed(*arguments: str) -> float:
    """Return the seconds of one `shards` command in this process."""
    start = time.perf_counter()
    if cli.main(list(arguments)) != 0:
        raise SystemExit(1)
    return time.perf_counter() - start


def scattered_manifest(folder: Path, picks: int) -> dict[str, float]:
    """Return size and times of a manifest that uses every tenth sample or so of a large set."""
    rng = np.random.default_rng(0)
    entry = ShardEntry("00000.tar", PER_SHARD, 1)
    shards = [
        dataclasses.replace(entry, path=f"{i:05d}.tar").cut(np.sort(rng.choice(PER_SHARD, PER_SHARD // 10, replace=False)))
        for i in range(picks * 10 // PER_SHARD)
    ]
    manifest = Manifest(samples=sum(e.used for e in shards), bytes=len(shards), shards=tuple(shards))
    start = time.perf_counter()
    manifest.save(str(folder))
    saved = time.perf_counter()
    again = read_manifest(str(folder))
    read = time.perf_counter()
    if again.shards != manifest.shards:
        raise SystemExit("a manifest that does not read back")
    size = (folder / "manifest.json").stat().st_size
    return {"samples": manifest.samples, "bytes_per_sample": size / manifest.samples, "save_s": saved - start, "read_s": read - saved}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--picks", type=int, default=1_000_000)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"samples": arguments.samples, "condition": CONDITION}
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        (tmp / "build").mkdir()
        build(tmp / "build", arguments.samples)
        source = str(tmp / "build")
        figures["where_s"] = timed("subset", source, "--where", CONDITION, "--output", str(tmp / "where"))
        start = time.perf_counter()
        met = duckdb.sql(f"SELECT count(*) FROM read_parquet('{source}/*.parquet') WHERE {CONDITION}").fetchall()[0][0]
        figures["duckdb_s"] = time.perf_counter() - start
        chosen = [s.key for s in read_samples(read_manifest(str(tmp / "where")), [])]
        if len(chosen) != met:
            raise SystemExit(f"{len(chosen)} chosen, {met} by DuckDB alone")
        write_uids(str(tmp / "u.npy"), pack(chosen))
        (tmp / "u.txt").write_text("\n".join(chosen))
        figures["uids_s"] = timed("subset", source, "--uids", str(tmp / "u.npy"), "--output", str(tmp / "uids"))
        figures["chosen"] = met
        out = ("--output", str(tmp / "copied"), "--materialize", "--workers", "1")
        figures["copy_s"] = timed("subset", source, "--uids", str(tmp / "u.npy"), *out)
        (tmp / "peer").mkdir()
        tars = sorted(str(p) for p in (tmp / "build").glob("*.tar"))
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", PEER, str(tmp / "u.txt"), str(tmp / "peer"), *tars], check=True)
        figures["webdataset_s"] = time.perf_counter() - start
        shutil.rmtree(tmp / "build")
        figures["manifest"] = scattered_manifest(tmp, arguments.picks)
    ratio = figures["webdataset_s"] / figures["copy_s"]
    rate = arguments.samples / figures["where_s"]
    about = figures["manifest"]
    record(
        "subset",
        json.loads(json.dumps(figures)),
        f"`--where` over {arguments.samples:,} samples {rate:,.0f}/s with the cut indices written (DuckDB's bare count "
        f"{figures['duckdb_s']:.2f} s of {figures['where_s']:.2f} s); a list of {met:,} uids {figures['uids_s']:.2f} s; writing these out, "
        f"one worker with sha256, index and sidecar: {ratio:.1f}× webdataset reading and writing the same; a scattered manifest of "
        f"{about['samples']:,} samples: {about['bytes_per_sample']:.0f} bytes each, read in {about['read_s']:.1f} s",
    )


if __name__ == "__main__":
    main()
