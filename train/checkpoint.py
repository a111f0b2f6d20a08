"""A checkpoint is (seed, step), weights, optimiser state and the samples that cannot be used: all that the next step depends on.

Weights stand under `state_dict`, in open_clip's names where the model is open_clip's, so that other tools load them; heads,
teacher and optimiser stand beside them. It also says what it was made from: digests of the manifests, the resolved
configuration and the checkpoint it started from. Resuming with others is refused. Files hold tensors and plain values only,
so that they load with `weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from shards.core import fs
from shards.core.errors import RunError, TornFileError, UsageError, closest
from train.config import INCIDENTAL, TrainConfig

NAME, BEST = "checkpoint.pt", "best.pt"
FORMAT, FORMAT_VERSION = "provender-checkpoint", 2


def path_in(path: str) -> str:
    """Return the checkpoint that a path means: the file itself, or the last one of an output folder."""
    return fs.join(path, NAME) if fs.is_dir(path) else path


def save(folder: str, state: dict[str, Any], keep: int = 0, name: str = NAME) -> str:
    """Write a checkpoint over the last one, atomically, and return its path.

    Args:
        keep: how many numbered checkpoints (`checkpoint-STEP.pt`) to leave beside the last: the newest of them has the same
            step as the last, so that `keep` − 1 are older.

    Raises:
        RunError: the disk is full or fails; the checkpoint of before is whole.
    """
    state = {"format": FORMAT, "format_version": FORMAT_VERSION, **state}
    names = [name] + ([f"checkpoint-{state['step']:09d}.pt"] if keep and name == NAME else [])
    for each in reversed(names):
        _write(fs.join(folder, each), state, fs.join(folder, name))
    there = fs.names(folder)
    torn = [n for n in there if n.startswith((".checkpoint", ".best")) and ".pt.tmp-" in n]  # of runs killed while saving
    numbered = [n for n in there if n.startswith("checkpoint-") and n.endswith(".pt")]
    for each in torn + (numbered[:-keep] if keep else []):
        fs.remove(fs.join(folder, each))
    return fs.join(folder, name)


class _Watched:
    """A file that remembers why writing failed: torch turns every such error into one about zip positions."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _write(path: str, state: dict[str, Any], before: str) -> None:
    """Write a file, or say what became of the checkpoint `before` it."""
    import torch

    watched: _Watched | None = None
    try:
        with fs.atomic_write(path) as file:
            watched = _Watched(file)
            torch.save(state, watched)  # type: ignore[arg-type]  # it writes and flushes, which is all that is asked of it
    except (OSError, RuntimeError) as error:
        cause = watched.error if watched is not None and watched.error is not None else error
        if not isinstance(cause, OSError):
            raise
        left = f"the checkpoint of before, {before}, is whole" if fs.exists(before) else "there is no earlier checkpoint"
        reason = cause.strerror or type(cause).__name__
        raise RunError(
            f"{path}: {reason}, while saving step {state['step']:,}; {left}", advice="more room, then the same command"
        ) from error


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
    with fs.open_read(path) as file:
        head = file.read(4096)
    if not head.startswith(b"PK"):  # a zip archive, as torch.save writes it; torch may take a text for a pickle and fail anyhow
        from train.models.files import describe

        raise UsageError(f"{path}: {describe(head)}", "a checkpoint written by `train`")
    try:
        with fs.open_read(path) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        advice = "an earlier checkpoint (--keep N)"
        raise TornFileError(f"{path}: not a whole checkpoint", "a file that was written to its end", advice) from error
    return checked(path, state)


def checked(path: str, state: Any) -> dict[str, Any]:
    """Return a file's content, if it is a checkpoint of ours.

    Raises:
        UsageError: it is not, or it is of another version of the format.
    """
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path}: not a checkpoint of ours", f'"format": "{FORMAT}"', "--from takes weights of other tools")
    if state["format_version"] != FORMAT_VERSION:
        raise UsageError(f"{path}: format version {state['format_version']}", str(FORMAT_VERSION))
    return state


def lineage(state: dict[str, Any]) -> dict[str, Any]:
    """Return what a later training remembers of a checkpoint that it starts from: the task, the data and how much of them was seen."""
    names = ("manifests", "step", "samples_seen", "parent")
    return {"task": state["task"], "model": state["config"]["model"], **{name: state[name] for name in names}}


def check(path: str, state: dict[str, Any], config: TrainConfig, manifests: list[dict[str, Any]]) -> None:
    """Refuse a checkpoint that another training made.

    Raises:
        UsageError: saying which field, or whose manifest, differs.
    """
    was, now = state["config"], config.essence()
    known = {key: value for key, value in was.items() if key in now or key not in INCIDENTAL}
    changed = _differences(known, now)
    if state["manifests"] != manifests:
        changed.append(f"data: {_words(state['manifests'])} then, {_words(manifests)} now")
    if changed:
        advice = f"the same data and settings resume it; --from {path} --output NEW starts a new training from its weights; "
        advice += "--resume never starts anew over it"
        if state["manifests"] != manifests:
            advice += "; a build from which samples were taken down is other data, in another order"
        raise UsageError(f"{path} is of another training: {'; '.join(changed)}", advice=advice)


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line for each value that differs, with the path of its keys, such as `augment.scale`."""
    lines = []
    for key in [*now, *(key for key in was if key not in now)]:
        then, today = was.get(key), now.get(key)
        if isinstance(then, Mapping) and isinstance(today, Mapping):
            lines += _differences(then, today, f"{prefix}{key}.")
        elif key not in now:
            lines.append(f"{prefix}{key}: {then!r} then, unknown now")
        elif then != today:
            lines.append(f"{prefix}{key}: {then!r} then, {today!r} now")
    return lines


def task_of(state: dict[str, Any]) -> str:
    """Return the name of the task that a checkpoint was trained by."""
    return str(state["task"])


def check_task(path: str, state: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse a checkpoint of a task that cannot serve.

    Raises:
        UsageError: naming both.
    """
    if task_of(state) not in allowed:
        raise UsageError(f"{path}: a checkpoint of {task_of(state)}", ", ".join(allowed), closest(task_of(state), allowed))


def _words(manifests: list[dict[str, Any]]) -> str:
    described = []
    for manifest in manifests:
        weight = "" if manifest["weight"] is None else f"@{manifest['weight']:g}"
        described.append(f"{manifest['digest'][:12]}{weight} ({manifest['samples']:,} samples)")
    return ", ".join(described)
