"""The write pass against webdataset's ShardWriter: the same samples, the same run, one process each.

Ours reads each photo where it lies in a pool of tars, holds all its bytes against what was measured, and leaves tar, tar's
sha256, DALI index and sidecar, flushed to the disk; ShardWriter writes the tar alone, once from bytes that are in memory
already, once fed by webdataset's own reader of the same tars. The ceiling is a loop that reads the photos, hashes them once and
writes them. Disks and neighbours disturb wall time; processor time is steadier.

    python benchmarks/write.py [--samples 6000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow.parquet as pq
from _photos import origin, write_tars
from _record import record

from curate.cli import main as curate
from curate.write import WriteTask, write
from shards.core import fs
from shards.writer import PLAN_KEY

SHORT, PER_SHARD = 300, 1000
KEEP_ALL = ("--no-exact", "--no-near", "--no-profanity", "--hash", "fast")


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pool = write_tars(folder / "pool", arguments.samples, SHORT, PER_SHARD)
        tasks = plan(folder)
        places = [place for task in tasks for place in pointers(task)]
        samples = [(key, read(path, offset, size), caption) for key, path, offset, size, caption in places]
        kilobytes = statistics.fmean(len(content) for _, content, _ in samples) / 1000
        ways: dict[str, Callable[[], None]] = {
            "ours": lambda: ours(tasks, 1),
            "ours, 2 workers": lambda: ours(tasks, 2),
            "ShardWriter, from memory": lambda: peer(folder / "peer", ({"__key__": k, "jpg": c, "txt": t} for k, c, t in samples)),
            "ShardWriter, reading": lambda: peer(folder / "read", pool_samples(pool)),
            "ceiling": lambda: ceiling(folder / "ceiling", places),
        }
        figures = {name: timed(found, len(samples)) for name, found in measure(ways, arguments.rounds).items()}
        same(Path(tasks[0].folder), folder / "peer")
    value = {"samples": len(samples), "kilobytes": kilobytes, "origin": origin(), "rounds": arguments.rounds, "per_second": figures}
    record("write", value, in_words(value))


def plan(folder: Path) -> list[WriteTask]:
    """Build once, so that the photos are measured and planned; returns what the write pass is given."""
    flags = ["--source", "webdataset", "--input", str(folder / "pool"), "--samples", "all", "--samples-per-shard", str(PER_SHARD)]
    if code := curate(["build-shards", *flags, *KEEP_ALL, "--output", str(folder / "out")]):
        raise SystemExit(code)
    shards = [pq.read_metadata(p).metadata[PLAN_KEY].decode() for p in sorted((folder / "out").glob("*.parquet"))]
    plans = folder / "out.work" / "plans"
    return [WriteTask(str(plans / f"{d}.parquet"), d, str(folder / "again"), f"{i:05d}", ("jpg", "txt")) for i, d in enumerate(shards)]


def pointers(task: WriteTask) -> list[tuple[str, str, int, int, str]]:
    """Return key, path, offset, size and caption of a plan's samples."""
    table = pq.read_table(task.plan)
    return list(zip(*(table[name].to_pylist() for name in ("key", "path", "offset", "size", "caption")), strict=True))


def read(path: str, offset: int, size: int) -> bytes:
    """Return a photo."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def ours(tasks: list[WriteTask], workers: int) -> None:
    """Run the write pass, in this process where there is one worker."""
    fs.remove(tasks[0].folder)
    fs.make_dirs(tasks[0].folder)
    write(tasks, 0, workers, "local" if workers > 1 else "inline")


def peer(folder: Path, samples: Iterable[dict[str, Any]]) -> None:
    """Write samples with ShardWriter."""
    from webdataset import ShardWriter  # brings torch: not at the top, which every worker imports

    folder.mkdir(exist_ok=True)
    with ShardWriter(str(folder / "%05d.tar"), maxcount=PER_SHARD, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)


def pool_samples(pool: list[Path]) -> Iterable[dict[str, Any]]:
    """Read the pool as webdataset does."""
    from webdataset import WebDataset

    return WebDataset([str(p) for p in pool], shardshuffle=False)


def ceiling(path: Path, places: list[tuple[str, str, int, int, str]]) -> None:
    """Read every photo into one buffer, hash the buffer and write it: what no tar with a sha256 can do without."""
    buffer, at, found = bytearray(2**20), 0, hashlib.sha256()
    view = memoryview(buffer)
    files = {name: os.open(name, os.O_RDONLY) for name in {place[1] for place in places}}
    with path.open("wb", buffering=0) as out:
        for _, name, offset, size, _ in places:
            if at + size > len(buffer):
                found.update(view[:at])
                out.write(view[:at])
                at = 0
            at += os.preadv(files[name], [view[at : at + size]], offset)
    for descriptor in files.values():
        os.close(descriptor)


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Run all ways in turn, as often as asked after one run that warms up; returns (wall, processor) seconds of each."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start, busy = time.perf_counter(), time.process_time()
            way()
            if number:
                found[name].append((time.perf_counter() - start, time.process_time() - busy))
    return found


def timed(found: list[tuple[float, float]], n: int) -> dict[str, float]:
    """Return the samples per second of wall time and of processor time: medians."""
    return {"wall": n / statistics.median(w for w, _ in found), "processor": n / statistics.median(c for _, c in found)}


def same(one: Path, other: Path) -> None:
    """Hold both tars' members against each other: the comparison is of equal work only if they are equal."""
    for path in sorted(one.glob("*.tar")):
        with tarfile.open(path) as a, tarfile.open(other / path.name) as b:
            for mine, theirs in zip(a, b, strict=True):
                assert mine.name == theirs.name
                assert a.extractfile(mine).read() == b.extractfile(theirs).read()  # type: ignore[union-attr]


def in_words(value: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    rate = value["per_second"]
    ours = rate["ours"]
    memory, reading, most = rate["ShardWriter, from memory"], rate["ShardWriter, reading"], rate["ceiling"]
    ratios = {kind: (ours[kind] / memory[kind], ours[kind] / reading[kind]) for kind in ("processor", "wall")}
    two = rate["ours, 2 workers"]["wall"]
    return (
        f"{value['samples']:,} pairs of {value['kilobytes']:.0f} kB, in a processor second {ours['processor']:,.0f} "
        f"(read, checked, tar, sha256, index, sidecar); ShardWriter {memory['processor']:,.0f} from memory "
        f"({ratios['processor'][0]:.1f}×), {reading['processor']:,.0f} reading the same tars ({ratios['processor'][1]:.1f}×); "
        f"ceiling (read, hash once, write) {most['processor']:,.0f}, {most['processor'] / memory['processor']:.1f}×. "
        f"Wall, one process: {ratios['wall'][0]:.1f}× and {ratios['wall'][1]:.1f}×; the pass on two cores: "
        f"{two / memory['wall']:.1f}× and {two / reading['wall']:.1f}×"
    )


if __name__ == "__main__":
    main()
