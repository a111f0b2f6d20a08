"""`evaluate study STUDY.yaml`: list its jobs, run what is missing, gather the results and draw the page."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from eval import results
from eval.study import jobs as planning
from eval.study import run as running
from eval.study.jobs import Job
from eval.study.spec import read
from shards.core import fs
from shards.core.config import option
from shards.core.console import counted, duration, emit, muted, say, table
from shards.core.errors import UsageError

_SHOWN = 5
PAGE = "study.html"


@dataclass(frozen=True)
class StudyConfig:
    """Flags of `evaluate study`."""

    study: str = option(help="a study file", positional=True, metavar="STUDY.yaml")
    output: str = option("", "folder of builds, trainings and results (default: beside the file, without its suffix)", metavar="DIR")
    dry_run: bool = option(False, "list the jobs, and what they will take as far as that is known")
    workers: int = option(1, "jobs at a time", least=1, most=1024)
    gpus: int = option(0, "run as many jobs at a time as there are GPUs, each on its own", least=0, most=64)
    job: str = option("", "run this one job alone, by the first digits of its key: what it needs must be done", metavar="KEY")
    slurm: bool = option(False, "print a SLURM script with an array for each kind of job, instead of running them")
    strict: bool = option(False, "exit 1 where a job failed (it is so anyway) or something was passed over")
    json: bool = option(False, "print JSON")


def study(config: StudyConfig) -> int:
    """Run a study and return the exit code: 1 where a job failed.

    Raises:
        UsageError: a file that cannot be run; nothing is started then.
    """
    stated = read(config.study)
    folder = config.output or config.study.removesuffix(".yaml").removesuffix(".yml")
    if folder == config.study:
        raise UsageError(f"{config.study}: no .yaml file", advice="--output DIR")
    jobs = planning.plan(stated, folder)
    if not config.job:  # each task of an array is such a job: a build alone refuses its own flags
        running.check_builds(folder, jobs)
    if config.dry_run:
        _list(config, folder, jobs)
        return 0
    if config.slurm:
        emit(slurm_script(config, jobs))
        return 0
    chosen = running.only(jobs, config.job) if config.job else jobs
    fs.make_dirs(folder)
    if config.job:
        _check_needs(folder, jobs, chosen[0])
        outcome = running.run(folder, [*_needed(folder, jobs, chosen[0]), *chosen], 1, config.gpus)
        return int(bool(outcome.failed))
    with fs.locked(folder):
        outcome = running.run(folder, jobs, config.workers, config.gpus)
    return _finish(config, folder, jobs, outcome)


def _finish(config: StudyConfig, folder: str, jobs: Sequence[Job], outcome: running.Outcome) -> int:
    from eval.plots._command import plot
    from eval.plots._config import PlotConfig
    from eval.tables import long_table

    for key, why in outcome.failed.items():
        say(f"failed: {next(job.name for job in jobs if job.key == key)}: {why}")
    path = running.merge(folder, jobs, outcome.done)
    rows = [row for row in results.read(path) if row.get("main")]
    emit(rows if config.json else long_table(rows))
    say(f"{path}: the rows of {counted(len([job for job in jobs if job.kind == 'evaluate' and job.key in outcome.done]), 'evaluation')}")
    page = fs.join(folder, PAGE)
    try:
        with muted():
            plot(PlotConfig(results=path, output=page))
        say(f"{page}: the plots that these results can fill")
    except UsageError as error:
        say(f"no page: {error.found}")
    return 1 if outcome.failed else 0


def _list(config: StudyConfig, folder: str, jobs: Sequence[Job]) -> None:
    """Print the jobs with their state, and what is left to do."""
    done = running.finished(folder, jobs)
    seconds = running.estimates(jobs, done)
    if config.json:
        emit([{"key": job.key, "kind": job.kind, "name": job.name, "done": job.key in done, "command": list(job.command)} for job in jobs])
        return
    rows = [[job.key[:12], job.kind, job.name, "done" if job.key in done else ""] for job in jobs]
    emit(table(["key", "kind", "job", "state"], rows))
    left = Counter(job.kind for job in jobs if job.key not in done)
    for kind, count in left.items():
        known = duration(seconds[kind] * count / config.workers) if kind in seconds else "not known before one is done"
        say(f"{kind}: {count} to do, {known}")
    say(f"disk: {_disk(folder, jobs, done)}")


def _disk(folder: str, jobs: Sequence[Job], done: dict[str, float]) -> str:
    """Return in words what the trainings will take, from those that are done."""
    sizes = [_bytes_in(job.output) for job in jobs if job.kind == "train" and job.key in done]
    left = sum(job.kind == "train" and job.key not in done for job in jobs)
    if not sizes:
        return f"{counted(left, 'checkpoint')} to write, of a size not known before one is done"
    each = sum(sizes) / len(sizes)
    return f"{sum(sizes) / 1e6:,.0f} MB in {counted(len(sizes), 'training')}, about {each * left / 1e6:,.0f} MB more"


def _bytes_in(folder: str) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        total += sum(os.path.getsize(os.path.join(path, name)) for name in names)
    return total


def _check_needs(folder: str, jobs: Sequence[Job], job: Job) -> None:
    """Refuse a job whose inputs are not there.

    Raises:
        UsageError: naming what is missing.
    """
    done = running.finished(folder, jobs)
    missing = [other.name for other in jobs if other.key in job.needs and other.key not in done]
    if missing:
        raise UsageError(f"--job {job.key[:12]}: needs {', '.join(missing[:_SHOWN])}, which is not done", advice="run that job first")


def _needed(folder: str, jobs: Sequence[Job], job: Job) -> list[Job]:
    return [other for other in jobs if other.key in job.needs]


def slurm_script(config: StudyConfig, jobs: Sequence[Job]) -> str:
    """Return a script that submits one array for each kind of job, each after the one before; `sbatch` runs the jobs by their keys."""
    lines = ["#!/bin/bash", f"# {counted(len(jobs), 'job')} of {config.study}; submit with: bash THIS_FILE", "set -euo pipefail"]
    gpu = " --gres=gpu:1" if config.gpus else ""
    before = ""
    for kind in running.SPLIT_BY_KIND:
        keys = [job.key[:16] for job in jobs if job.kind == kind]
        if not keys:
            continue
        folder = f" --output {shlex.quote(config.output)}" if config.output else ""
        call = f"evaluate study {shlex.quote(config.study)}{folder} --job ${{keys[$SLURM_ARRAY_TASK_ID]}}"
        depends = f" --dependency=afterany:${before}" if before else ""
        wrapped = f"keys=({' '.join(keys)}); {call}"
        lines.append(f"{kind}=$(sbatch --parsable --array=0-{len(keys) - 1}{gpu}{depends} --wrap {shlex.quote(wrapped)})")
        before = kind
    final = f"evaluate study {shlex.quote(config.study)}" + (f" --output {shlex.quote(config.output)}" if config.output else "")
    lines.append(f"sbatch --dependency=afterany:${before} --wrap {shlex.quote(final)}  # gathers the results")
    return "\n".join(lines)
