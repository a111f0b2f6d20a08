"""What a training says: `log.jsonl`, TensorBoard, and one line of progress. Nothing here waits for the device but `write`.

Losses stay tensors until a line is written, when all steps since the last line are read at once, and checked:
a loss that is not a number stops the training there, with the uids of the batch that gave it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from shards.core import fs
from shards.core.console import Progress
from shards.core.errors import RunError
from train import distributed

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
LOG, TENSORBOARD, BAD_BATCH = "log.jsonl", "tensorboard", "bad-batch.json"


@dataclass
class _Step:
    step: int
    uids: Sequence[str]
    terms: dict[str, torch.Tensor]


@dataclass
class RunLog:
    """The log of one training. Every rank collects; rank 0 writes.

    `samples` is the size of the global batch, `start` the first step to come, `steps` the step to reach.
    """

    folder: str
    start: int
    steps: int
    samples: int
    tensorboard: bool = True
    last: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pending: list[_Step] = []
        self._waited, self._since = 0.0, time.monotonic()
        self._lines: _Lines | None = None
        self._progress: Progress | None = None
        self._board: Any = None
        if distributed.rank() == 0:
            self._lines = _Lines(fs.join(self.folder, LOG), self.start)
            self._progress = Progress("train", (self.steps - self.start) * self.samples)
            self._board = self._open_board()

    def _open_board(self) -> Any:
        if not self.tensorboard or fs.is_remote(self.folder):
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(fs.join(self.folder, TENSORBOARD), purge_step=self.start)

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield what is yielded, adding up the time spent waiting for it."""
        while True:
            before = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.monotonic() - before
            yield batch

    def add(self, step: int, uids: Sequence[str], terms: dict[str, torch.Tensor]) -> None:
        """Take note of a step's numbers, which stay where they are."""
        self._pending.append(_Step(step, uids, {name: value.detach() for name, value in terms.items()}))
        if self._progress:
            self._progress.add(self.samples)

    def write(self, **more: Any) -> None:
        """Write one line about the steps since the last one: means of the terms, and `more`.

        Raises:
            RunError: a loss was not finite; `bad-batch.json` holds the uids of that batch.
        """
        import torch

        names = list(self._pending[0].terms)
        table = torch.stack([torch.stack([s.terms[n].float() for n in names]) for s in self._pending])
        values: list[list[float]] = distributed.mean(table).tolist()
        for at, row in zip(self._pending, values, strict=True):
            if not all(map(math.isfinite, row)):
                self._refuse(at, dict(zip(names, row, strict=True)))
        means = {name: sum(column) / len(values) for name, column in zip(names, zip(*values, strict=True), strict=True)}
        self.last = dict(zip(names, values[-1], strict=True))
        seconds = max(time.monotonic() - self._since, 1e-9)
        step = self._pending[-1].step + 1
        speed = {"samples_per_s": len(values) * self.samples / seconds, "waiting": self._waited / seconds}
        self._put({"step": step, "samples_seen": step * self.samples, **means, **more, **speed})
        self._pending, self._waited, self._since = [], 0.0, time.monotonic()

    def _put(self, row: dict[str, Any]) -> None:
        if self._progress is None or self._lines is None:
            return
        self._lines.add(row)
        self._progress.what = f"step {row['step']:,}/{self.steps:,} loss {row['loss']:.3f}"
        if self._board:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, row["step"])

    def _refuse(self, at: _Step, terms: dict[str, float]) -> None:
        uids = [uid for part in distributed.gather_objects(list(at.uids)) for uid in part]
        found = ", ".join(f"{name} {value}" for name, value in terms.items())
        if distributed.rank() == 0:
            fs.write_text(fs.join(self.folder, BAD_BATCH), json.dumps({"step": at.step, "uids": uids}) + "\n")
        shown = ", ".join(uids[:8]) + (f" and {len(uids) - 8} more, in {BAD_BATCH}" if len(uids) > 8 else "")
        raise RunError(f"step {at.step}: not a number: {found}; batch: {shown}", advice="a lower --lr, --grad-clip 1, or --precision fp32")

    def close(self) -> None:
        """Print the last line of progress and flush the files."""
        if self._progress:
            self._progress.close()
        if self._lines:
            self._lines.flush()
        if self._board:
            self._board.close()


class _Lines:
    """A file of JSON lines that a resumed training continues: lines of steps it will do again are dropped."""

    def __init__(self, path: str, start: int) -> None:
        self.path, self.remote = path, fs.is_remote(path)
        self.text = "".join(line for line in _whole_lines(path) if json.loads(line)["step"] <= start) if start else ""
        fs.write_text(path, self.text)

    def add(self, row: dict[str, Any]) -> None:
        line = json.dumps(row) + "\n"
        if self.remote:  # there is no appending to an object store
            self.text += line
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line)

    def flush(self) -> None:
        if self.remote:
            fs.write_text(self.path, self.text)


def _whole_lines(path: str) -> list[str]:
    # A killed run may have left half a line.
    lines = fs.read_text(path).splitlines(keepends=True) if fs.exists(path) else []
    return [line for line in lines if line.endswith("}\n")]
