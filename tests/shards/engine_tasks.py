"""Tasks for the engine's tests: module-level functions, since workers are spawned."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from shards.core import fs
from shards.core.errors import UsageError


def square(x: int) -> int:
    return x * x


def kill_at(spec: list[int]) -> list[int]:
    """Die by SIGKILL where the spec holds 13."""
    if 13 in spec:
        os.kill(os.getpid(), signal.SIGKILL)
    return [x * x for x in spec]


def leave_at(spec: list[int]) -> list[int]:
    if 13 in spec:
        os._exit(7)
    return spec


def hang_at(spec: list[int]) -> list[int]:
    if 13 in spec:
        time.sleep(600)
    return spec


def fail(spec: int) -> int:
    if spec == 3:
        raise ValueError("three is too many")
    return spec


def refuse(spec: int) -> int:
    raise UsageError("found this", "allowed that", "try those")


class OddError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def odd(spec: int) -> int:
    raise OddError("this", "that")


def unsendable(spec: int) -> Any:
    return lambda: spec


def total(array: Any) -> float:
    return float(array.sum())


def note(spec: tuple[str, int]) -> int:
    """Leave a file that says that this spec was worked on."""
    folder, i = spec
    (Path(folder) / str(i)).write_text(str(os.getpid()))
    return i


def halves(spec: list[int]) -> list[list[int]]:
    return [spec[: len(spec) // 2], spec[len(spec) // 2 :]] if len(spec) > 1 else []


def modules_after_a_list(name: str) -> tuple[bool, bool]:
    """Say whether a module was here before the task, and whether pandas came with pyarrow's first list."""
    found = name in sys.modules
    import pyarrow as pa

    pa.array([1, 2])
    return found, "pandas" in sys.modules


class Swallower:
    """A destructor that takes its time: what is raised in it goes no further."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __del__(self) -> None:
        Path(self.folder, str(os.getpid())).touch()
        time.sleep(2)


def sleep_in_a_destructor(folder: str) -> None:
    """Sleep, at first in a destructor."""
    swallower = Swallower(folder)
    del swallower
    time.sleep(600)


def sleep(folder: str) -> None:
    """Say that the task runs, and sleep."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


def write_slowly(folder: str) -> None:
    """Say that the task runs while a file is being written, and sleep."""
    with fs.atomic_write(f"{folder}/{os.getpid()}") as file:
        file.write(b"half")
        (Path(folder) / f"ready-{os.getpid()}").touch()
        time.sleep(600)
