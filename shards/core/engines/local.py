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
import sys
import threading
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
_OVERRAN = "ran out of time"
_GRACE = 2.0  # seconds that workers have to leave by themselves, so that no half-written file stays behind
_SWALLOWED = 0.01  # seconds until a worker whose destructor swallowed the request to leave is asked again
# What the fork server starts with. A safe path: a `numpy.py` in the working directory is no module of ours. One thread
# for linear algebra: workers are as many as cores, and a process with one thread forks cleanly.
_SERVER = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}
# And the tracker of semaphores: it cleans up after workers that had to leave, which is no news to anybody.
_TRACKER = {"PYTHONWARNINGS": "ignore:resource_tracker"}


def prepare(modules: Sequence[str]) -> None:
    """Start the fork server, if none runs yet, and have it import these modules; returns at once."""
    forkserver.set_forkserver_preload(list(modules))
    with _server_terms():
        forkserver.ensure_running()


@contextlib.contextmanager
def _server_terms() -> Iterator[None]:
    """A fork server started in this block has its environment, and neither it nor its workers ever see Ctrl-C."""
    with _environment(_TRACKER):
        resource_tracker.ensure_running()  # it would unblock the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment(_SERVER):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Processes started in this block have these variables, but for those that are set already."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


class _Leave(BaseException):
    """The supervisor wants this worker to leave its task."""


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows takes half-written files away
    raise _Leave


def _leave_again(ignored: sys.UnraisableHookArgs) -> None:
    """Ask once more where a destructor or a weak reference's callback has swallowed the request to leave."""
    if ignored.exc_type is not _Leave:
        sys.__unraisablehook__(ignored)
        return
    signal.signal(signal.SIGTERM, _leave)
    threading.Timer(_SWALLOWED, os.kill, (os.getpid(), signal.SIGTERM)).start()


def _serve(connection: Connection, fn: Callable[[Any], Any]) -> None:
    """Answer specs with results until the supervisor hangs up, or asks to leave; runs in the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    try:
        sys.unraisablehook = _leave_again
        signal.signal(signal.SIGTERM, _leave)  # until here a signal ends the worker without a word
        threading.Thread(target=_follow, daemon=True).start()
        lean.spare_pandas()
        with contextlib.suppress(EOFError, ConnectionError):  # the supervisor has hung up: nobody waits for an answer
            connection.send(_HELLO)
            while True:
                answer = _answer(fn, connection.recv())
                try:
                    connection.send(answer)
                except (pickle.PicklingError, TypeError, AttributeError) as error:
                    connection.send((False, RunError(f"a task's result cannot be sent: {error}", "a small picklable value")))
    except _Leave:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)  # threads of the task's are not waited for


def _follow() -> None:
    """Leave when the supervisor has gone, however it went, so that a resumed run meets no orphan.

    The supervisor is not the parent in the system's sense: workers are forked off a server.
    """
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


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


@dataclass
class _Task:
    """A spec, and whether a worker has died of it before."""

    spec: Any
    is_second_try: bool = False


@dataclass(eq=False)
class _Worker:
    fn: Callable[[Any], Any]
    task: _Task = field(default_factory=lambda: _Task(None))
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

    def give(self, task: _Task, timeout: float | None) -> None:
        self.task, self.busy = task, True
        self.deadline = None if timeout is None else time.monotonic() + timeout
        # A worker that died while idle shows itself on the next receive.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(task.spec)

    def late(self) -> bool:
        return self.busy and self.deadline is not None and time.monotonic() > self.deadline

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
    tasks, again = map(_Task, specs), deque[_Task]()
    crew: list[_Worker] = []

    def following() -> _Task | None:
        return again.popleft() if again else next(tasks, None)

    try:
        for _ in range(max(1, workers)):
            if (task := following()) is None:
                break
            crew.append(_Worker(fn))
            crew[-1].give(task, timeout)
        while any(w.busy for w in crew):
            for worker in _ready(crew):
                outcome = _receive(worker)
                if outcome is None:
                    continue
                if isinstance(outcome, Done):
                    yield outcome
                else:
                    _dismiss([worker])
                    crew[crew.index(worker)] = _Worker(fn)
                    if further := _tries(worker.task, outcome.reason, split):
                        again.extend(further)
                    else:
                        yield outcome
                for idle in [w for w in crew if not w.busy]:
                    if (task := following()) is None:
                        break
                    idle.give(task, timeout)
    finally:
        _dismiss(crew)


def _tries(task: _Task, reason: str, split: Callable[[Any], list[Any]] | None) -> list[_Task]:
    """Return what is tried again after a worker died: the parts of its task, or the task once more where it has no parts.

    The kernel and people kill workers for what others did, so one death proves nothing; what took too long is not waited
    for twice.
    """
    parts = split(task.spec) if split else []
    if len(parts) > 1:
        return [_Task(part) for part in parts]
    overran = reason == _OVERRAN or reason.endswith(signal.SIGALRM.name)
    return [] if task.is_second_try or overran else [_Task(task.spec, is_second_try=True)]


def _dismiss(crew: list[_Worker]) -> None:
    """End workers: all at once those that wait for a task or leave theirs when asked to, then those that do not."""
    for worker in crew:
        worker.connection.close()
        if worker.busy:
            worker.process.terminate()
    deadline = time.monotonic() + _GRACE
    for worker in crew:
        worker.process.join(timeout=max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


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
        return Lost(worker.task.spec, _OVERRAN)
    try:
        answer = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        why = worker.why_dead()
        if not worker.started:
            advice = "in a script of your own, start work under `if __name__ == '__main__':`"
            raise RunError(f"a worker process cannot start ({why})", advice=advice) from None
        return Lost(worker.task.spec, why)
    if answer == _HELLO:
        worker.started = True
        return None
    worker.busy = False
    fine, value = answer
    if not fine:
        raise value
    return Done(worker.task.spec, value)


def default_workers() -> int:
    """Return the number of cores this process may use."""
    if (count := len(os.sched_getaffinity(0))) < 1:
        raise RunError("this process may not run on any core")
    return count


def threads_of(workers: int = 0) -> int:
    """Return how many threads one process starts where `workers` are wanted (0: one per core): at most one per core.

    Processes may be more than cores; threads that compute gain nothing by it, and thousands of them cannot even be ended.
    """
    return min(workers or default_workers(), default_workers())
