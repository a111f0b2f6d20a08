"""A training may be stopped at any moment: killed, asked to end, or by a full disk; the same command ends with the same bits."""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train import runs
from tests.train.runs import ended, lines, same_bits, start, state, stop, wait_for
from train import distributed
from train.interrupt import Due, Interrupt, Timetable, handled

STEPS = 24


def flags(build: str, output: Path, *more: str) -> list[str]:
    """Return a training of 24 steps, some 15 ms each, that logs each of them. Without text a checkpoint has 0.6 MB instead of 10."""
    data = ["simclr", "--manifest", build, "--output", str(output), "--batch-size=8", f"--samples-seen={8 * STEPS}"]
    model = ["--model=micro-vit", "--mlp-hidden=16", "--mlp-out=8", "--device=cpu", "--lr=0.01"]
    return [*data, *model, "--workers=1", "--no-tensorboard", "--log-every=1", "--loader=threads", *more]


def kill_and_go_on(build: str, folder: Path, name: str, kills: int, *more: str) -> dict[str, Any]:
    """Kill a training at random moments, let the last one end, and compare it with the one in `whole`."""
    out, talk = folder / name, folder / f"{name}.txt"
    command = flags(build, out, "--checkpoint-every=1", *more)
    draw = random.Random(name)
    reached = []
    while len(reached) < kills:
        steps = reached[-1] if reached else 0
        try:
            code = stop(command, talk, out, steps + draw.choice((0, 1, 2, 2)), signal.SIGKILL, draw.random() * 0.02)
        except RuntimeError:
            break  # it came to its end before
        reached.append(state(out)["step"] if (out / "checkpoint.pt").exists() else 0)
        assert code == -signal.SIGKILL
    return {
        "kills": len(reached),
        "reached": reached,
        "code": ended(start(command, talk)),
        "same": same_bits(out, folder / "whole"),
        "steps": [row["step"] for row in lines(out)],
        "left": [path.name for path in out.iterdir() if path.name.startswith(".checkpoint")],
    }


def signals(build: str, folder: Path, number: signal.Signals, *more: str) -> dict[str, Any]:
    """Signal a training, and let the same command end it."""
    out, talk = folder / number.name, folder / f"{number.name}.txt"
    command = flags(build, out, *more)
    code = stop(command, talk, out, 3, number)
    at = state(out)["step"]
    told = talk.read_text()
    return {"code": code, "step": at, "told": told, "code_then": ended(start(command, talk)), "same": same_bits(out, folder / "whole")}


def two_at_once(build: str, folder: Path) -> dict[str, Any]:
    """Start a second training in the folder of one that stands still meanwhile, so that it cannot be over before."""
    out, talk, other = folder / "shared", folder / "shared.txt", folder / "second.txt"
    first = start(flags(build, out), talk)
    wait_for(out, 2, first)
    os.kill(first, signal.SIGSTOP)
    code = ended(start(flags(build, out), other))
    os.kill(first, signal.SIGCONT)
    return {"first": ended(first), "second": code, "told": other.read_text(), "same": same_bits(out, folder / "whole")}


def full_disk(build: str, folder: Path) -> dict[str, Any]:
    """Go on with a training that may write no file as large as its checkpoint (RLIMIT_FSIZE), then once more without the limit."""
    out, talk = folder / "full", folder / "full.txt"
    command = flags(build, out, "--checkpoint-every=1", "--keep=1")
    stop(command, talk, out, 3, signal.SIGTERM)
    before = {path.name: path.read_bytes() for path in out.glob("checkpoint*.pt")}
    talk.write_text("")
    small = len(before["checkpoint.pt"]) // 2
    code = ended(start(command, talk, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))))
    after = {path.name: path.read_bytes() for path in out.glob("*checkpoint*")}
    kept = all(after.get(name) == content for name, content in before.items()) and len(after) == len(before)
    told = talk.read_text()
    return {"code": code, "told": told, "kept": kept, "code_then": ended(start(command, talk)), "same": same_bits(out, folder / "whole")}


