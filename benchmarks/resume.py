"""Killed and resumed in the middle of epochs: what our loader and others repeat, lose and reorder.

Each loader goes through two epochs of one small set four times: twice undisturbed (is the order reproducible at all?), once
killed by SIGKILL behind the same random steps, and once killed and resumed with another number of workers. Each uses its own
documented state, saved after every step, so that nothing need be repeated or lost.

Loaders outside the project's environment come from a folder: FOLDER/torchdata, FOLDER/litdata and FOLDER/mosaicml-streaming, each
filled by `pip install --target`. Those that are not there are named as missing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from _record import record
from _resume_child import MISSING
from _resume_count import Consumed, common_start, tally
from _resume_feed import Job
from _resume_peers import PEERS

from shards.manifest import Manifest
from shards.sample import uid_of
from shards.writer import write_shard

ROOT = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).with_name("_resume_child.py")
TARS = 10
EPOCHS = 2
OTHER_WORKERS = (3,)  # instead of 2, for a resumed run
LIMIT = 300  # seconds of one process; a loader that needs more is taken to hang


class Failed(Exception):
    """A process of a loader ended with an error, or not at all."""


def tiny_jpeg(rng: random.Random) -> bytes:
    """Return a JPEG of 80 × 60 pixels; what it shows does not matter here."""
    from PIL import Image

    out = io.BytesIO()
    Image.frombytes("RGB", (8, 6), rng.randbytes(8 * 6 * 3)).resize((80, 60)).save(out, "JPEG")
    return out.getvalue()


def write_set(folder: Path, samples: int, seed: int) -> list[str]:
    """Write a build of tiny pictures in shards of uneven sizes, a key as each caption; returns the keys."""
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(1, samples), TARS - 1))
    bounds = list(zip([0, *cuts], [*cuts, samples], strict=True))
    keys = [uid_of("resume", str(i)) for i in range(samples)]
    entries = []
    for number, (start, stop) in enumerate(bounds):
        part = keys[start:stop]
        rows = [(key, {"jpg": tiny_jpeg(rng), "txt": key.encode()}) for key in part]
        table = pa.table({"key": part, "uid": part, "caption": part})
        entries.append(write_shard(str(folder), f"{number:05d}", rows, table))
    Manifest(samples=samples, bytes=sum(e.bytes for e in entries), shards=tuple(entries), members=("jpg", "txt")).save(str(folder))
    return keys


def kill_steps(job: Job, per_epoch: int) -> list[int]:
    """Return random steps, between 5% and 95% of each epoch, behind which a run is killed: numbers of consumed batches."""
    rng = random.Random(job.seed)
    low, high = max(1, job.steps // 20), job.steps - max(1, job.steps // 20)
    steps = []
    for epoch in range(job.epochs):
        steps += [epoch * job.steps + step for step in sorted(rng.sample(range(low, high), per_epoch))]
    return steps


class Runner:
    """Runs one loader's processes in a folder of their own."""

    def __init__(self, name: str, folder: Path, peers: Path | None) -> None:
        """Choose the loader; `peers` holds a folder of packages for some."""
        self.name, self.folder = name, folder
        folder.mkdir()
        # Nothing is fetched, and nothing is left in the user's caches.
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "LITDATA_DISABLE_VERSION_CHECK": "1",
            "OMP_NUM_THREADS": "1",
        }
        packages = [str(peers / package) for package in PEERS[name].packages] if peers else []
        self.environment["PYTHONPATH"] = os.pathsep.join([*packages, str(ROOT)])

    def start(self, verb: str, task: dict[str, Any]) -> tuple[int, str, str]:
        """Run a process to its end; returns its exit code, output and the last line of its errors.

        Raises:
            Failed: it takes longer than LIMIT.
        """
        file = self.folder / "task.json"
        file.write_text(json.dumps({"peer": self.name, **task}))
        command = [sys.executable, str(CHILD), verb, str(file)]
        errors = self.folder / "errors.txt"
        with errors.open("w") as sink:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=sink, text=True, start_new_session=True
            )
            try:
                output, _ = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                raise Failed(f"no end after {LIMIT} s") from None
            finally:
                # Also when this benchmark itself is stopped: neither the process nor its workers stay behind.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        lines = errors.read_text(errors="replace").strip().splitlines()
        return process.returncode, output, lines[-1] if lines else ""

    def prepare(self, job: Job) -> dict[str, str] | None:
        """Write the set in the loader's format; returns its versions, or None where it is not installed."""
        code, output, error = self.start("prepare", {"job": dataclasses.asdict(job)})
        if code == MISSING:
            return None
        if code != 0:
            raise Failed(error)
        return json.loads(output.strip().splitlines()[-1])

    def consume(self, title: str, job: Job, kills: list[int], resumed: Job | None = None) -> tuple[Consumed, list[float]]:
        """Run to the end of the last epoch, through the kills.

        Args:
            title: names the run's files.
            job: of the first process.
            kills: numbers of consumed batches.
            resumed: of the later processes, where it differs.

        Returns:
            What was consumed, and each process's seconds from its start to its first batch.

        Raises:
            Failed: a process ends otherwise than by a kill that is due, or by coming to the end.
        """
        log, checkpoint = self.folder / f"{title}.jsonl", self.folder / f"{title}.state"
        log.touch()
        rows: list[dict[str, Any]] = []
        waits: list[float] = []
        code = -signal.SIGKILL
        while code != 0:
            before = len(rows)
            now = resumed if resumed and before else job
            task = {"job": dataclasses.asdict(now), "kills": kills, "log": str(log), "checkpoint": str(checkpoint)}
            begun = time.time()
            code, _, error = self.start("run", task)
            rows = [json.loads(line) for line in log.read_text().splitlines()]
            if len(rows) > before:
                waits.append(rows[before]["time"] - begun)
            due = code == -signal.SIGKILL and len(rows) > before and len(rows) in kills
            if code != 0 and not due:
                place = f"resumed behind batch {before}" if before else "a new run"
                raise Failed(f"{place}: exit code {code}: {error}")
        consumed = [(epoch, key) for row in rows for epoch, key in row["keys"]]
        return consumed, waits


