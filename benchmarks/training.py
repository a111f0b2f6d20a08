"""Tiny CLIP trainings on a CPU, ours and open_clip's trainer: steps with loading, what each lever brings, whole commands, loss curves.

Both train the same model on the same tars with the same batch size, schedule and optimiser. Three measurements in one call:

- steps: open_clip's own train_one_epoch over its own loader, and our step over our loader, in turns in one process, timed from
  fetch to fetch behind some steps to warm up; in the last precision also ours with one lever switched off (or on) at a time.
- whole: `train clip` and open_clip's training command as processes of their own, start-up, loading and saving included.
- curves: `train clip`, and open_clip's loop from the same first weights fed with the same batches; the losses of each step.

As many rounds of steps are made as the time allows; `--parts steps --seconds 900` makes all of them.

    python benchmarks/training.py [--samples 1536] [--rounds 3] [--steps 16] [--models tiny-rn-64 tiny-vit-64] [--parts steps …]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _open_clip as peer
from _photos import ROOT, origin
from loader import cpu_seconds, keep, spread, write_set

SHORT = 256  # shorter side of the photos
WORKERS = 2
PEER_PRECISION = {"fp32": "fp32", "bf16": "amp_bf16"}
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}
DECAY, WARMUP = 0.1, 4
GOAL = 1.4
PARTS = ("whole", "curve", "steps")
LAST = 8  # steps whose mean loss ends a curve
# What is switched off (or on) for each lever: fields of the configuration.
LEVERS: dict[str, dict[str, Any]] = {
    "loader in threads of the trainer": {"loader": "threads"},
    "images not channels-last": {"channels_last": False},
    "AdamW not fused": {},
    "texts at full length": {},
    "with texts in 4 groups": {"text_groups": 4},
}


def main() -> None:
    """Measure all, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1536)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=4, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=16, help="steps under the clock, and of the curves")
    parser.add_argument("--epochs", type=int, default=6, help="of the whole commands; with one, imports are half of the time")
    parser.add_argument("--turns", type=int, default=3, help="how often each whole command runs")
    parser.add_argument("--models", nargs="+", default=["tiny-rn-64", "tiny-vit-64"])
    parser.add_argument("--precisions", nargs="+", choices=list(PEER_PRECISION), default=list(PEER_PRECISION))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=320, help="no further round begins that would end later")
    parser.add_argument("--output", help="write the figures to this file alone")
    options = parser.parse_args()
    if options.samples % (options.batch * WORKERS):
        parser.error(f"--samples must be a multiple of {options.batch * WORKERS}: open_clip's workers then end an epoch together")
    ends = time.monotonic() + options.seconds
    values: dict[str, Any] = {"photos": origin(), "cores": len(os.sched_getaffinity(0)), **vars(options), "runs": {}}
    with tempfile.TemporaryDirectory() as folder:
        tars = write_set(Path(folder) / "set", options.samples, SHORT, options.samples // (2 * WORKERS))
        job = Job(Path(folder), tars, options)
        pairs = [(model, precision) for model in options.models for precision in options.precisions]
        for number, pair in enumerate(pairs):
            share = (ends - time.monotonic()) / (len(pairs) - number)
            levers = list(LEVERS) if pair[1] == options.precisions[-1] else []
            values["runs"][", ".join(pair)] = figures(job, *pair, levers, time.monotonic() + share)
    keep("training", values, line(values), options.output)


class Job:
    """Where the set lies, and how large everything is."""

    def __init__(self, folder: Path, tars: list[str], options: argparse.Namespace) -> None:
        """Take the set's tars, and a folder to train in."""
        self.folder, self.tars, self.options = folder, tars, options
        self.build = str(Path(tars[0]).parent)

    def ours(self, model: str, precision: str, output: str, **changes: Any) -> dict[str, Any]:
        """Return the configuration of a training of ours, with changes."""
        values = {"manifest": (self.build,), "output": output, "model": model, "precision": precision, "device": "cpu"}
        values |= {"batch_size": self.options.batch, "epochs": 1.0, "warmup": WARMUP, "weight_decay": DECAY, "workers": WORKERS, **ADAM}
        return values | {"tensorboard": False, "log_every": LAST, "eval_every": 10**9, **changes}

    def theirs(self, precision: str) -> dict[str, Any]:
        """Return the same as flags of open_clip's command."""
        values = {"precision": PEER_PRECISION[precision], "batch_size": self.options.batch, "wd": DECAY, "warmup": WARMUP, **ADAM}
        return values | {"device": "cpu", "workers": WORKERS}


def figures(job: Job, model: str, precision: str, levers: list[str], ends: float) -> dict[str, Any]:
    """Return all figures of one model in one precision; whole commands and curves once, steps as often as there is time."""
    made: dict[str, Any] = {}
    if "whole" in job.options.parts:
        made["whole"] = whole(job, model, precision)
    if "curve" in job.options.parts:
        made["curve"] = curve(job, model, precision)
    if "steps" in job.options.parts:
        rates = steps_in_turns(job, model, precision, levers, ends)
        base = rates["ours"]["median"]
        made["steps"] = rates
        made["ratio"] = round(base / rates["open_clip"]["median"], 2)
        made["levers"] = {name: round(rates[name]["median"] / base, 2) for name in levers}
    return made


# Steps with loading


def steps_in_turns(job: Job, model: str, precision: str, levers: list[str], ends: float) -> dict[str, Any]:
    """Return samples a second of open_clip's loop, of ours, and of ours with each lever changed, over some rounds."""
    contestants: dict[str, Callable[[], tuple[float, float]]] = {"open_clip": open_clip_steps(job, model, precision)}
    for name in ("ours", *levers):
        contestants[name] = our_steps(job, model, precision, name)
    walls: dict[str, list[float]] = {name: [] for name in contestants}
    cpus: dict[str, list[float]] = {name: [] for name in contestants}
    took = 0.0
    for number in range(job.options.rounds):
        began = time.monotonic()
        if number and began + took > ends:
            break
        for name in contestants if number % 2 == 0 else reversed(contestants):
            wall, cpu = contestants[name]()
            walls[name].append(job.options.steps * job.options.batch / wall)
            cpus[name].append(job.options.steps * job.options.batch / max(cpu, 1e-2))
            print(f"{model} {precision}, round {number + 1}, {name}: {walls[name][-1]:,.0f} samples/s", file=sys.stderr)
        took = time.monotonic() - began
    return {name: spread(walls[name]) | {"per_cpu_s": spread(cpus[name]), "rounds": len(walls[name])} for name in contestants}


def open_clip_steps(job: Job, model: str, precision: str) -> Callable[[], tuple[float, float]]:
    """Return what measures open_clip's loop over open_clip's loader, (wall, processor) seconds of the timed steps."""
    size, options = job.options.warm + job.options.steps, job.options
    trainer = peer.Trainer(model, steps=size * options.rounds, **job.theirs(precision))
    side, context = trainer.model.visual.image_size, trainer.model.context_length
    side = side[0] if isinstance(side, tuple) else side

    def measure() -> tuple[float, float]:
        batches = peer.batches(job.tars, batch=options.batch, workers=WORKERS, side=side, context=context)
        with contextlib.closing(batches):  # type: ignore[type-var]
            stepped = peer.Stepped(batches, warm=options.warm, steps=options.steps, cpu=cpu_seconds)
            trainer.train(stepped)
        return stepped.wall, stepped.cpu

    return measure


def our_steps(job: Job, model: str, precision: str, lever: str) -> Callable[[], tuple[float, float]]:
    """Return what measures our step over our loader, with a lever changed unless it is `ours`."""
    import torch

    from train import run
    from train.tasks.clip import Config

    config = Config.from_flags(job.ours(model, precision, "unused", **LEVERS.get(lever, {})))
    made = run.build(config, torch.device("cpu"))
    if lever == "AdamW not fused":
        for group in made.optimizer.param_groups:
            group["fused"] = False
    options = job.options

    def measure() -> tuple[float, float]:
        with untrimmed(lever == "texts at full length"), contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
            stepped = peer.Stepped(batches, warm=options.warm, steps=options.steps, cpu=cpu_seconds)
            take_steps(made, stepped)
        return stepped.wall, stepped.cpu

    return measure


def take_steps(made: Any, batches: peer.Stepped) -> None:
    """Train on some batches as `train.loop` does, without log and checkpoint."""
    from train.loop import take_step

    module = made.module().train()
    for batch in batches:
        take_step(made, module, batch)


@contextlib.contextmanager
def untrimmed(off: bool) -> Iterator[None]:
    """Encode texts at the whole context length for a while, if `off`."""
    from train import step

    before = step.is_trimmable
    if off:
        step.is_trimmable = lambda model: False
    try:
        yield
    finally:
        step.is_trimmable = before


# Whole commands


def whole(job: Job, model: str, precision: str) -> dict[str, Any]:
    """Return wall and processor seconds of both commands over some epochs, in turns, and where their losses end."""
    walls: dict[str, list[float]] = {"ours": [], "open_clip": []}
    cpus: dict[str, list[float]] = {"ours": [], "open_clip": []}
    losses = {}
    commands = {"ours": our_command, "open_clip": open_clip_command}
    for turn in range(job.options.turns):
        for name in commands if turn % 2 == 0 else reversed(commands):
            took, losses[name] = commands[name](job, model, precision)
            walls[name].append(took["wall_s"])
            cpus[name].append(took["cpu_s"])
            print(f"{model} {precision}, {name}: whole command {took['wall_s']:.1f} s", file=sys.stderr)
    made: dict[str, Any] = {
        name: {"wall_s": round(statistics.median(walls[name]), 2), "cpu_s": round(statistics.median(cpus[name]), 2), "walls": walls[name]}
        for name in commands
    }
    for name in commands:
        made[name]["last_loss"] = round(losses[name], 4)
    made["wall_ratio"] = round(made["open_clip"]["wall_s"] / made["ours"]["wall_s"], 2)
    made["cpu_ratio"] = round(made["open_clip"]["cpu_s"] / made["ours"]["cpu_s"], 2)
    return made


def our_command(job: Job, model: str, precision: str) -> tuple[dict[str, float], float]:
    """Run `train clip`; return its seconds, and the loss it ends with."""
    folder = Path(tempfile.mkdtemp(dir=job.folder))
    config = job.ours(model, precision, str(folder), manifest=job.build, epochs=float(job.options.epochs))
    words = peer.flags(**{name: value for name, value in config.items() if name != "tensorboard"})
    took = timed_command([sys.executable, "-m", "train", "clip", *words, "--no-tensorboard"])
    last = (folder / "log.jsonl").read_text().splitlines()[-1]
    return took, json.loads(last)["loss"]


def open_clip_command(job: Job, model: str, precision: str) -> tuple[dict[str, float], float]:
    """Run open_clip's training command; return its seconds, and the loss it ends with."""
    folder = Path(tempfile.mkdtemp(dir=job.folder))
    shape = {"model": model, "train_data": "::".join(job.tars), "train_num_samples": job.options.samples, "dataset_type": "webdataset"}
    where = {"logs": str(folder), "name": "open_clip", "epochs": job.options.epochs, "log_every_n_steps": 1}
    flags = peer.flags(**shape, **where, **job.theirs(precision))
    took = timed_command([sys.executable, str(ROOT / "benchmarks" / "_open_clip.py"), *flags])
    losses = logged_losses(folder / "open_clip" / "out.log")
    return took, sum(losses[-LAST:]) / LAST


def timed_command(command: list[str]) -> dict[str, float]:
    """Run a command; return its wall seconds, and the processor seconds of it and all its processes (getrusage of children).

    Raises:
        SystemExit: it failed; its last lines are in the message.
    """
    with tempfile.TemporaryFile() as talk:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=talk, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        talk.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command[:4])} left with {process.returncode}:\n{talk.read().decode(errors='replace')[-2000:]}")
    return {"wall_s": round(wall, 2), "cpu_s": round(usage.ru_utime + usage.ru_stime, 2)}


