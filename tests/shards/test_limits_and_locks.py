"""Limits of options, locks of folders, and what a full disk says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from shards.core import cli, console, fs
from shards.core.cli import Command
from shards.core.config import dump, load, option
from shards.core.errors import UsageError


@dataclass(frozen=True)
class Limited:
    share: float = option(0.5, "a share", least=0, below=1)
    rate: float = option(1.0, "a rate", above=0, most=10)
    count: int | None = option(None, "a count", above=0)
    free: float = option(0.0, "any number")
    pairs: tuple[int, ...] = option((), "no single number", least=5)
    switch: bool = option(False, "no number", least=5)


def show(config: Limited) -> int:
    console.emit(dump(config))
    return 0


INSIDE = [
    ("share", (0, 0.0, 0.999999)),
    ("rate", (1e-300, 10, 10.0)),
    ("count", (None, 1, 2**62)),
    ("free", (float("inf"), -1e300)),
    ("pairs", ((1, 2),)),
    ("switch", (True, False)),
]
OUTSIDE = [
    ("share", (-1e-9, 1, 1.0, float("nan"), float("inf"), float("-inf")), "a finite number, at least 0, below 1"),
    ("rate", (0, 0.0, -1, 10.000001, float("nan"), float("inf")), "a finite number, above 0, at most 10"),
    ("count", (0, -3), "a finite number, above 0"),
]


@pytest.mark.parametrize(("name", "values"), INSIDE)
def test_numbers_inside_their_limits_are_taken(name, values):
    for value in values:
        assert getattr(load(Limited, {name: value}), name) == value


@pytest.mark.parametrize(("name", "values", "allowed"), OUTSIDE)
def test_numbers_outside_their_limits_are_refused(name, values, allowed):
    for value in values:
        with pytest.raises(UsageError) as error:
            load(Limited, {name: value})
        assert error.value.found.startswith(f"{name}: ")
        assert error.value.allowed == allowed


def test_limits_hold_inside_of_nested_options_and_for_flags(capsys):
    @dataclass(frozen=True)
    class Around:
        inner: Limited = option(Limited())

    with pytest.raises(UsageError, match=r"inner\.share: found 2"):
        load(Around, {"inner": {"share": 2}})
    commands = {"go": Command(Limited, f"{__name__}:show", "")}
    assert cli.main("tool", "", commands, ["go", "--rate", "nan"]) == 2
    assert "rate: found nan\n  allowed: a finite number, above 0, at most 10" in capsys.readouterr().err
    assert cli.main("tool", "", commands, ["go", "--rate", "9.5"]) == 0


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with fs.locked(str(tmp_path)):
        assert fs.names(str(tmp_path)) == [".lock"]
        with pytest.raises(UsageError, match="another process is writing here"), fs.locked(str(tmp_path)):
            pass
        with fs.locked(str(tmp_path), ".other"):
            pass
    assert fs.names(str(tmp_path)) == []
    with pytest.raises(ValueError, match="mine"), fs.locked(str(tmp_path)):
        raise ValueError("mine")
    with fs.locked(str(tmp_path)):
        pass
    with fs.locked("memory://test_locked"), fs.locked("memory://test_locked"):
        pass


HOLDER = """
import sys, time
from shards.core import fs
from shards.core.errors import UsageError
inside, most, refused = sys.argv[2], 0, 0
end = time.monotonic() + 1.5
taken = 0
while time.monotonic() < end:
    try:
        with fs.locked(sys.argv[1]):
            open(inside, "x").close()  # fails where another process is inside, too
            import os
            os.remove(inside)
            taken += 1
    except UsageError:
        refused += 1
print(taken, refused)
"""


def test_a_lock_that_is_taken_and_left_again_and_again_holds(tmp_path):
    """The file is removed on leaving: a process that opened it before must not believe that it holds the new one."""
    (tmp_path / "held").mkdir()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "held"), str(tmp_path / "inside")]
    root = Path(__file__).parents[2]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    results = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], results
    taken = [int(out.split()[0]) for out, _ in results]
    refused = [int(out.split()[1]) for out, _ in results]
    assert sum(taken) > 50
    assert sum(refused) > 0


def test_a_process_that_dies_leaves_no_lock(tmp_path):
    code = "import sys, os, signal; from shards.core import fs\nwith fs.locked(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert fs.names(str(tmp_path)) == [".lock"]
    with fs.locked(str(tmp_path)):
        pass


def test_a_full_disk_names_the_file(tmp_path):
    target = tmp_path / "x.txt"
    (tmp_path / f".x.txt.tmp-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as error:
        fs.write_text(str(target), "text")
    assert error.value.filename == str(target)
    assert fs.names(str(tmp_path)) == []
