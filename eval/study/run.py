"""Run the jobs of a study: what is done stays, what fails is said, and the rest goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from eval import predictions
from eval.study.jobs import JOBS, RESULTS, Job
from shards.core import fs
from shards.core.console import counted, duration, say
from shards.core.errors import RunError, UsageError
from shards.manifest import NAME as MANIFEST
from train.checkpoint import NAME as CHECKPOINT

DONE, LOG = "done.json", "log.txt"
POLL = 0.1  # seconds between two looks at the running jobs
PATIENCE = 60.0  # seconds that jobs get to save what they have, once the study is interrupted
TAIL = 5  # lines of a failed job's log that are shown
PROOFS = {"build": MANIFEST, "subset": MANIFEST, "train": CHECKPOINT}  # what a finished job has written last, in its folder
SPLIT_BY_KIND = ("build", "subset", "train", "evaluate")


@dataclass
class Running:
    """A job's process."""

    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started: float
    slot: int


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        done: seconds that each finished job took, this time or before, by key.
        failed: why a job failed, or what it waited for in vain, by key.
    """

    done: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def folder_of(folder: str, job: Job) -> str:
    """Return where a job's log and its mark lie."""
    return fs.join(folder, JOBS, job.key[:16])


def finished(folder: str, jobs: Sequence[Job]) -> dict[str, float]:
    """Return the seconds of the jobs that are done, by key; a job whose output is gone or cut off, or whose mark is torn, is not."""
    done = {}
    for job in jobs:
        mark = fs.join(folder_of(folder, job), DONE)
        if not fs.exists(mark):
            continue
        try:
            facts = json.loads(fs.read_text(mark))
            whole = facts["bytes"] == written(job)
            seconds = float(facts["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
        if whole:
            done[job.key] = seconds
    return done


def written(job: Job) -> int | None:
    """Return the bytes of the file that says that a job is done; None where it is not there."""
    path = fs.join(job.output, PROOFS[job.kind]) if job.kind in PROOFS else job.output
    return fs.size(path) if fs.exists(path) else None


def run(folder: str, jobs: Sequence[Job], workers: int, gpus: int = 0) -> Outcome:
    """Run what is not done yet, `workers` jobs at a time, and return what became of all.

    Args:
        gpus: with some, as many jobs at a time as there are GPUs, each with one of its own.
    """
    outcome = Outcome(done=finished(folder, jobs))
    slots = list(range(gpus or workers))
    running: list[Running] = []
    before = len(outcome.done)
    if before:
        say(f"{before} of {len(jobs)} jobs are done already")
    started = time.monotonic()
    try:
        while True:
            _start_ready(folder, jobs, outcome, running, slots, gpus)
            if not running:
                return outcome
            time.sleep(POLL)
            for ended in [active for active in running if active.process.poll() is not None]:
                running.remove(ended)
                slots.append(ended.slot)
                _close(folder, ended, outcome)
                _say_progress(jobs, outcome, running, time.monotonic() - started, before)
    except KeyboardInterrupt:
        _interrupt(running)
        for active in running:
            _close(folder, active, outcome, interrupted=True)
        say(f"{len(outcome.done)} of {counted(len(jobs), 'job')} are done, and what trained has saved its step")
        raise


def _start_ready(folder: str, jobs: Sequence[Job], outcome: Outcome, running: list[Running], slots: list[int], gpus: int) -> None:
    """Start jobs that wait for nothing, as long as there is room; mark those that wait for a failed one."""
    under_way = {active.job.key for active in running}
    for job in jobs:
        if job.key in outcome.done or job.key in outcome.failed or job.key in under_way:
            continue
        lost = [key for key in job.needs if key in outcome.failed]
        if lost:
            outcome.failed[job.key] = f"not run: {next(other.name for other in jobs if other.key == lost[0])} failed"
            continue
        if slots and all(key in outcome.done for key in job.needs):
            running.append(_started(folder, job, slots.pop(0), len(slots) + 1 + len(running), gpus))


def _started(folder: str, job: Job, slot: int, at_once: int, gpus: int) -> Running:
    place = folder_of(folder, job)
    fs.make_dirs(place)
    log = open(fs.join(place, LOG), "wb")  # noqa: SIM115  it lives as long as the process
    say(f"  {job.kind} {job.name}")
    # Rows of a try that was killed would stand twice, and a torn manifest cannot be written over. A checkpoint stays: it is resumed.
    rest = {"evaluate": job.output, "subset": fs.join(job.output, PROOFS["subset"])}.get(job.kind, "")
    if rest and fs.exists(rest):
        fs.remove(rest)
    environment = _environment(slot, at_once, gpus)
    # In a session of its own: Ctrl-C reaches it once, from here, and a second one would end it unsaved.
    process = subprocess.Popen(command_line(job), stdout=log, stderr=log, env=environment, start_new_session=True)
    return Running(job, process, log, time.monotonic(), slot)


def command_line(job: Job) -> list[str]:
    """Return the command as a list; it does not depend on what lies in the working directory."""
    program, *arguments = job.command
    return [sys.executable, "-P", "-c", f"import sys; from shards.core.start import {program}; sys.exit({program}())", *arguments]


def check_builds(folder: str, jobs: Sequence[Job]) -> None:
    """Let `curate` look at the flags and the recipe of each build that is to be made: what it refuses is refused before the first job.

    Raises:
        UsageError: a build that cannot be made, in curate's words.
    """
    done = finished(folder, jobs)
    for job in jobs:
        if job.kind != "build" or job.key in done:
            continue
        # The plan alone, of one record: it reads the recipe and the flags whole, and little of the input.
        words = [*command_line(job), "--dry-run", "--limit", "1"]
        planned = subprocess.run(words, capture_output=True, text=True, check=False)
        if planned.returncode == UsageError.exit_code:
            raise UsageError(f"sources.{job.name}: {planned.stderr.strip().removeprefix('error: ')}")  # it says what is allowed


def _environment(slot: int, at_once: int, gpus: int) -> dict[str, str]:
    """Return a job's environment: its share of the cores, and its own GPU."""
    cores = len(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores // at_once))}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot)
    return environment


def _close(folder: str, ended: Running, outcome: Outcome, interrupted: bool = False) -> None:
    """Take note of how a job ended."""
    ended.log.close()
    code, seconds = ended.process.returncode, time.monotonic() - ended.started
    place = folder_of(folder, ended.job)
    size = written(ended.job)
    if code == 0 and size is not None:
        facts = {
            "seconds": round(seconds, 3),
            "bytes": size,
            "kind": ended.job.kind,
            "name": ended.job.name,
            "command": list(ended.job.command),
        }
        fs.write_text(fs.join(place, DONE), json.dumps(facts, indent=1) + "\n")
        outcome.done[ended.job.key] = seconds
        return
    if interrupted:
        return
    last = fs.read_bytes(fs.join(place, LOG)).decode("utf-8", "replace").splitlines()[-TAIL:]
    outcome.failed[ended.job.key] = f"exit code {code}; see {fs.join(place, LOG)}"
    say(f"failed: {ended.job.kind} {ended.job.name} (exit code {code}), {fs.join(place, LOG)}:")
    for line in last:
        say(f"    {line}")


def _interrupt(running: Sequence[Running]) -> None:
    """Pass an interrupt on, and wait until each job has saved what it has."""
    for active in running:
        active.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + PATIENCE
    for active in running:
        try:
            active.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            active.process.kill()
            active.process.wait()


def _say_progress(jobs: Sequence[Job], outcome: Outcome, running: Sequence[Running], elapsed: float, before: int) -> None:
    left = len(jobs) - len(outcome.done) - len(outcome.failed)
    names = ", ".join(active.job.name for active in running) or "nothing"
    failed = f", {len(outcome.failed)} failed" if outcome.failed else ""
    now = len(outcome.done) - before
    eta = f"; {duration(elapsed / now * left)} left" if now and left else ""
    say(f"study: {len(outcome.done)} of {len(jobs)} jobs done{failed}; running {names}{eta}")


def estimates(jobs: Sequence[Job], done: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds that a job takes, by kind, from those of this study that are done; kinds of which none is done are left out."""
    seconds: dict[str, float] = {}
    for kind in SPLIT_BY_KIND:
        known = [done[job.key] for job in jobs if job.kind == kind and job.key in done]
        if known:
            seconds[kind] = statistics.fmean(known)
    return seconds


def merge(folder: str, jobs: Sequence[Job], done: Mapping[str, float]) -> str:
    """Write the rows of all finished evaluations into one table, in the order of the plan, and their predictions beside it.

    Raises:
        RunError: no evaluation is done.
    """
    table = fs.join(folder, RESULTS)
    parts = [job.output for job in jobs if job.kind == "evaluate" and job.key in done]
    rows = [line for part in parts for line in fs.read_bytes(part).splitlines(keepends=True)]
    if not rows:
        raise RunError(f"{folder}: no evaluation is done")
    fs.write_bytes(table, b"".join(rows))
    kept = predictions.folder_of(table)
    fs.make_dirs(kept)
    for part in parts:
        _share(predictions.folder_of(part), kept)
    return table


def _share(source: str, kept: str) -> None:
    """Give a folder the files of another, without a second copy where the disk can do that."""
    if not os.path.isdir(source):
        return
    for name in sorted(os.listdir(source)):
        place = os.path.join(kept, name)
        if os.path.exists(place):
            continue
        try:
            os.link(os.path.join(source, name), place)
        except OSError:
            shutil.copyfile(os.path.join(source, name), place)


def only(jobs: Sequence[Job], key: str) -> list[Job]:
    """Return the one job that a key, or its first digits, names.

    Raises:
        UsageError: none, or several.
    """
    fitting = [job for job in jobs if job.key.startswith(key)]
    if len(fitting) != 1:
        raise UsageError(f"--job {key}: {len(fitting)} jobs of this study", "the first digits of one key", "--dry-run lists them")
    return fitting
