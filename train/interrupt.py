"""Ctrl-C and SIGTERM: the first lets the step end and saves, the second ends at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from shards.core.console import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    """Handle both signals inside the block. Outside the main thread, where Python allows no handlers, nothing is handled."""
    interrupt = Interrupt()
    before = {}
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, interrupt._asked)
    except ValueError:
        before.clear()
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
