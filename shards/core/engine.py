"""`map_unordered` is the only way work is spread.

A task is a pure function of a small spec; its result is small; bytes go from storage to storage. The function
must be importable by name (a worker has nothing of the caller's memory).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shards.core import registry

S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True)
class Done(Generic[S, R]):
    """A task that returned."""

    spec: S
    result: R


@dataclass(frozen=True)
class Lost(Generic[S]):
    """A task whose worker died twice or overran its time, and that could not be split any further."""

    spec: S
    reason: str


def prepare(modules: Sequence[str], *, engine: str = "local") -> None:
    """Tell an engine which modules its tasks will import, so that it loads them while the caller is still busy.

    Only speed depends on it: a module that is not named, or not found, is imported by the task that needs it.
    """
    registry.get("shards.core.engines", engine).prepare(modules)


def map_unordered(
    fn: Callable[[S], R],
    specs: Iterable[S],
    *,
    workers: int = 1,
    engine: str = "local",
    split: Callable[[S], list[S]] | None = None,
    timeout: float | None = None,
) -> Iterator[Done[S, R] | Lost[S]]:
    """Run `fn` over `specs` and yield outcomes as they come.

    Args:
        fn: a module-level function.
        specs: consumed lazily, a few ahead of the workers.
        workers: number of worker processes.
        engine: a file name in `shards/core/engines`.
        split: divides the spec of a task whose worker died; the parts are tried again. What cannot be divided (one part or
            none, or no `split`) is tried once more, and is reported as `Lost` when its worker dies again.
        timeout: seconds a task may take; a worker that overruns is killed and treated as dead, but its task not tried again whole.

    An exception raised by `fn` ends the map and is raised here: it is a fault of the run, not of a sample.
    """
    if plugins := registry.given():
        fn = functools.partial(registry.with_given, plugins, fn)
    run = registry.get("shards.core.engines", engine).run
    yield from run(fn, specs, workers=workers, split=split, timeout=timeout)
