"""A training of 15 million samples, resumed in the middle of an epoch: seconds to the first batch, memory of the loader's process.

The set is synthetic: one tar of 10,000 small JPEGs with its index and sidecar, linked under 1,500 names of one manifest. So the
order, the manifest, 1,500 indices and sidecars are as large as real ones; their files come from the page cache, which a real
set's first reading does not. Measured are the loader in a fresh process, for one rank of 1 and of 8, and the whole command
`train clip`, which goes on from a checkpoint: imports, checks, the model and the first step included.

    python benchmarks/resume_large.py [--shards 1500] [--per-shard 10000] [--batch 1024]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _open_clip import flags
from _photos import ROOT, photos
from loader import descendants, keep

GOAL_SECONDS, GOAL_MB = 10.0, 256
DIFFERENT = 200  # images, repeated through the tar
PLACE = 1.43  # passes over the data behind which training goes on
LATER = 40  # batches after which memory is looked at again
KINDS = ("VmHWM", "RssAnon", "RssFile", "RssShmem")  # of /proc/PID/status


def main() -> None:
    """Write the set, measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1500)
    parser.add_argument("--per-shard", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--model", default="tiny-rn-32", help="of the whole command")
    parser.add_argument("--output", help="write the figures to this file alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(json.loads(options.child))))
        return
    values: dict[str, Any] = {"samples": options.shards * options.per_shard, **vars(options)}
    with tempfile.TemporaryDirectory() as folder:
        build = str(Path(folder) / "set")
        began = time.monotonic()
        write_set(build, options.shards, options.per_shard)
        values["writing_s"] = round(time.monotonic() - began, 1)
        step = int(PLACE * values["samples"] / options.batch)
        for world in options.worlds:
            job = {"build": build, "batch": options.batch, "side": options.side, "world": world, "step": step}
            values[f"loader, 1 of {world}"] = loader_alone(job)
        values["command"] = command(build, Path(folder) / "run", options, step)
    keep("resume_large", values, line(values), options.output)


def write_set(build: str, shards: int, per_shard: int) -> None:
    """Write one shard, link it under all names, and write their manifest."""
    import pyarrow as pa

    from shards.manifest import Manifest
    from shards.sample import uid_of
    from shards.writer import write_shard

    os.makedirs(build)
    images = [image for image, _ in photos(min(DIFFERENT, per_shard), short=48)]
    rng = random.Random(0)
    words = [f"word{i}" for i in range(1000)]
    uids = [uid_of("large", str(i)) for i in range(per_shard)]
    captions = [" ".join(rng.choices(words, k=rng.randrange(5, 16))) for _ in uids]
    members = [{"jpg": images[i % len(images)], "txt": caption.encode()} for i, caption in enumerate(captions)]
    table = pa.table({"key": uids, "uid": uids, "caption": captions, "captions": [[caption] for caption in captions]})
    entry = write_shard(build, "00000", list(zip(uids, members, strict=True)), table)
    entries = [dataclasses.replace(entry, path=f"{number:05d}.tar") for number in range(shards)]
    for other in entries[1:]:
        for suffix in (".tar", ".idx", ".parquet"):
            os.link(Path(build) / f"00000{suffix}", (Path(build) / other.path).with_suffix(suffix))
    total = shards * entry.bytes
    Manifest(samples=shards * per_shard, bytes=total, shards=tuple(entries), members=("jpg", "txt")).save(build)


# The loader in a process of its own


def loader_alone(job: dict[str, Any]) -> dict[str, Any]:
    """Run `child` in a fresh process, which learns when it was started."""
    started = {**job, "started": time.time()}
    done = subprocess.run([sys.executable, __file__, "--child", json.dumps(started)], check=True, capture_output=True, cwd=ROOT)
    return json.loads(done.stdout)


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Open the loader at a step; return seconds since the process was started, and the memory of the loader's process in MB."""
    from shards.manifest import read_manifest
    from train.data.batch import Needs
    from train.data.loader import Loader

    manifest = read_manifest(job["build"])
    opened = time.time() - job["started"]
    needs = Needs(captions=True, context_length=77)
    shape = {"batch_size": job["batch"], "image_size": job["side"], "world_size": job["world"], "rank": job["world"] - 1}
    loader = Loader([(manifest, None)], process=True, seed=0, needs=needs, workers=2, **shape)
    with contextlib.closing(loader.batches(job["step"])) as batches:  # type: ignore[type-var]
        batch = next(batches)
        first = time.time() - job["started"]
        feeding = feeders(os.getpid())[0]
        at_first = memory(feeding)
        for _ in range(LATER):
            next(batches)
        later = memory(feeding)
    return {
        "manifest_s": round(opened, 2),
        "first_batch_s": round(first, 2),
        "step": batch.step,
        "epochs": sorted({int(epoch) for epoch in batch.epoch}),
        "rank_batch": len(batch),
        "at_first_mb": at_first,
        f"after_{LATER}_batches_mb": later,
    }


def feeders(root: int) -> list[int]:
    """Return the loader processes below a process."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    feeding = []
    for process in sorted(descendants(root, parents) - {root}):
        with contextlib.suppress(OSError):
            if b"train.data.feed" in Path(f"/proc/{process}/cmdline").read_bytes():
                feeding.append(process)
    return feeding


def memory(process: int) -> dict[str, float]:
    """Return a process's memory in MB (10⁶ bytes): peak, anonymous, of files (programs and libraries), shared (the ring).

    `without_ring` is the anonymous and the files' part. Pages of files are in memory once for all ranks of a machine.
    """
    lines = dict(row.split(":", 1) for row in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in row)
    kinds = {kind: int(lines[kind].split()[0]) * 1024 / 1e6 for kind in KINDS}
    kinds["without_ring"] = kinds["RssAnon"] + kinds["RssFile"]
    return {kind: round(value, 1) for kind, value in kinds.items()}


# The whole command


def command(build: str, output: Path, options: argparse.Namespace, step: int) -> dict[str, Any]:
    """Save a checkpoint of a step, run the command that goes on from it for two steps, and return when the first one was logged."""
    values = {"manifest": build, "output": str(output), "model": options.model, "batch_size": options.batch, "device": "cpu"}
    values |= {"samples_seen": (step + 2) * options.batch, "log_every": 1, "workers": 2}
    words = ["clip", *flags(**values), "--no-tensorboard"]
    save_checkpoint(values, step)
    began = time.monotonic()
    with tempfile.TemporaryFile() as talk:
        process = subprocess.Popen([sys.executable, "-m", "train", *words], cwd=ROOT, stdout=talk, stderr=subprocess.STDOUT)
        first, peak = watched(process, output / "log.jsonl", began)
        talk.seek(0)
        if process.returncode:
            raise SystemExit(f"train clip left with {process.returncode}:\n{talk.read().decode(errors='replace')[-2000:]}")
    steps = [json.loads(row)["step"] for row in (output / "log.jsonl").read_text().splitlines()]
    return {"first_step_s": round(first, 2), "whole_s": round(time.monotonic() - began, 2), "steps": steps, "loader_mb": peak}


def save_checkpoint(values: dict[str, Any], step: int) -> None:
    """Write the checkpoint that a step of a training would start from, with untrained weights."""
    import torch

    from train import run
    from train.tasks.clip import Config

    made = run.build(Config.from_flags({**values, "manifest": (values["manifest"],), "tensorboard": False}), torch.device("cpu"))
    os.makedirs(values["output"])
    run.save(made, step)


def watched(process: subprocess.Popen[bytes], log: Path, began: float) -> tuple[float, dict[str, float]]:
    """Wait until a training ends; return when its first line was logged, and its loader's memory when last seen."""
    first, last = 0.0, {}
    while process.poll() is None:
        if not first and log.exists() and log.stat().st_size:
            first = time.monotonic() - began
        for feeding in feeders(process.pid):
            with contextlib.suppress(OSError, KeyError):  # it has just ended
                last = memory(feeding)
        time.sleep(0.02)
    return first, last


def line(values: dict[str, Any]) -> str:
    """Return the line of RESULTS.md."""
    parts = [f"{values['samples'] / 1e6:g} M samples in {values['shards']:,} shards (synthetic), resumed after {PLACE} epochs"]
    for world in values["worlds"]:
        alone = values[f"loader, 1 of {world}"]
        used = alone[f"after_{LATER}_batches_mb"]
        parts.append(
            f"a rank of {world}: first batch of {alone['rank_batch']:,} after {alone['first_batch_s']:.1f} s (limit {GOAL_SECONDS:g}), its "
            f"loader's process {used['without_ring']:.0f} MB beside the ring of batches (limit {GOAL_MB}; anonymous "
            f"{used['RssAnon']:.0f}, the rest are pages of libraries; ring {used['RssShmem']:.0f} MB)"
        )
    parts.append(f"`train clip` from its start to its first step logged {values['command']['first_step_s']:.1f} s")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
