"""Ctrl-C and SIGTERM: what the first one ends in, what the second one does, and who leaves with whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = f"""
import sys, time
from dataclasses import dataclass
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(ROOT)!r}]
import engine_tasks as tasks
from shards.core import cli, fs
from shards.core.config import option
from shards.core.engine import map_unordered

@dataclass(frozen=True)
class Config:
    folder: str = option(help="where", positional=True)

def ready(config):
    Path(config.folder, "ready").touch()

def wait(config):
    ready(config)
    time.sleep(60)

def hides(config):
    ready(config)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise RuntimeError("Query interrupted") from None  # as duckdb does

def slow_to_leave(config):
    try:
        wait(config)
    finally:
        Path(config.folder, "leaving").touch()
        time.sleep(60)

def work(config):
    list(map_unordered(tasks.write_slowly, [config.folder] * 2, workers=2))

names = ("wait", "hides", "slow_to_leave", "work")
commands = {{name: cli.Command(Config, f"__main__:{{name}}", "", writes="folder", resumes=name == "wait") for name in names}}
if __name__ == "__main__":
    sys.exit(cli.main("tool", "", commands))
"""


def started(folder: Path, verb: str, *, ready: int = 1) -> subprocess.Popen[str]:
    """Start a command in a group of its own, and wait until it is at work: until `ready` of its files are there."""
    program = folder.parent / f"{folder.name}.py"
    program.write_text(PROGRAM)
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(program), verb, str(folder)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    awaited(lambda: process.poll() is not None or sum(p.name.startswith("ready") for p in folder.iterdir()) >= ready)
    assert process.poll() is None
    return process


def awaited(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("verb", "said"), [("wait", "interrupted; the same command goes on\n"), ("hides", "interrupted\n")])
def test_the_first_signal_ends_with_one_line_and_the_lock_is_given_back(tmp_path: Path, number: int, verb: str, said: str) -> None:
    with started(tmp_path / "out", verb) as process:
        assert (tmp_path / "out" / ".lock").exists()
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (128 + number, said)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["ready"]


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_the_second_signal_ends_at_once(tmp_path: Path, first: int, second: int) -> None:
    with started(tmp_path / "out", "slow_to_leave") as process:
        process.send_signal(first)
        awaited((tmp_path / "out" / "leaving").exists)
        process.send_signal(second)
        assert process.wait(timeout=10) == -second


def test_workers_are_asked_to_leave_and_take_their_half_written_files_along(tmp_path: Path) -> None:
    with started(tmp_path / "out", "work", ready=2) as process:
        everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len([p for p in (tmp_path / "out").iterdir() if ".tmp-" in p.name]) == 2
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 143
    assert not psutil.wait_procs(everyone, timeout=10)[1]
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith("ready")] == []


def test_workers_leave_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    """Nothing but the end of the supervisor tells them: their tasks would take ten minutes."""
    with started(tmp_path / "out", "work", ready=2) as process:
        everyone = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
    assert not psutil.wait_procs(everyone, timeout=10)[1]
    assert [p.name for p in (tmp_path / "out").iterdir() if ".tmp-" in p.name] == []


def test_an_interrupt_while_modules_load_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "slow_room.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(9)\n")
    code = "import sys; from shards.core.start import run; sys.exit(run('slow_room'))"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_what_starts_the_commands_is_light() -> None:
    """It has to be there before a Ctrl-C can be: 0.3 ms, where a room's command line takes 40."""
    code = "import sys; before = set(sys.modules); import shards.core.start; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["shards", "shards.core", "shards.core.start"]
