"""A checkpoint is (seed, step), weights, optimiser state and the replaced samples: all that the next step depends on.

It also says what it was made from: digests of the manifests and the resolved configuration. Resuming with others is
refused. Files hold tensors and plain values only, so that they load with `weights_only=True`.
"""

from __future__ import annotations

from typing import Any

from shards.core import fs
from shards.core.errors import TornFileError, UsageError
from train.config import INCIDENTAL, TrainConfig

NAME = "checkpoint.pt"
FORMAT, FORMAT_VERSION = "provender-checkpoint", 1


def path_in(path: str) -> str:
    """Return the checkpoint that a path means: the file itself, or the last one of an output folder."""
    return fs.join(path, NAME) if fs.is_dir(path) else path


def save(folder: str, state: dict[str, Any], keep: int = 0) -> str:
    """Write a checkpoint over the last one, atomically, and return its path.

    Args:
        keep: how many numbered checkpoints (`checkpoint-STEP.pt`) to leave beside it, this one included.
    """
    import torch

    state = {"format": FORMAT, "format_version": FORMAT_VERSION, **state}
    names = [NAME] + ([f"checkpoint-{state['step']:09d}.pt"] if keep else [])
    for name in reversed(names):
        with fs.atomic_write(fs.join(folder, name)) as file:
            torch.save(state, file)
    there = fs.names(folder)
    torn = [n for n in there if n.startswith(".checkpoint") and ".pt.tmp-" in n]  # of runs killed while saving
    numbered = [n for n in there if n.startswith("checkpoint-") and n.endswith(".pt")]
    for name in torn + (numbered[:-keep] if keep else []):
        fs.remove(fs.join(folder, name))
    return fs.join(folder, NAME)


def read(path: str) -> dict[str, Any]:
    """Return a checkpoint's content, its tensors on the CPU.

    Raises:
        UsageError: there is none, or it is of another format.
        TornFileError: it cannot be read to its end.
    """
    import pickle

    import torch

    if not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"no checkpoint at {path!r}", "a checkpoint file, or the output folder of `train`")
    try:
        with fs.open_read(path) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TornFileError(f"{path}: not a whole checkpoint: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path}: not a checkpoint of ours", f'"format": "{FORMAT}"')
    if state["format_version"] != FORMAT_VERSION:
        raise UsageError(f"{path}: format version {state['format_version']}", str(FORMAT_VERSION))
    return state


def check(path: str, state: dict[str, Any], config: TrainConfig, manifests: list[dict[str, Any]]) -> None:
    """Refuse a checkpoint that another training made.

    Raises:
        UsageError: saying which field, or whose manifest, differs.
    """
    was, now = state["config"], config.essence()
    changed = [f"{key}: {was.get(key)!r} then, {now[key]!r} now" for key in now if was.get(key) != now[key]]
    changed += [f"{key}: {was[key]!r} then, unknown now" for key in was if key not in now and key not in INCIDENTAL]
    if state["manifests"] != manifests:
        changed.append(f"data: {_words(state['manifests'])} then, {_words(manifests)} now")
    if changed:
        advice = "the same data and settings resume it; --resume never starts anew, another --output leaves it alone"
        if state["manifests"] != manifests:
            advice += "; a build from which samples were taken down is other data, in another order"
        raise UsageError(f"{path} is of another training: {'; '.join(changed)}", advice=advice)


def _words(manifests: list[dict[str, Any]]) -> str:
    weights = {True: lambda m: "", False: lambda m: f"@{m['weight']:g}"}
    return ", ".join(f"{m['digest'][:12]}{weights[m['weight'] is None](m)} ({m['samples']:,} samples)" for m in manifests)
