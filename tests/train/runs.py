"""Small trainings for the tests of the loop: two models of few parameters, configurations, and what a run leaves behind.

Run as a program it is the command `train` with these models known: `python -m tests.train.runs clip --manifest …`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from shards.core import registry
from train import run
from train.config import TrainConfig
from train.data.batch import Batch
from train.models.towers import open_clip
from train.run import Run

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
CPU = torch.device("cpu")
TASKS = ("clip", "simclr", "slip", "supervised", "byol")

_TEXT = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
_MODELS = {
    "micro-rn": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "micro-vit": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
}
_HEADS = {
    "simclr": {"mlp_hidden": 32, "mlp_out": 16},
    "byol": {"mlp_hidden": 32, "mlp_out": 16},
    "slip": {"ssl_mlp_dim": 32, "ssl_emb_dim": 16},
}


def know_models(folder: Path) -> None:
    """Make the two models known to open_clip, as a user does with a configuration of his own."""
    library = open_clip()
    for name, vision in _MODELS.items():
        if name not in library.list_models():
            file = folder / f"{name}.json"
            file.write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": _TEXT}))
            library.add_model_config(file)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: sums have one order, and tests do not wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def config(task: str, build: str, output: Path | str, **values: Any) -> TrainConfig:
    """Return the configuration of a small training, 2 epochs of batches of 16 by threads of this process."""
    small = {"model": "micro-rn", "batch_size": 16, "epochs": 2.0, "lr": 2e-3, "log_every": 4, "workers": 1, "json": True}
    here = {"loader": "threads", "device": "cpu", "tensorboard": False}
    if "samples_seen" in values:
        small["epochs"] = None
    module: Any = registry.get("train.tasks", task)
    flags = {"manifest": (build,), "output": str(output), **small, **here, **_HEADS.get(task, {}), **values}
    return module.Config.from_flags(flags)


def untrained_clip(folder: Path, model: str, **changes: Any) -> str:
    """Write a checkpoint of an untrained CLIP by train's own code, and return its path; changes replace what it says."""
    from shards.core.config import dump
    from train import checkpoint
    from train.models.load import build_model
    from train.tasks.clip import Config

    torch.manual_seed(0)
    state = {
        "task": "clip",
        "ema": None,
        "heads": {},
        "parent": None,
        "state_dict": build_model(model).state_dict(),
        "step": 0,
        "samples_seen": 0,
        "manifests": [],
        "config": dump(Config(model=model).essence()),
    }
    return checkpoint.save(str(folder), {**state, **changes})


def built(task: str, build: str, **values: Any) -> tuple[Run, Batch]:
    """Return the parts of a training on the CPU, and its first batch."""
    made = run.build(config(task, build, "unused", **values), CPU)
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        return made, next(batches)


def state(output: Path, name: str = "checkpoint.pt") -> dict[str, Any]:
    """Return what a training saved."""
    return torch.load(output / name, weights_only=True)


def tensors(output: Path, name: str = "checkpoint.pt") -> dict[str, torch.Tensor]:
    """Return the weights and buffers of model and heads that a training saved."""
    saved = state(output, name)
    return {f"model.{key}": value for key, value in saved["state_dict"].items()} | {
        f"heads.{key}": value for key, value in saved["heads"].items() if isinstance(value, torch.Tensor)
    }


def same_bits(first: Path, second: Path) -> bool:
    """Return whether two trainings ended with the same weights, buffers and moments of the optimiser."""
    ours, theirs = tensors(first), tensors(second)
    moments = [state(path)["optimizer"]["state"] for path in (first, second)]
    equal = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    for number, values in moments[0].items():
        equal &= all(torch.equal(value, moments[1][number][name]) for name, value in values.items())
    return equal


def lines(output: Path) -> list[dict[str, Any]]:
    """Return the lines of a training's log."""
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def write_tars(folder: Path, members: Callable[[int, bytes, str], dict[str, bytes]], n: int = 16, per_tar: int = 8) -> str:
    """Write tars as other tools do, without manifest or sidecar; `members` returns {extension: bytes} of a sample."""
    from tests.conftest import draw

    folder.mkdir()
    for start in range(0, n, per_tar):
        with tarfile.open(folder / f"{start // per_tar:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(start, min(n, start + per_tar)):
                jpeg, caption, _ = draw(i)
                for extension, content in members(i, jpeg, caption).items():
                    info = tarfile.TarInfo(f"s{i:06d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return str(folder)


def start(arguments: list[str], talk: Path, before: Callable[[], None] | None = None) -> int:
    """Run the command in a fork of this process, which has imported everything already, and return its process id."""
    from train import cli

    child = os.fork()
    if child:
        return child
    with talk.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 99
    try:
        if before is not None:
            before()
        code = cli.main(arguments)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a child and return its exit code, the negative number of the signal if one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(output: Path, step: int, child: int) -> None:
    """Wait until a child has logged a step; give up after a minute.

    Raises:
        RuntimeError: it took too long, or the child is gone.
    """
    deadline = time.monotonic() + 60
    log = output / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= step):
        if time.monotonic() > deadline or os.waitpid(child, os.WNOHANG) != (0, 0):
            raise RuntimeError(f"step {step} never came")
        time.sleep(0.002)


def stop(arguments: list[str], talk: Path, output: Path, step: int, number: signal.Signals, delay: float = 0.0) -> int:
    """Start a command, signal it some seconds after it has logged a step, and return its exit code."""
    child = start(arguments, talk)
    wait_for(output, step, child)
    time.sleep(delay)
    os.kill(child, number)
    return ended(child)


if __name__ == "__main__":
    import tempfile

    from train.cli import main

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as models:
        know_models(Path(models))
        sys.exit(main())
