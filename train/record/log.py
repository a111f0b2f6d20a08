"""What a training says: `log.jsonl`, TensorBoard, wandb, trackio, and one line of progress.

Only `write()` waits for the device. Losses stay tensors until a line is written; then all steps since the last line are
read at once and checked: a loss that is not a number stops the training there, with the uids of the batch that gave it.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from shards.core import fs
from shards.core.console import Progress, say, warn
from shards.core.errors import RunError
from train import distributed
from train.interrupt import is_line_due
from train.record import boards
from train.record.by_sample import means_by_source
from train.record.gradients import GradientNorms

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from train.config import TrainConfig
    from train.data.batch import Batch
    from train.record.by_sample import SampleLosses
    from train.step import Trained

T = TypeVar("T")
LOG, BAD_BATCH = "log.jsonl", "bad-batch.json"
SHOWN_BAD = 5  # undecodable samples that are named on the terminal; the checkpoint lists all


@dataclass
class _Step:
    step: int
    uids: Sequence[str]
    terms: dict[str, torch.Tensor]
    by_sample: torch.Tensor
    sources: NDArray[np.int64]
    positions: NDArray[np.int64]


class RunLog:
    """The log of one training. Every rank collects; rank 0 writes.

    `last` holds the means that the last line states, `unusable` the samples replaced and those without a caption.
    """

    def __init__(self, config: TrainConfig, start: int, steps: int, sources: Sequence[str], losses: SampleLosses | None = None) -> None:
        """Continue the folder's log from step `start`.

        Args:
            steps: the step to reach.
            sources: names of the sources.
            losses: takes the loss of each sample when a line is written.
        """
        self.config, self.start, self.steps, self.sources, self.losses = config, start, steps, sources, losses
        self.last: dict[str, float] = {}
        self.replaced = self.empty_captions = self.recoded = 0
        self._pending: list[_Step] = []
        self._replaced = self._empty = self._recoded = 0  # since the last line
        self._named = 0
        self._waited, self._since = 0.0, time.monotonic()
        self._flops = self._peak = 0.0
        self._norms = GradientNorms()
        self._lines: _Lines | None = None
        self._progress: Progress | None = None
        self._boards: list[boards.Board] = []
        if distributed.rank() == 0:
            self._lines = _Lines(fs.join(config.output, LOG), start)
            self._progress = Progress("train", steps * config.batch_size, done=start * config.batch_size)
            self._boards = boards.open_boards(config, start)

    @property
    def unusable(self) -> int:
        """Samples that were replaced or had no caption, each time they came."""
        return self.replaced + self.empty_captions

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

    def measure(self, flops_per_sample: float, peak: float) -> None:
        """Take what a sample costs and what the devices of one process can do, both in FLOP(/s), for the MFU."""
        self._flops, self._peak = flops_per_sample, peak * distributed.world_size()
        self._since, self._waited = time.monotonic(), 0.0  # what came before was no training

    @contextlib.contextmanager
    def paused(self, device: torch.device) -> Iterator[None]:
        """Stop the clock for what is no training, such as an evaluation; what the device has still to do counts before it."""
        import torch

        if device.type == "cuda":
            torch.cuda.synchronize(device)
        before = time.monotonic()
        yield
        self._since += time.monotonic() - before

    def gradients(self, trained: Trained, step: int) -> None:
        """Take note of the gradient's norms, between the backward pass and clipping."""
        self._norms.take(trained, every_layer=is_line_due(step + 1, self.config))

    def add(self, batch: Batch, terms: dict[str, torch.Tensor], by_sample: torch.Tensor) -> None:
        """Take note of a step's numbers, which stay where they are, and of samples that could not be used.

        Args:
            terms: scalars.
            by_sample: the loss of each of this rank's n samples, (n,); NaN where a sample has none.
        """
        numbers = {name: value.detach() for name, value in terms.items()}
        self._pending.append(_Step(batch.step, list(batch.uids), numbers, by_sample, batch.sources, batch.positions))
        self._replaced += batch.replaced
        self._empty += batch.empty_captions
        self._recoded += batch.recoded
        for sample in batch.bad:
            if self._named < SHOWN_BAD:
                warn(f"replaced: {sample.uid}: {sample.why}")
            elif self._named == SHOWN_BAD:
                warn("replaced: more samples; the checkpoint lists all under `bad`, and each line of the log counts them")
            self._named += 1
        if self._progress:
            self._progress.add(self.config.batch_size)

    def write(self, *, skips: bool = False, **more: Any) -> None:
        """Write one line about the steps since the last one: means of the terms, and `more`.

        Args:
            skips: a loss that is not finite stops nothing: GradScaler leaves its step out and lowers its scale.
            more: further numbers.

        Raises:
            RunError: a loss was not finite; `bad-batch.json` holds the step, counted from 1 as in the log, and the uids of that batch.
        """
        import torch

        if not self._pending:
            return
        names = list(self._pending[0].terms)
        table = torch.stack([torch.stack([at.terms[name].float() for name in names]) for at in self._pending])
        values: list[list[float]] = distributed.mean(table).tolist()
        losses = [column for column, name in enumerate(names) if name == "loss" or name.endswith("_loss")]
        for at, numbers in zip(self._pending, values, strict=True):
            # An infinite gradient norm is GradScaler's business, too, and stops nothing.
            if all(math.isfinite(numbers[column]) for column in losses):
                continue
            if not skips:
                self._refuse(at, dict(zip(names, numbers, strict=True)))
            elif distributed.rank() == 0:
                warn(f"step {at.step + 1}: a loss that is not finite; the step is left out, and the loss scale falls (amp)")
        means = {name: sum(column) / len(values) for name, column in zip(names, zip(*values, strict=True), strict=True)}
        self.last = means
        step = self._pending[-1].step + 1
        row: dict[str, Any] = {"step": step, "samples_seen": step * self.config.batch_size, **means, **more}
        row |= self._by_sample() | self._norms.row() | self._counts() | self._speed(len(values))
        self._put(row)
        self._pending = []

    def note(self, step: int, values: dict[str, Any]) -> None:
        """Write a line of its own: what an evaluation during training came to."""
        self._put({"step": step, "samples_seen": step * self.config.batch_size, **values})

    def _by_sample(self) -> dict[str, Any]:
        """Hand the losses by sample on, and return their means by source where there are several."""
        import numpy as np
        import torch

        if len(self.sources) == 1 and self.losses is None:
            return {}
        losses = torch.stack([at.by_sample for at in self._pending]).float().cpu().numpy()
        losses = np.where(np.isfinite(losses), losses, np.float32(np.nan))  # steps that amp left out say nothing of a sample
        sources = np.stack([at.sources for at in self._pending])
        if self.losses is not None:
            steps = [at.step + 1 for at in self._pending]
            self.losses.take(steps, sources, np.stack([at.positions for at in self._pending]), losses)
        return {"loss_by_source": means_by_source(self.sources, sources, losses)} if len(self.sources) > 1 else {}

    def _counts(self) -> dict[str, int]:
        """Return the samples replaced, without caption, and with one that is no UTF-8 since the last line, of all ranks."""
        counts = distributed.gather_objects((self._replaced, self._empty, self._recoded))
        replaced, empty, recoded = (sum(column) for column in zip(*counts, strict=True))
        self.replaced, self.empty_captions = self.replaced + replaced, self.empty_captions + empty
        self.recoded += recoded
        self._replaced = self._empty = self._recoded = 0
        return {"replaced": replaced} | ({"empty_captions": empty} if empty else {}) | ({"recoded_captions": recoded} if recoded else {})

    def _speed(self, steps: int) -> dict[str, float]:
        seconds = max(time.monotonic() - self._since, 1e-9)
        rate = steps * self.config.batch_size / seconds
        speed = {"samples_per_s": rate, "waiting": self._waited / seconds}
        if self._peak:
            speed["mfu"] = rate * self._flops / self._peak
        self._waited, self._since = 0.0, time.monotonic()
        return speed

    def _put(self, row: dict[str, Any]) -> None:
        if self._progress is None or self._lines is None:
            return
        self._lines.add(row)
        if "loss" in row:
            self._progress.what = f"step {row['step']:,}/{self.steps:,} loss {row['loss']:.3f}"
        for board in self._boards:
            board.add(row)

    def _refuse(self, at: _Step, terms: dict[str, float]) -> None:
        uids = [uid for part in distributed.gather_objects(list(at.uids)) for uid in part]
        stated = ", ".join(f"{name} {value}" for name, value in terms.items())
        if distributed.rank() == 0:
            fs.write_text(fs.join(self.config.output, BAD_BATCH), json.dumps({"step": at.step + 1, "uids": uids}) + "\n")
        shown = ", ".join(uids[:8]) + (f" and {len(uids) - 8} more, in {BAD_BATCH}" if len(uids) > 8 else "")
        raise RunError(
            f"step {at.step + 1}: not a number: {stated}; batch: {shown}",
            advice="--from an earlier checkpoint into a new --output, with a lower --lr, --grad-clip 1, or --precision fp32",
        )

    def say_counts(self) -> None:
        """Say how many samples could not be used, one line for each kind."""
        if distributed.rank() != 0:
            return
        if self.replaced:
            say(f"replaced: {self.replaced:,} samples that could not be decoded, each time they came (see `bad` in the checkpoint)")
        if self.empty_captions:
            say(f"empty captions: {self.empty_captions:,} samples were trained on with an empty caption, each time they came")
        if self.recoded:
            say(f"captions: {self.recoded:,} that are no UTF-8 were read as cp1252, each time they came")

    def close(self) -> None:
        """Print the last line of progress and flush the files."""
        if self._progress:
            self._progress.close()
        if self._lines:
            self._lines.flush()
        for board in self._boards:
            board.close()


class _Lines:
    """A file of JSON lines that a resumed training continues: lines of steps it will do again are dropped."""

    def __init__(self, path: str, start: int) -> None:
        self.path, self.remote = path, fs.is_remote(path)
        self.text = "".join(line for line in _whole_lines(path) if json.loads(line)["step"] <= start) if start else ""
        fs.write_text(path, self.text)

    def add(self, row: dict[str, Any]) -> None:
        line = json.dumps(finite(row), allow_nan=False) + "\n"
        if self.remote:  # there is no appending to an object store
            self.text += line
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise RunError(f"{self.path}: {error.strerror}", advice="more room, then the same command") from error

    def flush(self) -> None:
        if self.remote:
            fs.write_text(self.path, self.text)


def finite(value: Any) -> Any:
    """Return a value for JSON, which has no infinity and no NaN: null stands for them, in lists and dictionaries, too."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _whole_lines(path: str) -> list[str]:
    # A killed run may have left half a line.
    lines = fs.read_text(path).splitlines(keepends=True) if fs.exists(path) else []
    return [line for line in lines if line.endswith("}\n")]