def judge(runner: Runner, job: Job, keys: list[str], kills: list[int]) -> dict[str, Any]:
    """Return a loader's figures."""
    plain, fresh = runner.consume("plain", job, [])
    again, more = runner.consume("again", job, [])
    figures: dict[str, Any] = {
        "method": PEERS[runner.name].method,
        "undisturbed": tally(plain, keys, job.epochs)._asdict(),
        "reproducible": plain == again,
        "fresh_s": statistics.median([*fresh, *more]),
    }
    try:
        killed, waits = runner.consume("killed", job, kills)
        figures["killed"] = compared(killed, plain, keys, job.epochs)
        figures["resume_s"] = statistics.median(waits[1:])
    except Failed as failure:
        figures["killed"] = {"failed": str(failure)}
    figures["other_workers"] = {}
    for workers in OTHER_WORKERS if PEERS[runner.name].has_workers else ():
        figures["other_workers"][workers] = with_other_workers(runner, job, keys, kills[0], plain, workers)
    return figures


def with_other_workers(runner: Runner, job: Job, keys: list[str], kill: int, plain: Consumed, workers: int) -> dict[str, Any]:
    """Return the figures of one epoch, killed once and resumed with another number of workers."""
    before = dataclasses.replace(job, epochs=1)
    after = dataclasses.replace(before, workers=workers)
    first_epoch = [delivery for delivery in plain if delivery[0] == 0]
    try:
        changed, _ = runner.consume(f"workers-{workers}", before, [kill], after)
    except Failed as failure:
        return {"failed": str(failure)}
    return compared(changed, first_epoch, keys, 1)


def compared(resumed: Consumed, plain: Consumed, keys: list[str], epochs: int) -> dict[str, Any]:
    """Return what a resumed run repeated and lost, and whether its order is the undisturbed run's."""
    same = common_start(resumed, plain)
    return {**tally(resumed, keys, epochs)._asdict(), "order_equal": resumed == plain, "same_start": same, "consumed": len(resumed)}


