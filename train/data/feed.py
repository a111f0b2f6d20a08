"""The loader in a process of its own: batches are made there, in a ring of shared memory, while the trainer computes.

In one process, decoding threads and the training step wait for each other's interpreter lock: a step of the trainer was late
by 18 ms in one of a hundred cases, and by 0.3 ms with the decoding elsewhere. The process is a fresh interpreter without
torch; the ring is a memfd, which needs no room under /dev/shm (64 MB in many containers) and goes with its last user.

The trainer sends the numbers of free slots, the process answers with (facts, slot number). Its end of the pipe closes with
either process, so neither outlives the other.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np

from shards.core.errors import ProvenderError, RunError
from train.data.batch import BadSample
from train.data.maker import BatchMaker, Facts, LoaderSettings, Slot

SLOTS = 5  # of the ring: one with the trainer, one that waits for it, three under way
HELD = 1  # slots more where a device copies from the ring: one stays with it while the trainer has the next
# One thread for linear algebra: the loader's threads are its own. Arrow's own allocator keeps 40 MB of what it once had.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
_CHILD = "import sys; sys.path[:] = sys.argv[3:]; from train.data.feed import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"


def slot_shapes(settings: LoaderSettings) -> tuple[tuple[int, int, int, int], int, tuple[int, int]]:
    """Return the shape of a view's images, the number of views, and the shape of the tokens (0 columns: none)."""
    n, size = settings.rank_batch, settings.image_size
    return (n, size, size, 3), len(settings.needs.views), (n, settings.needs.context_length)


def slot_bytes(settings: LoaderSettings) -> int:
    """Return the bytes of one slot, whole pages."""
    image_shape, views, token_shape = slot_shapes(settings)
    total = int(np.prod(image_shape)) * views + int(np.prod(token_shape)) * 4
    return -(-total // mmap.PAGESIZE) * mmap.PAGESIZE


def slots_in(memory: mmap.mmap, settings: LoaderSettings) -> list[Slot]:
    """Return the slots of a ring as arrays over its memory, as many as it has room for."""
    image_shape, views, token_shape = slot_shapes(settings)
    image_bytes, length = int(np.prod(image_shape)), slot_bytes(settings)
    slots = []
    for number in range(len(memory) // length):
        start = number * length
        images = [np.ndarray(image_shape, np.uint8, memory, start + view * image_bytes) for view in range(views)]
        tokens = np.ndarray(token_shape, np.int32, memory, start + views * image_bytes) if token_shape[1] else None
        slots.append(Slot(images, tokens, number))
    return slots


class Child:
    """The loader's process, from its start to its end.

    It may be started before it is known what it will make: it then imports, and loads compiled code, while the trainer builds
    its model. That takes 0.6 s, and the trainer's own imports 3 s.
    """

    def __init__(self) -> None:
        """Start it; its ring of slots has no size yet."""
        self.memory = os.memfd_create("provender-loader")
        self.connection, theirs = Pipe()
        numbers = [str(self.memory), str(theirs.fileno())]
        environment = {**os.environ, **_ENVIRONMENT, "PYTHONSAFEPATH": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *numbers, *sys.path],
            pass_fds=(self.memory, theirs.fileno()),
            env=environment,
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C reaches the trainer alone, which saves and hangs up
        )
        theirs.close()

    def close(self) -> None:
        """End the process, which keeps nothing that could be lost; a second time it does nothing."""
        if self.connection.closed:
            return
        self.connection.close()
        os.close(self.memory)
        self.process.kill()
        self.process.wait()


class Feed:
    """The trainer's end: tells the process what to make, and yields it."""

    def __init__(self, settings: LoaderSettings, start: int, bad: list[BadSample], *, held: int = 0, child: Child | None = None) -> None:
        """Let a process open the sources and begin with step `start`.

        Args:
            held: how many slots stay with the trainer beside the one of the current batch. They go back later by as many batches.
            child: a process that nobody has used yet; without it one is started.
        """
        self.settings, self._held = settings, held
        self.child = Child() if child is None else child
        os.ftruncate(self.child.memory, (SLOTS + held) * slot_bytes(settings))
        self.memory = mmap.mmap(self.child.memory, 0)
        self.slots = slots_in(self.memory, settings)
        self._next = start
        self._send((settings, start, bad))
        for slot in self.slots:
            self._send(slot.number)

    def batches(self, mark: Callable[[], Callable[[], None]] | None = None) -> Iterator[tuple[Facts, Slot]]:
        """Yield batches in order of steps. A slot goes back to the process when the next batch is asked for, or `held` later.

        Args:
            mark: called each time the next batch is asked for; what it returns is called before the slot goes back, and waits
                until nothing that was begun before the mark reads from the slot.

        Raises:
            ProvenderError: what the process met.
            RunError: the process died.
        """
        returning: deque[tuple[int, Callable[[], None] | None]] = deque()
        while True:
            facts, number = self._receive()
            self._next = facts.step + 1
            yield facts, self.slots[number]
            returning.append((number, mark() if mark else None))
            if len(returning) > self._held:
                oldest, wait = returning.popleft()
                if wait is not None:
                    wait()
                self._send(oldest)

    def _receive(self) -> tuple[Facts, int]:
        try:
            fine, value = self.child.connection.recv()
        except (EOFError, ConnectionResetError):
            raise RunError(self._why_dead(), advice="the same command goes on from the last checkpoint") from None
        if not fine:
            raise value
        return value

    def _send(self, value: Any) -> None:
        # A process that is gone shows itself on the next receive.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.child.connection.send(value)

    def _why_dead(self) -> str:
        code = self.child.process.wait()
        ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        memory = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"the loader's process {ending}{memory} while it made step {self._next:,} and the next ones"

    def close(self) -> None:
        """End the process."""
        self.child.close()


def serve(memory: int, pipe: int) -> None:
    """Make batches until the trainer hangs up; runs in the process. Both arguments are file descriptors."""
    # What ends a training is the trainer's to handle: it saves first, then hangs up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(pipe)
    try:
        from train.data.decode.resample import load_compiled

        load_compiled()  # the trainer may still be building its model
        settings, start, bad = connection.recv()
        slots = slots_in(mmap.mmap(memory, 0), settings)
        _produce(connection, settings, start, bad, slots)
    except (EOFError, ConnectionError):
        pass
    except ProvenderError as error:
        _hang_up_with(connection, error)
    except Exception as error:  # noqa: BLE001  the trainer raises it
        import traceback

        _hang_up_with(connection, RunError(f"the loader failed: {type(error).__name__}: {error}\n{traceback.format_exc()}"))
    os._exit(0)  # reading threads may still hold a task


def _produce(connection: Connection, settings: LoaderSettings, start: int, bad: list[BadSample], slots: list[Slot]) -> None:
    from shards.core.lean import spare_pandas

    spare_pandas()
    free: deque[Slot] = deque()

    def free_slot(wait: bool) -> Slot | None:
        while (wait and not free) or connection.poll():
            free.append(slots[connection.recv()])
        return free.popleft() if free else None

    maker = BatchMaker(settings)
    maker.restore(bad)
    for facts, slot in maker.run(start, free_slot, ahead=SLOTS - 2):
        connection.send((True, (facts, slot.number)))


def _hang_up_with(connection: Connection, error: ProvenderError) -> None:
    with contextlib.suppress(OSError):
        connection.send((False, error))
