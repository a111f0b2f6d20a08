"""Trainings on one GPU, in one command of ten minutes: RN50 and ViT-B/32, 224 px, bf16, batches of 1,024, DALI from tars.

For each model `train clip` runs as a command of its own, and open_clip's trainer on the same card, tars, model, precision and
batch. SimCLR likewise; its peer is the same step fed by SLIP's loader (torchvision on Pillow images, one worker per core).
Samples a second, MFU and the share of time waited for data come from each command's own log, its first lines left out.
What the time does not allow is named, not guessed. `--size small` runs all of it on a CPU in about a minute, to try it.

    python benchmarks/gpu.py [--size full|small] [--seconds 560] [--output FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _open_clip as peer
from _photos import ROOT, origin
from loader import keep

MFU_GOAL, WAIT_GOAL, RATIO_GOAL = 0.35, 0.03, 1.2
FEWEST_SECONDS = 20  # a command that has less time is not begun


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        models: of CLIP; `simclr` is the image tower of SimCLR.
        tars, per_tar: of the set; open_clip needs as many tars as workers.
        steps: of each training, `warm` of which are not counted; the peers take `peer_steps`.
        log_every: steps of a line of the log.
        limit: seconds of one command.
    """

    models: tuple[str, ...]
    simclr: str
    device: str
    batch: int
    tars: int
    per_tar: int
    short: int
    steps: int
    warm: int
    log_every: int
    workers: int
    limit: float


def size_of(name: str) -> Size:
    """Return the size by its name."""
    cores = len(os.sched_getaffinity(0))
    if name == "small":
        return Size(("tiny-rn-32", "tiny-vit-32"), "tiny-rn-32", "cpu", 16, 2, 48, 48, 8, 2, 2, 2, 240.0)
    # Two tars of 512 for each worker of open_clip: one drops what is left of its tars behind the last whole batch of 1,024.
    workers = min(cores, 32)
    return Size(("RN50", "ViT-B-32"), "RN50", "cuda", 1024, 2 * workers, 512, 256, 80, 20, 10, workers, 100.0)


def main() -> None:
    """Measure all, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=["auto", "full", "small"], default="auto", help="auto: full, where there is a GPU")
    parser.add_argument("--seconds", type=float, default=560, help="of the whole command")
    parser.add_argument("--engine", choices=["dali", "cpu"], default="dali")
    parser.add_argument("--output", help="write the figures to this file alone")
    parser.add_argument("--slip", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.slip:
        print(json.dumps(slip_steps(**json.loads(options.slip))))
        return
    import torch

    if options.size != "small" and not torch.cuda.is_available():
        print("gpu: no CUDA device; --size small tries it on a CPU")
        return
    size = size_of("full" if options.size == "auto" else options.size)
    clock = Clock(options.seconds)
    values: dict[str, Any] = {"size": asdict(size), "engine": options.engine, "photos": origin(), "device": device_name(size.device)}
    with tempfile.TemporaryDirectory() as folder:
        tars = write_set(Path(folder) / "set", size)
        values["writing_s"] = round(clock.passed, 1)
        values["runs"] = runs(Path(folder), tars, size, options.engine, clock)
    values["seconds"] = round(clock.passed, 1)
    keep("gpu" if size.device == "cuda" else "gpu_small", values, line(values), options.output)


class Clock:
    """The time of the whole command."""

    def __init__(self, seconds: float) -> None:
        self._began, self._ends = time.monotonic(), time.monotonic() + seconds

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self._ends - time.monotonic()


def device_name(device: str) -> str:
    """Return the name of the device."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def write_set(folder: Path, size: Size) -> list[str]:
    """Write and index tars of different photos, on all cores; returns their paths."""
    from shards.index import index

    folder.mkdir(parents=True)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(write_tar, folder, number, size.per_tar, size.short) for number in range(size.tars)]
        tars = [task.result() for task in tasks]
    index(str(folder))
    return tars


def write_tar(folder: Path, number: int, samples: int, short: int) -> str:
    """Write one tar of photos and captions; returns its path."""
    from _photos import photos

    from shards import tar

    path = folder / f"{number:05d}.tar"
    with path.open("wb") as file:
        writer = tar.TarWriter(file)
        for i, (content, caption) in enumerate(photos(samples, short, seed=number)):
            key = f"{number * samples + i:09d}"
            writer.add(f"{key}.jpg", content)
            writer.add(f"{key}.txt", caption.encode())
        writer.close()
    return str(path)