def outcome(figures: dict[str, Any]) -> str:
    """Return a run's figures as words."""
    if "failed" in figures:
        return f"fails ({figures['failed'][:100]})"
    order = "same order" if figures["order_equal"] else "other order"
    return f"{figures['repeated']:,} repeated, {figures['lost']:,} lost, {order}"


def told(name: str, figures: dict[str, Any]) -> str:
    """Return a loader's part of the line in RESULTS.md."""
    version = ", ".join(f"{package} {number}" for package, number in figures["versions"].items())
    parts = [outcome(figures["killed"])]
    parts += [f"{workers} workers: {outcome(result)}" for workers, result in figures["other_workers"].items()]
    before = figures["undisturbed"]
    if before["repeated"] or before["lost"]:
        parts.append(f"not killed: {before['repeated']:,} repeated, {before['lost']:,} lost")
    if "resume_s" in figures:
        parts.append(f"first batch {figures['resume_s']:.1f} s after a restart, {figures['fresh_s']:.1f} s after a start")
    return f"{name}{f' ({version})' if version else ''}: {'; '.join(parts)}"


def measure(
    folder: Path, names: list[str], peers: Path | None, samples: int, per_epoch: int, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """Run the loaders, and yield all figures after each; a loader that is not installed stands under `missing`.

    Args:
        folder: an empty one, for the set and for the runs.
        names: of PEERS.
        peers: folder of packages.
        samples: of the set.
        per_epoch: kills in each epoch.
        batch_size: samples a step.
    """
    data = folder / "data"
    data.mkdir()
    keys = write_set(data, samples, seed=0)
    job = Job(str(data), "", samples, EPOCHS, batch_size, workers=2, seed=7, buffer=samples // TARS)
    kills = kill_steps(job, per_epoch)
    loaders: dict[str, Any] = {}
    missing: list[str] = []
    failed: dict[str, str] = {}
    figures = {"samples": samples, "shards": TARS, "batch_size": batch_size, "workers": 2, "epochs": EPOCHS, "buffer": job.buffer}
    for name in names:
        runner = Runner(name, folder / name, peers)
        its_job = dataclasses.replace(job, converted=str(folder / f"{name}-format"))
        try:
            versions = runner.prepare(its_job)
            if versions is None:
                missing.append(name)
            else:
                loaders[name] = {"versions": versions, **judge(runner, its_job, keys, kills)}
                print(told(name, loaders[name]), flush=True)
        except Failed as failure:
            failed[name] = str(failure)
            print(f"{name}: {failure}", flush=True)
        yield {**figures, "kills": kills, "loaders": loaders, "missing": missing, "failed": failed}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5, help="in each of the two epochs")
    parser.add_argument("--loaders", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--peers", type=Path, default=os.environ.get("PROVENDER_PEERS"), help="folder of packages; also $PROVENDER_PEERS")
    parser.add_argument("--json", type=Path, help="write the figures there after each loader, and leave RESULTS.md alone")
    arguments = parser.parse_args()
    # A terminated benchmark unwinds, so that it ends its processes and removes its folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers = Path(arguments.peers).resolve() if arguments.peers else None
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for figures in measure(Path(name), arguments.loaders, peers, arguments.samples, arguments.kills):
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.json:
        print(line(figures))
    else:
        record("resume", figures, line(figures))


def line(figures: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    start = (
        f"{figures['samples']:,} samples in {figures['shards']} uneven shards, {figures['epochs']} epochs, "
        f"batches of {figures['batch_size']}, 2 workers, killed behind {len(figures['kills'])} random steps, state saved after "
        "each step; then one epoch with one kill and 3 workers. "
    )
    rows = [told(name, loader) for name, loader in figures["loaders"].items()]
    rows += [f"{name}: fails ({why})" for name, why in figures["failed"].items()]
    missing = f" Not installed: {', '.join(figures['missing'])}." if figures["missing"] else ""
    return start + ". ".join(rows) + "." + missing


if __name__ == "__main__":
    main()
