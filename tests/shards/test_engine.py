"""The engine: dead, hung and failing workers, and what becomes of their tasks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from shards.core.engine import Done, Lost, map_unordered
from shards.core.errors import RunError, UsageError

sys.path.insert(0, str(Path(__file__).parent))
import engine_tasks as tasks


def test_every_spec_gives_one_outcome():
    outcomes = list(map_unordered(tasks.square, range(20), workers=2))
    assert sorted(o.result for o in outcomes) == [x * x for x in range(20)]
    assert all(isinstance(o, Done) and o.result == o.spec**2 for o in outcomes)
    assert list(map_unordered(tasks.square, [], workers=2)) == []


def test_a_worker_killed_by_sigkill_loses_its_task_alone():
    specs = [[1, 2], [12, 13], [3], [4]]
    outcomes = list(map_unordered(tasks.kill_at, specs, workers=2))
    lost = [o for o in outcomes if isinstance(o, Lost)]
    assert [(o.spec, o.reason) for o in lost] == [([12, 13], "worker killed by SIGKILL")]
    assert sorted(o.spec for o in outcomes if isinstance(o, Done)) == [[1, 2], [3], [4]]


def test_a_task_is_bisected_down_to_what_kills():
    outcomes = list(map_unordered(tasks.kill_at, [list(range(10, 18)), [1]], workers=2, split=tasks.halves))
    assert [o.spec for o in outcomes if isinstance(o, Lost)] == [[13]]
    done = [x for o in outcomes if isinstance(o, Done) for x in o.spec]
    assert sorted(done) == [1, 10, 11, 12, 14, 15, 16, 17]


@pytest.mark.slow
def test_an_exit_code_and_overrun_time_are_named():
    assert [o.reason for o in map_unordered(tasks.leave_at, [[13]])] == ["worker left with exit code 7"]
    outcomes = list(map_unordered(tasks.hang_at, [[1], [12, 13], [2]], split=tasks.halves, timeout=3))
    assert [(o.spec, o.reason) for o in outcomes if isinstance(o, Lost)] == [([13], "ran out of time")]
    assert sorted(o.spec for o in outcomes if isinstance(o, Done)) == [[1], [2], [12]]


def test_an_exception_ends_the_map_and_keeps_the_workers_traceback():
    with pytest.raises(ValueError, match="three is too many") as error:
        list(map_unordered(tasks.fail, range(10), workers=2))
    assert "in a worker:" in error.value.__notes__[0]
    assert "in fail" in error.value.__notes__[0]
    assert not _children()


def test_our_errors_keep_their_three_parts():
    with pytest.raises(UsageError) as error:
        list(map_unordered(tasks.refuse, [1]))
    assert str(error.value) == "found this\n  allowed: allowed that\n  try: try those"


def test_what_cannot_be_sent_is_an_error_and_no_lost_task():
    with pytest.raises(RunError, match="OddError: this and that") as error:
        list(map_unordered(tasks.odd, [1]))
    assert error.value.exit_code == 1
    with pytest.raises(RunError, match="cannot be sent"):
        list(map_unordered(tasks.unsendable, [1]))


def test_specs_may_hold_arrays():
    specs = [np.arange(4) + i for i in range(6)]
    assert sorted(o.result for o in map_unordered(tasks.total, specs, workers=2)) == [6.0 + 4 * i for i in range(6)]


def test_specs_are_drawn_as_workers_become_free(tmp_path):
    drawn = []

    def specs():
        for i in range(1000):
            drawn.append(i)
            yield str(tmp_path), i

    outcomes = map_unordered(tasks.note, specs(), workers=2)
    for _ in range(5):
        next(outcomes)
    assert len(drawn) <= 5 + 2 + 1
    outcomes.close()
    assert len(list(tmp_path.iterdir())) <= len(drawn)
    assert not _children()


def test_one_process_serves_many_tasks(tmp_path):
    assert len(list(map_unordered(tasks.note, [(str(tmp_path), i) for i in range(12)], workers=2))) == 12
    assert len({p.read_text() for p in tmp_path.iterdir()}) <= 2


def test_an_unknown_engine_lists_the_known_ones():
    with pytest.raises(UsageError, match="unknown engine 'locale'") as error:
        list(map_unordered(tasks.square, [1], engine="locale"))
    assert "local" in error.value.allowed
    assert error.value.advice == "did you mean 'local'?"


def _children() -> list[psutil.Process]:
    """Return our living descendants that are workers: not multiprocessing's resource tracker and fork server."""
    own = [c for c in psutil.Process().children() if not any(w in " ".join(c.cmdline()) for w in ("resource_tracker", "forkserver"))]
    return own + [worker for c in psutil.Process().children() for worker in c.children(recursive=True)]


def test_workers_that_cannot_start_are_a_fault_of_the_run(tmp_path: Path) -> None:
    """A script without a main guard: each spawned worker runs it again and dies before its first task."""
    script = tmp_path / "unguarded.py"
    script.write_text("from shards.core.engine import map_unordered\nlist(map_unordered(len, ['a', 'b'], split=list))\n")
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "a worker process cannot start" in done.stderr


def _script(folder: Path, body: str) -> list[str]:
    """Return the command of a program with a main guard that can import this folder's tasks."""
    here = Path(__file__).parent
    path = folder / "program.py"
    head = f"import sys\nsys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]\nimport engine_tasks as tasks\n"
    head += "from shards.core.engine import map_unordered, prepare\n"
    path.write_text(head + "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in body.splitlines()))
    return [sys.executable, str(path)]


def test_workers_start_with_what_was_prepared_and_without_pandas(tmp_path: Path) -> None:
    """A file of the working directory that is named like a module of ours is never imported."""
    (tmp_path / "pyarrow.py").write_text("raise SystemExit('the wrong pyarrow')")
    program = tmp_path / "elsewhere"
    program.mkdir()
    body = "prepare(['pyarrow', 'xml.dom.minidom', 'no.such.module'])\n"
    body += "print([o.result for o in map_unordered(tasks.modules_after_a_list, ['xml.dom.minidom', 'xml.dom.pulldom'])])"
    done = subprocess.run(_script(program, body), cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[(True, False), (False, False)]\n", done.stderr


@pytest.mark.parametrize("task", ["sleep", "sleep_in_a_destructor"])
def test_an_interrupt_leaves_no_worker_behind(tmp_path: Path, task: str) -> None:
    """Ctrl-C goes to the whole group: workers leave it to the supervisor, who takes them with it and is quiet about it."""
    body = f"try:\n    list(map_unordered(tasks.{task}, [{str(tmp_path)!r}] * 2, workers=2))\nexcept KeyboardInterrupt:\n    sys.exit(130)"
    with subprocess.Popen(_script(tmp_path, body), stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while len(pids := [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()]) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert {p.pid for p in everyone} > set(pids)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert not psutil.wait_procs(everyone, timeout=30)[1]
