"""A whole build of local 256-px photos against img2dataset fetching the same files from a loopback server; and ten images.

img2dataset's time is that of its shards alone (first shard's start to last shard's end, from its own statistics), without
its start; ours is the whole command. The two do not do the same. img2dataset: HTTP from memory, decode and encode again
(`resize_mode=no`; a second line without that), tars and parquet. Ours: read, prove every picture whole, pHash, sha256,
clean captions, filters, exact and near duplicates, tars with index, sidecar and sha256, ledger, examples and report. Both
have two processes. Processor seconds are of all processes of a command, the server's apart, and those of ten images
are taken off: the cost of one more image.

    python benchmarks/build.py [--photos 10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from _loopback import loopback
from _photos import origin, write_folder
from _record import record

BIN = Path(sys.executable).parent
PER_SHARD = 1000
THEIRS = {"encoding again": [], "bytes kept": ["--disable_all_reencoding=True"]}
HASHES = ("reference", "scaled", "fast")
_SUBREAPER = 36  # prctl: orphaned descendants become our children, whose processor time we then see


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bytes_each = write_folder(folder / "photos", arguments.photos) // arguments.photos
        write_folder(folder / "ten", 10)
        value: dict[str, Any] = {"photos": arguments.photos, "bytes": bytes_each, "origin": origin(), "rounds": arguments.rounds}
        with loopback(folder / "photos") as (address, server):
            value["img2dataset"] = {name: theirs(folder, address, server, flags, arguments) for name, flags in THEIRS.items()}
            value["img2dataset, ten"] = whole(lambda: fetch(folder, address, 10, [], server), arguments.rounds)
        flags = {f"folder, {h}": ["--source", "folder", "--input", str(folder / "photos"), "--hash", h] for h in HASHES}
        flags["pool, scaled"] = ["--source", "img2dataset", "--input", str(folder / "bytes kept"), "--hash", "scaled"]
        value["ours"] = {name: whole(lambda f=f: build(folder, f), arguments.rounds) for name, f in flags.items()}  # type: ignore[misc]
        value["ours, ten"] = whole(lambda: build(folder, ["--source", "folder", "--input", str(folder / "ten")]), arguments.rounds)
    record("build", value, in_words(value))


def theirs(folder: Path, address: str, server: int, flags: list[str], arguments: argparse.Namespace) -> dict[str, float]:
    """Fetch all photos as often as asked; the medians of the shard phase, the whole command, and its processor time."""
    name = "bytes kept" if flags else "again"
    found = [fetch(folder, address, arguments.photos, flags, server, name) for _ in range(arguments.rounds)]
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def fetch(folder: Path, address: str, n: int, flags: list[str], server: int, name: str = "few") -> dict[str, float]:
    """Run img2dataset over the first n photos."""
    out, urls = folder / name, folder / "urls.csv"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    with (folder / "photos" / "captions.csv").open(newline="") as file, urls.open("w", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(("url", "caption"))
        rows.writerows((f"{address}/{row['image']}", row["caption"]) for row, _ in zip(csv.DictReader(file), range(n), strict=False))
    command = [str(BIN / "img2dataset"), f"--url_list={urls}", "--input_format=csv", "--url_col=url", "--caption_col=caption"]
    command += ["--output_format=webdataset", f"--output_folder={out}", "--processes_count=2", "--thread_count=32", "--resize_mode=no"]
    found = run([*command, f"--number_sample_per_shard={PER_SHARD}", *flags], server)
    stats = [json.loads(path.read_text()) for path in out.glob("*_stats.json")]
    assert sum(s["successes"] for s in stats) == n
    return {"shards": max(s["end_time"] for s in stats) - min(s["start_time"] for s in stats), **found}


def build(folder: Path, flags: list[str]) -> dict[str, float]:
    """Run `curate build-shards` from nothing."""
    out = folder / "out"
    subprocess.run(["rm", "-rf", str(out), f"{out}.work"], check=True)
    command = [str(BIN / "curate"), "build-shards", *flags, "--samples", "all", "--samples-per-shard", str(PER_SHARD), "--workers", "2"]
    return run([*command, "--output", str(out)])


def whole(once: Any, rounds: int) -> dict[str, float]:
    """Run something as often as asked and return the medians."""
    found = [once() for _ in range(rounds)]
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def run(command: list[str], server: int = 0) -> dict[str, float]:
    """Run a command; returns its wall time and the processor time of all its processes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"})
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    for child in psutil.Process().children():
        if child.pid != server:
            os.waitpid(child.pid, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def in_words(value: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    n = value["photos"]
    few, own = value["img2dataset, ten"], value["ours, ten"]
    peers = {name: (n / f["shards"], (f["processor"] - few["processor"]) / n * 1000) for name, f in value["img2dataset"].items()}
    rates = {name: (n / f["wall"], (f["processor"] - own["processor"]) / n * 1000) for name, f in value["ours"].items()}
    again, kept = peers["encoding again"], peers["bytes kept"]
    parts = [
        f"{name} {rate:,.0f}/s ({rate / again[0]:.1f}×, {rate / kept[0]:.1f}×) and {ms:.2f} ms ({again[1] / ms:.1f}×, {kept[1] / ms:.1f}×)"
        for name, (rate, ms) in rates.items()
    ]
    return (
        f"{n:,} photos of {value['bytes'] / 1000:.0f} kB, two processes; img2dataset's shard phase, resize_mode=no: {again[0]:,.0f}/s "
        f"and {again[1]:.2f} processor ms an image; bytes kept: {kept[0]:,.0f}/s and {kept[1]:.2f} ms. Our whole command, in brackets "
        f"against the one and the other: {'; '.join(parts)}. Ten images: ours {own['wall']:.1f} s ({own['processor']:.1f} processor s), "
        f"img2dataset {few['wall']:.1f} s ({few['processor']:.1f})"
    )


if __name__ == "__main__":
    main()
