"""Local worker processes, supervised: a dead worker is replaced and its task divided.

Workers are forked off one clean process (multiprocessing's fork server), which has imported what the tasks need and
nothing else: no thread, no connection and no GPU of the supervisor's is in them, a worker starts in milliseconds, and the
imports are paid and held in memory once.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from shards.core import lean
from shards.core.engine import Done, Lost
from shards.core.errors import ProvenderError, RunError

_PROCESSES = multiprocessing.get_context("forkserver")
_HELLO = "started"
_NO_MEMORY = errno.ENOMEM  # exit code of a worker that ran out of memory
# What the fork server starts with. A safe path: a `numpy.py` in the working directory is no module of ours. One thread
# for linear algebra: workers are as many as cores, and a process with one thread forks cleanly.
_SERVER = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}


def prepare(modules: Sequence[str]) -> None:
    """Start the fork server, if none runs yet, and have it import these modules; returns at once."""
    forkserver.set_forkserver_preload(list(modules))
    with _server_terms():
        forkserver.ensure_running()


@contextlib.contextmanager
def _server_terms() -> Iterator[None]:
    """A fork server started in this block has its environment, and neither it nor its workers ever see Ctrl-C."""
    resource_tracker.ensure_running()  # it would unblock the signal
    own = {name: os.environ[name] for name in _SERVER if name in os.environ}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(_SERVER | own)
    try:
        yield
    finally:
        for name in _SERVER.keys() - own.keys():
            del os.environ[name]
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(connection: Connection, fn: Callable[[Any], Any]) -> None:
    """Answer specs with results until the supervisor hangs up; runs in the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    lean.spare_pandas()
    with contextlib.suppress(EOFError, ConnectionError):  # the supervisor has hung up: nobody waits for an answer
        connection.send(_HELLO)
        while True:
            answer = _answer(fn, connection.recv())
            try:
                connection.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                connection.send((False, RunError(f"a task's result cannot be sent: {error}", "a small picklable value")))


def _answer(fn: Callable[[Any], Any], spec: Any) -> tuple[bool, Any]:
    """Return whether a task went well, and its result or its exception."""
    try:
        return True, fn(spec)
    except MemoryError:
        os._exit(_NO_MEMORY)  # as good as killed: its task is divided, so that the one hungry sample is found
    except Exception as error:
        return False, _portable(error)


def _portable(error: Exception) -> Exception:
    """Return an exception that survives the way to another process, with the worker's traceback as a note."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:
        error = RunError(f"{type(error).__name__}: {error}")
    if not isinstance(error, ProvenderError):
        error.add_note(f"in a worker:\n{text}")
    return error


@dataclass(eq=False)
class _Worker:
    fn: Callable[[Any], Any]
    spec: Any = None
    busy: bool = False
    started: bool = False
    deadline: float | None = None
    connection: Connection = field(init=False)
    process: Any = field(init=False)

    def __post_init__(self) -> None:
        self.connection, theirs = _PROCESSES.Pipe()
        self.process = _PROCESSES.Process(target=_serve, args=(theirs, self.fn), daemon=True)
        with _server_terms():
            self.process.start()
        theirs.close()

    def give(self, spec: Any, timeout: float | None) -> None:
        self.spec, self.busy = spec, True
        self.deadline = None if timeout is None else time.monotonic() + timeout
        # A worker that died while idle shows itself on the next receive.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(spec)

    def late(self) -> bool:
        return self.busy and self.deadline is not None and time.monotonic() > self.deadline

    def stop(self) -> None:
        self.connection.close()
        self.process.join(timeout=0 if self.busy else 2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def why_dead(self) -> str:
        self.process.join(timeout=5)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"worker killed by {signal.Signals(-code).name}"
        return "worker ran out of memory" if code == _NO_MEMORY else f"worker left with exit code {code}"


def run(
    fn: Callable[[Any], Any],
    specs: Iterable[Any],
    *,
    workers: int,
    split: Callable[[Any], list[Any]] | None,
    timeout: float | None,
) -> Iterator[Done[Any, Any] | Lost[Any]]:
    """Run tasks in local processes; see `shards.core.engine.map_unordered`."""
    source, again = iter(specs), deque[Any]()
    crew: list[_Worker] = []
    nothing = object()

    def following() -> Any:
        return again.popleft() if again else next(source, nothing)

    try:
        for _ in range(max(1, workers)):
            if (spec := following()) is nothing:
                break
            crew.append(_Worker(fn))
            crew[-1].give(spec, timeout)
        while any(w.busy for w in crew):
            for worker in _ready(crew):
                outcome = _receive(worker)
                if outcome is None:
                    continue
                if isinstance(outcome, Done):
                    yield outcome
                else:
                    worker.stop()
                    crew[crew.index(worker)] = _Worker(fn)
                    parts = split(worker.spec) if split else []
                    if len(parts) > 1:
                        again.extend(parts)
                    else:
                        yield outcome
                for idle in [w for w in crew if not w.busy]:
                    if (spec := following()) is nothing:
                        break
                    idle.give(spec, timeout)
    finally:
        for worker in crew:
            worker.stop()


def _ready(crew: list[_Worker]) -> list[_Worker]:
    """Wait until a worker has answered, died or overrun its time."""
    busy = [w for w in crew if w.busy]
    limits = [w.deadline for w in busy if w.deadline is not None]
    patience = max(0.0, min(limits) - time.monotonic()) if limits else None
    ready = set(wait([w.connection for w in busy], patience))
    return [w for w in busy if w.connection in ready or w.late()]


def _receive(worker: _Worker) -> Done[Any, Any] | Lost[Any] | None:
    """Return what became of a worker's task, or None where the worker has only said that it is there.

    Raises:
        RunError: the worker cannot start at all: no task of it is to blame.
    """
    if worker.late() and not worker.connection.poll():
        worker.process.kill()
        return Lost(worker.spec, "ran out of time")
    try:
        answer = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        why = worker.why_dead()
        if not worker.started:
            advice = "in a script of your own, start work under `if __name__ == '__main__':`"
            raise RunError(f"a worker process cannot start ({why})", advice=advice) from None
        return Lost(worker.spec, why)
    if answer == _HELLO:
        worker.started = True
        return None
    worker.busy = False
    fine, value = answer
    if not fine:
        raise value
    return Done(worker.spec, value)


def default_workers() -> int:
    """Return the number of cores this process may use."""
    if (count := len(os.sched_getaffinity(0))) < 1:
        raise RunError("this process may not run on any core")
    return count