def runs(folder: Path, tars: list[str], size: Size, engine: str, clock: Clock) -> dict[str, Any]:
    """Run every training, ours before its peer, and return what each came to."""
    done: dict[str, Any] = {}
    build = str(Path(tars[0]).parent)
    for model in size.models:
        name = f"clip {model}"
        done[name] = {"ours": our_training("clip", model, build, folder / f"{name} ours", size, engine, clock)}
        done[name]["peer"] = open_clip_training(model, tars, folder / f"{name} peer", size, clock)
        compare(done[name])
    name = f"simclr {size.simclr}"
    done[name] = {"ours": our_training("simclr", size.simclr, build, folder / f"{name} ours", size, engine, clock)}
    done[name]["peer"] = slip_training(build, tars, size, clock)
    compare(done[name])
    return done


def our_training(task: str, model: str, build: str, output: Path, size: Size, engine: str, clock: Clock) -> dict[str, Any]:
    """Run `train TASK` and return the medians of its log's lines behind the warm-up."""
    values = {"manifest": build, "output": str(output), "model": model, "batch_size": size.batch, "precision": "bf16"}
    values |= {"device": size.device, "engine": engine, "workers": size.workers, "log_every": size.log_every, "warmup": size.warm}
    values |= {"samples_seen": size.steps * size.batch, "checkpoint_every": 10**9, "checkpoint_minutes": 0, "eval_every": 10**9}
    command = [sys.executable, "-m", "train", task, *peer.flags(**values), "--no-tensorboard"]
    failure = ran(command, size, clock)
    log = output / "log.jsonl"
    rows = [json.loads(row) for row in log.read_text().splitlines()] if log.exists() else []
    counted = [row for row in rows if row["step"] > size.warm]
    if not counted:
        return {"missing": failure or "no line of the log"}
    figures = {name: statistics.median(row[key] for row in counted) for name, key in (("samples_per_s", "samples_per_s"), ("mfu", "mfu"))}
    figures["waiting"] = statistics.fmean(row["waiting"] for row in counted)  # a mean: waits come in bursts
    rates = [row["samples_per_s"] for row in counted]
    return figures | {"least": min(rates), "most": max(rates), "last_loss": rows[-1]["loss"]} | ({"failure": failure} if failure else {})


