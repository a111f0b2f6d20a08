"""A measuring task that dies at one picture, as a decoder with a bug would."""

from __future__ import annotations

import os
import signal

from curate.measure import MeasureTask, Part, measure_part


def measure_or_die(task: MeasureTask) -> Part:
    """Measure, but be killed where the task holds row 7."""
    if task.start <= 7 < task.stop:
        os.kill(os.getpid(), signal.SIGKILL)
    return measure_part(task)