def scenarios(build: str, folder: Path, slow: bool) -> dict[str, Any]:
    """Run everything in forks of this process, which imports once what takes long: torch, and 0.6 seconds of the modules named here."""
    for module in ("numba", "pandas", "pyarrow.parquet", "scipy.special"):
        importlib.import_module(module)
    runs.know_models(folder)
    results: dict[str, Any] = {"whole": ended(start(flags(build, folder / "whole"), folder / "whole.txt"))}
    if slow:
        results["killed"] = kill_and_go_on(build, folder, "killed", 20)
        results["killed_process"] = kill_and_go_on(build, folder, "killed-process", 6, "--loader=process")
        results["SIGTERM_process"] = signals(build, folder, signal.SIGTERM, "--loader=process")
        return results
    results["killed"] = kill_and_go_on(build, folder, "killed", 3)
    results["SIGINT"] = signals(build, folder, signal.SIGINT)
    results["SIGTERM"] = signals(build, folder, signal.SIGTERM)
    results["two"] = two_at_once(build, folder)
    results["full"] = full_disk(build, folder)
    return results


def run_scenarios(build: str, folder: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.train.test_interrupt", build, str(folder), *more]
    done = subprocess.run(command, env=runs.ONE_THREAD, cwd=runs.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, a_build: str) -> dict[str, Any]:
    return run_scenarios(a_build, tmp_path_factory.mktemp("fast"))


@pytest.fixture(scope="module")
def a_build(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small set, captions among its members; made once, so not by `make_shards`."""
    from shards import cli

    folder = tmp_path_factory.mktemp("sets") / "data"
    runs.write_tars(folder, lambda i, jpeg, caption: {"jpg": jpeg, "txt": caption.encode()}, n=40)
    assert cli.main(["index", str(folder)]) == 0
    return str(folder)


def check_killed(result: dict[str, Any], kills: int) -> None:
    assert result["kills"] >= kills
    assert result["code"] == 0
    assert result["same"]
    assert result["steps"] == list(range(1, STEPS + 1))
    assert result["left"] == []


def check_signalled(result: dict[str, Any], code: int) -> None:
    assert result["code"] == code
    assert 3 <= result["step"] < STEPS
    assert f"interrupted at step {result['step']:,}, saved; the same command goes on" in result["told"]
    assert "Traceback" not in result["told"]
    assert result["code_then"] == 0
    assert result["same"]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bits(results: dict[str, Any]) -> None:
    assert results["whole"] == 0
    check_killed(results["killed"], 3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_and_the_same_command_goes_on(name: str, code: int, results: dict[str, Any]) -> None:
    check_signalled(results[name], code)


@pytest.mark.slow
def test_a_second_training_in_a_folder_is_refused(results: dict[str, Any]) -> None:
    result = results["two"]
    assert (result["first"], result["second"]) == (0, 2)
    assert "another process is writing here" in result["told"]
    assert result["same"]


@pytest.mark.slow
def test_a_file_that_may_not_grow_leaves_the_checkpoint_of_before(results: dict[str, Any]) -> None:
    result = results["full"]
    assert result["code"] == 1
    assert "checkpoint-0000" in result["told"]
    assert "File too large, while saving step" in result["told"]
    assert "checkpoint.pt, is whole" in result["told"]
    assert "Traceback" not in result["told"]
    assert result["kept"]
    assert result["code_then"] == 0
    assert result["same"]


@pytest.mark.slow
def test_twenty_kills_and_a_loader_of_its_own(a_build: str, tmp_path: Path) -> None:
    slow = run_scenarios(a_build, tmp_path, "slow")
    check_killed(slow["killed"], 10)
    assert len(set(slow["killed"]["reached"])) > 4
    check_killed(slow["killed_process"], 4)
    check_signalled(slow["SIGTERM_process"], 143)


FULL = """
mount -t tmpfs -o size="$5" tmpfs "$1" && cp -r "$4" "$1/run" && "$2" -m tests.train.runs $3
echo "rc $?"
cp -r "$1/run" "$4-after"
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_of_before(a_build: str, tmp_path: Path) -> None:
    small, out, talk = tmp_path / "small", tmp_path / "run", tmp_path / "talk.txt"
    small.mkdir()
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(small)], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this system lets no user mount a small disk")
    run = [sys.executable, "-m", "tests.train.runs"]
    with talk.open("w") as errors:
        first = subprocess.Popen([*run, *flags(a_build, out)], env=runs.ONE_THREAD, cwd=runs.ROOT, stderr=errors)
    while not (out / "log.jsonl").exists() or not lines(out):
        assert first.poll() is None, talk.read_text()
    first.terminate()
    assert first.wait() == 143
    before = (out / "checkpoint.pt").read_bytes()
    # Room for the checkpoint that is there and half of another one; TensorBoard writes there, too.
    size = str(len(before) * 3 // 2)
    command = " ".join([*flags(a_build, small / "run"), "--checkpoint-every=1", "--tensorboard"])
    script = ["unshare", "-rm", "sh", "-c", FULL, "sh", str(small), sys.executable, command, str(out), size]
    done = subprocess.run(script, env=runs.ONE_THREAD, cwd=runs.ROOT, capture_output=True, text=True, check=False)
    assert "rc 1" in done.stdout, done.stderr
    assert f"{small}/run/checkpoint.pt: No space left on device, while saving step" in done.stderr
    assert "is whole" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run-after" / "checkpoint.pt").read_bytes() == before
    shutil.rmtree(small)


SECOND = """
import os, signal, sys
from train.interrupt import handled
number = signal.Signals[sys.argv[1]]
with handled() as interrupt:
    signal.raise_signal(number)
    print(bool(interrupt), interrupt.exit_code, flush=True)
    signal.raise_signal(number)
    print("still here", flush=True)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_ends_at_once(name: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", SECOND, name], cwd=runs.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.Signals[name]
    assert done.stdout == f"True {code}\n"
    assert f"{name}: saving after this step; once more ends at once" in done.stderr


def test_what_is_due_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines every 4 steps, evaluations every 5, checkpoints every 6 or when two minutes are over; 13 steps; each takes 25 seconds."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    values = {"log_every": 4, "eval_every": 5, "checkpoint_every": 6, "checkpoint_minutes": 2.0}
    timetable = Timetable(runs.config("clip", "none", "none", **values), 13, runs.CPU, Interrupt())
    lines, evaluations, checkpoints = [], [], []
    for step in range(1, 14):
        clock[0] += 25
        due = timetable.after(step)
        assert due.end == (step == 13)
        for is_due, steps in ((due.line, lines), (due.evaluation, evaluations), (due.checkpoint, checkpoints)):
            steps += [step] if is_due else []
        if due.checkpoint:
            timetable.saved()
    assert checkpoints == [5, 6, 11, 12, 13]  # 125 seconds after the start and after step 6
    assert evaluations == [5, 10, 13]
    assert lines == [4, 5, 6, 8, 11, 12, 13]


def test_a_signal_ends_with_a_line_and_a_checkpoint() -> None:
    interrupt = Interrupt()
    timetable = Timetable(runs.config("clip", "none", "none", log_every=4, checkpoint_minutes=0.0), 13, runs.CPU, interrupt)
    assert timetable.after(1) == Due(line=False, evaluation=False, checkpoint=False, end=False)
    interrupt.signal = signal.SIGTERM
    assert timetable.after(2) == Due(line=True, evaluation=False, checkpoint=True, end=True)


def test_several_processes_agree_where_a_line_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that reached the other process alone, and one that reached this one alone."""
    others = [False]
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "barrier_any", lambda flag, device: flag or others[0])
    interrupt = Interrupt()
    timetable = Timetable(runs.config("clip", "none", "none", log_every=4, checkpoint_minutes=0.0), 13, runs.CPU, interrupt)
    interrupt.signal = signal.SIGTERM
    assert not timetable.after(3).end
    assert timetable.after(4).end
    interrupt.signal = 0
    others[0] = True
    assert not timetable.after(5).end
    assert timetable.after(8).end


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with handled() as interrupt:
        assert not interrupt
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt
        assert interrupt.signal == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_handle_nothing() -> None:
    seen: list[Interrupt] = []

    def work() -> None:
        with handled() as interrupt:
            seen.append(interrupt)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [bool(interrupt) for interrupt in seen] == [False]
    assert signal.getsignal(signal.SIGTERM) == before


def main(build: str, folder: str, speed: str = "fast") -> None:
    """Write the results of all scenarios as JSON."""
    import torch

    torch.set_num_threads(1)
    report: Callable[[str], int] = sys.stdout.write
    report(json.dumps(scenarios(build, Path(folder), speed == "slow")))


if __name__ == "__main__":
    main(*sys.argv[1:])
