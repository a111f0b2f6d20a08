"""Measuring tasks that die at one picture, as a decoder with a bug would let them: each where it holds row 7."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from curate.measure import MeasureTask, Part, measure_part


def _poisonous(task: MeasureTask) -> bool:
    return task.start <= 7 < task.stop


def measure_or_die(task: MeasureTask) -> Part:
    """Measure, but be killed, as by the kernel when memory is short."""
    if _poisonous(task):
        os.kill(os.getpid(), signal.SIGKILL)
    return measure_part(task)


def measure_or_crash(task: MeasureTask) -> Part:
    """Measure, but read where nothing is."""
    if _poisonous(task):
        ctypes.string_at(0)
    return measure_part(task)


def measure_or_starve(task: MeasureTask) -> Part:
    """Measure, but ask for more and more memory, beyond a limit of 64 MiB over what there is."""
    if _poisonous(task):
        with open("/proc/self/statm") as file:
            limit = int(file.read().split()[0]) * resource.getpagesize() + 64 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        hoard = []
        while True:
            hoard.append(bytearray(2**20))
    return measure_part(task)


def kill_once(mark: str) -> str:
    """Be killed the first time, for no fault of the task's."""
    if not os.path.exists(mark):
        with open(mark, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    return mark
