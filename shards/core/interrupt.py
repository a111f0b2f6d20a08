"""Ctrl-C and SIGTERM, for every command: the first one unwinds what runs, the second one ends at once.

Unwinding keeps what was done: a file is whole or absent, a lock is given back, and workers leave with their supervisor.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has asked for an end."""


class Asked:
    """Which signal has asked for an end; 0 if none has."""

    number = 0

    @property
    def exit_code(self) -> int:
        """What the shell expects of a process that a signal ended: 130 or 143."""
        return 128 + self.number

    def stop(self, number: int, frame: FrameType | None) -> NoReturn:
        """Handle the first signal; those that follow have no handler any more.

        Raises:
            Interrupted: always, wherever the main thread is.
        """
        self.number = number
        for signal_number in SIGNALS:
            signal.signal(signal_number, signal.SIG_DFL)
        raise Interrupted(signal.Signals(number).name)


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function handle both signals inside the block. Outside the main thread, where Python allows no handlers, nothing is handled."""
    before = {}
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, handler)
    except ValueError:
        before.clear()
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def handled() -> Iterator[Asked]:
    """Unwind at the first signal inside the block, and end at the second."""
    asked = Asked()
    with handling(asked.stop):
        yield asked
