"""No workers: tasks run in this process, one after the other. For debugging and small sets; a crash ends the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from shards.core.engine import Done


def prepare(modules: Sequence[str]) -> None:
    """Nothing to prepare: this process imports what it needs."""


def run(
    fn: Callable[[Any], Any],
    specs: Iterable[Any],
    *,
    workers: int,
    split: Callable[[Any], list[Any]] | None,
    timeout: float | None,
) -> Iterator[Done[Any, Any]]:
    """Run tasks in order; see `shards.core.engine.map_unordered`. Workers, split and timeout have no meaning here."""
    del workers, split, timeout
    for spec in specs:
        yield Done(spec, fn(spec))