def logged_losses(log: Path) -> list[float]:
    """Return the loss of each step in open_clip's log: `Loss: 4.1 (4.2)` is the step's, and the mean so far."""
    return [float(value) for value in re.findall(r"\bLoss: ([0-9.]+)", log.read_text())]


# Curves


def curve(job: Job, model: str, precision: str) -> dict[str, Any]:
    """Return how far the losses of `train clip` and of open_clip's loop are apart, with the same first weights and batches."""
    import torch

    from train import run
    from train.loop import train
    from train.tasks.clip import Config

    steps = min(job.options.steps, job.options.samples // job.options.batch)
    seen = steps * job.options.batch
    output = tempfile.mkdtemp(dir=job.folder)
    config = Config.from_flags(job.ours(model, precision, output, epochs=None, samples_seen=seen, log_every=1))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(config)
    ours = [json.loads(row)["loss"] for row in (Path(output) / "log.jsonl").read_text().splitlines()]
    made = run.build(config, torch.device("cpu"))  # the same seed: the first weights again
    trainer = peer.Trainer(model, steps=steps, weights=made.task.model.state_dict(), **job.theirs(precision))
    with contextlib.closing(fed(made)) as batches:  # type: ignore[type-var]
        theirs = trainer.train(peer.Stepped(batches, warm=0, steps=steps))
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    print(f"{model} {precision}, losses of each step apart: {[f'{value:.1e}' for value in apart]}", file=sys.stderr)
    return {"steps": steps, "ours": ours, "open_clip": theirs, "largest_difference": max(apart), "first_difference": apart[0]}


def fed(made: Any) -> Iterator[Any]:
    """Yield our loader's batches as open_clip's loop takes them: normalised images, and ids of the whole context."""
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        for batch in batches:
            yield made.trained.views(batch)[0], batch.tokens.long()


def line(values: dict[str, Any]) -> str:
    """Return the line of RESULTS.md."""
    parts = [f"{values['samples']:,} photos of {SHORT} px, batches of {values['batch']}, against open_clip's trainer (goal {GOAL:g}×)"]
    for name, run in values["runs"].items():
        told = []
        if "whole" in run:
            ours, theirs = run["whole"]["ours"], run["whole"]["open_clip"]
            ratios = f"{run['whole']['wall_ratio']:.2f}× ({run['whole']['cpu_ratio']:.2f}× by CPU-s)"
            told.append(f"whole command, {values['epochs']} epochs, {ours['wall_s']:.0f} s = {ratios}")
            told.append(f"last losses {ours['last_loss']:.2f} and {theirs['last_loss']:.2f}")
        if "steps" in run:
            rate = run["steps"]["ours"]
            told.append(f"steps with loading {rate['median']:,.0f} samples/s = {run['ratio']:.2f}× ({rate['rounds']} rounds in turns)")
            told += [f"{lever}: {share:.2f} of that" for lever, share in run["levers"].items()]
        if "curve" in run:
            apart = run["curve"]["largest_difference"]
            told.append(f"fed with the same batches the losses are at most {apart:.1e} apart in {run['curve']['steps']} steps")
        parts.append(f"{name}: " + ", ".join(told))
    return "; ".join(parts)


if __name__ == "__main__":
    main()