def open_clip_training(model: str, tars: list[str], folder: Path, size: Size, clock: Clock) -> dict[str, Any]:
    """Run open_clip's training command and return what its log says behind the warm-up."""
    # Its workers make whole batches in turns: only after a first batch of each does the rate mean something.
    warm = max(size.warm // size.workers, 1) * size.workers
    steps = warm + max((size.steps - size.warm) // size.workers, 1) * size.workers
    values = {"model": model, "train_data": "::".join(tars), "train_num_samples": steps * size.batch, "dataset_type": "webdataset"}
    values |= {"batch_size": size.batch, "workers": size.workers, "precision": "amp_bf16", "device": size.device, "epochs": 1}
    values |= {"warmup": size.warm, "lr": 1e-3, "wd": 0.1, "log_every_n_steps": 1, "logs": str(folder), "name": "run"}
    command = [sys.executable, str(ROOT / "benchmarks" / "_open_clip.py"), *peer.flags(**values)]
    failure = ran(command, size, clock)
    log = folder / "run" / "out.log"
    rows = steps_of(log.read_text())[warm:] if log.exists() else []
    if not rows:
        return {"missing": failure or "no line of the log"}
    seconds = sum(row["seconds"] for row in rows)
    figures = {"samples_per_s": len(rows) * size.batch / seconds, "waiting": sum(row["waited"] for row in rows) / seconds}
    return figures | {"steps": len(rows), "last_loss": rows[-1]["loss"]} | ({"failure": failure} if failure else {})


def steps_of(log: str) -> list[dict[str, float]]:
    """Return seconds, seconds waited for data and loss of each step in open_clip's log, in order."""
    pattern = r"Data \(t\): ([0-9.]+) Batch \(t\): ([0-9.]+),.*?\bLoss: ([0-9.]+)"
    return [{"waited": float(a), "seconds": float(b), "loss": float(c)} for a, b, c in re.findall(pattern, log)]


def slip_training(build: str, tars: list[str], size: Size, clock: Clock) -> dict[str, Any]:
    """Run our SimCLR step over SLIP's loader in a process of its own."""
    job = {"build": build, "tars": tars, "model": size.simclr, "batch": size.batch, "device": size.device, "workers": size.workers}
    # At two views a core makes some 100 samples a second: the batches that all workers have begun, and twice as many.
    job |= {"warm": size.workers, "steps": 2 * size.workers}
    with tempfile.NamedTemporaryFile() as out:
        failure = ran([sys.executable, __file__, "--slip", json.dumps(job)], size, clock, Path(out.name))
        text = Path(out.name).read_text().strip().splitlines()
    return {"missing": failure} if failure else json.loads(text[-1])


def slip_steps(build: str, tars: list[str], model: str, batch: int, device: str, workers: int, warm: int, steps: int) -> dict[str, Any]:
    """Train SimCLR on views that SLIP's loader makes; return samples a second behind the warm-up, and the share of waiting."""
    import torch

    from train import run
    from train.losses.nt_xent import nt_xent
    from train.optim.groups import set_lr
    from train.tasks.simclr import Config

    values = {"manifest": (build,), "output": "unused", "model": model, "batch_size": batch, "precision": "bf16", "warmup": 0}
    made = run.build(Config.from_flags({**values, "device": device, "samples_seen": 10**6, "tensorboard": False}), torch.device(device))
    set_lr(made.optimizer, made.config.lr)
    made.trained.train()
    side, waited, began = made.task.image_size, 0.0, 0.0
    with contextlib.closing(peer.two_views(tars, batch=batch, workers=workers, side=side)) as batches:  # type: ignore[type-var]
        for number in range(warm + steps):
            if number == warm:
                synchronised(device)
                waited, began = 0.0, time.perf_counter()
            before = time.perf_counter()
            pair = next(batches)
            waited += time.perf_counter() - before
            views = [view.to(device, memory_format=torch.channels_last, non_blocking=True) for view in pair]
            with torch.autocast(device, torch.bfloat16):
                features = made.task.features(views, None)  # type: ignore[arg-type]  # it looks at the views alone
            nt_xent(features["first"].float(), features["second"].float(), made.config.temperature).mean().backward()  # type: ignore[attr-defined]
            made.optimizer.step()
            made.optimizer.zero_grad()
    synchronised(device)
    seconds = time.perf_counter() - began
    return {"samples_per_s": steps * batch / seconds, "waiting": waited / seconds, "steps": steps}


def synchronised(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def ran(command: list[str], size: Size, clock: Clock, output: Path | None = None) -> str:
    """Run a command within its time; return why it failed, or an empty text."""
    limit = min(size.limit, clock.left)
    if limit < FEWEST_SECONDS:
        return "no time left"
    with tempfile.TemporaryFile() as talk, output.open("wb") if output else contextlib.nullcontext(talk) as out:
        # A session of its own, so that workers go with it when it is late.
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=talk, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return f"stopped after {limit:.0f} s"
        talk.seek(0)
        lines = talk.read().decode(errors="replace").strip().splitlines()
    return "" if code == 0 else f"exit code {code}: " + " | ".join(lines[-4:])


def compare(pair: dict[str, Any]) -> None:
    """Add how many times the peer ours is, and the peer's MFU: its FLOPs a sample are ours."""
    ours, other = pair["ours"], pair["peer"]
    if "samples_per_s" in ours and "samples_per_s" in other:
        pair["ratio"] = ours["samples_per_s"] / other["samples_per_s"]
        other["mfu"] = ours["mfu"] / pair["ratio"]


def line(values: dict[str, Any]) -> str:
    """Return the line of RESULTS.md."""
    size = values["size"]
    parts = [f"{values['device']}, bf16, batches of {size['batch']:,}, engine {values['engine']}, {size['tars']} tars of {size['per_tar']}"]
    for name, pair in values["runs"].items():
        told = []
        for who, run in (("ours", pair["ours"]), ("peer", pair["peer"])):
            if "samples_per_s" not in run:
                told.append(f"{who}: {run['missing']}")
                continue
            used = f", MFU {run['mfu']:.1%}" if "mfu" in run else ""
            told.append(f"{who} {run['samples_per_s']:,.0f} samples/s{used}, waiting for data {run['waiting']:.1%}")
        if "ratio" in pair:
            told.append(f"{pair['ratio']:.2f}×")
        parts.append(f"{name}: " + "; ".join(told))
    goals = f"goals: MFU of ViT ≥ {MFU_GOAL:.0%}, waiting ≤ {WAIT_GOAL:.0%}, ≥ {RATIO_GOAL:g}× open_clip"
    return ". ".join([*parts, goals])


if __name__ == "__main__":
    main()
