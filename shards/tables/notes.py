"""What reading has changed or passed over, counted by kind: a line for each kind is said when a command ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from shards.tally import Tally

LONGEST_EXAMPLE = 60  # characters of a text that stands as an example
_open: ContextVar[Tally | None] = ContextVar("notes", default=None)


def note(kind: str, example: str = "", count: int = 1) -> None:
    """Count something of `kind` that was changed or passed over; without a `noting` block around it, nothing happens."""
    tally = _open.get()
    if tally is not None:
        tally.add(kind, repr(example[:LONGEST_EXAMPLE]), count)


@contextmanager
def noting() -> Iterator[Tally]:
    """Collect what the block notes. Of nested blocks the inner one takes all: what a first look notes is thrown away with its tally."""
    tally = Tally()
    token = _open.set(tally)
    try:
        yield tally
    finally:
        _open.reset(token)
