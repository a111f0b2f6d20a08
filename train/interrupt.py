"""When a training writes, evaluates, saves and ends: by steps, by the clock, and by Ctrl-C and SIGTERM.

The first signal lets the step end and saves, the second ends at once.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from shards.core.console import say
from shards.core.interrupt import handling
from train import distributed

if TYPE_CHECKING:
    import torch

    from train.config import TrainConfig


class Interrupt:
    """Which signal asked for an end, if one did; 0 if none."""

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """What the shell expects of a process that a signal ended: 130 or 143."""
        return 128 + self.signal

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            # The second time: no handler of ours stands in the way.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number
        with contextlib.suppress(RuntimeError):  # the signal came while stderr was being written to, which cannot be entered twice
            say(f"{signal.Signals(number).name}: saving after this step; once more ends at once")


@contextlib.contextmanager
def handled() -> Iterator[Interrupt]:
    """Note the first signal inside the block, and end at the second."""
    interrupt = Interrupt()
    with handling(interrupt._asked):
        yield interrupt


@dataclass(frozen=True)
class Due:
    """What is to be done after a step: a line of the log, an evaluation, a checkpoint, the end."""

    line: bool
    evaluation: bool
    checkpoint: bool
    end: bool


def is_line_due(step: int, config: TrainConfig) -> bool:
    """Return whether a line of the log is due after so many steps, whatever else is."""
    return step % config.log_every == 0


class Timetable:
    """Says what is due after each step, the same on all processes."""

    def __init__(self, config: TrainConfig, steps: int, device: torch.device, interrupt: Interrupt) -> None:
        """Start the clock of the first checkpoint; `steps` is where the training ends."""
        self.config, self.steps, self.device, self.interrupt = config, steps, device, interrupt
        self._saved_at = time.monotonic()

    def after(self, step: int) -> Due:
        """Return what is due once `step` steps are done. Every process calls it after each of its steps.

        A signal may reach one process of several, and each has a clock of its own. They agree on both where a line of the
        log is due, since there they wait for each other anyway; a single process looks after every step.
        """
        config = self.config
        has_line = is_line_due(step, config)
        stops = is_late = False
        if has_line or distributed.world_size() == 1:
            stops = distributed.barrier_any(bool(self.interrupt), self.device)
            is_late = distributed.barrier_any(self._is_late(), self.device)
        is_last = step == self.steps
        end = is_last or stops
        checkpoint = end or is_late or step % config.checkpoint_every == 0
        evaluation = is_last or step % config.eval_every == 0
        return Due(line=has_line or checkpoint, evaluation=evaluation, checkpoint=checkpoint, end=end)

    def _is_late(self) -> bool:
        """Return whether this process's last checkpoint is longer ago than the configuration allows."""
        minutes = self.config.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes

    def saved(self) -> None:
        """Start the clock of the next checkpoint."""
        self._saved_at = time.monotonic()
