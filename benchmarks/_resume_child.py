"""A run that consumes batches, saves after each, and kills itself where it is told: `_resume_child.py prepare|run TASK.json`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from typing import Any

from _resume_feed import Job
from _resume_peers import PEERS

MISSING = 3  # exit code: a package of the peer is not installed
STEP = 0.02  # seconds of a step, in which workers run ahead as they do in a training


def versions(name: str) -> dict[str, str]:
    """Return the versions of a peer's packages; exits with MISSING where there is none."""
    known = {}
    for package in PEERS[name].packages:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"{package} is not installed", file=sys.stderr)
            raise SystemExit(MISSING) from None
    return known


def save(path: Path, progress: dict[str, Any]) -> None:
    """Replace the checkpoint at once, so that a kill leaves the old or the new one."""
    new = path.with_suffix(".new")
    new.write_bytes(pickle.dumps(progress))
    new.replace(path)


def run(task: dict[str, Any], job: Job) -> None:
    """Consume batches to the end of the last epoch, from the checkpoint where there is one.

    The task's `kills` are numbers of batches consumed since the beginning of the whole run. At each of them the process
    and its workers are killed, directly behind the checkpoint: a loader that restores exactly repeats and loses nothing.
    """
    checkpoint, log_path = Path(task["checkpoint"]), Path(task["log"])
    feed = PEERS[task["peer"]](job)
    progress: dict[str, Any] = {"epoch": 0, "done": 0, "consumed": 0, "state": None}
    if checkpoint.exists():
        progress = pickle.loads(checkpoint.read_bytes())
        feed.restore(progress["state"])
    with log_path.open("a") as log:
        for epoch, keys in feed.run(progress["epoch"], progress["done"]):
            done = progress["done"] + 1 if epoch == progress["epoch"] else 1
            log.write(json.dumps({"time": time.time(), "keys": keys}) + "\n")
            log.flush()
            progress = {"epoch": epoch, "done": done, "consumed": progress["consumed"] + 1, "state": feed.state()}
            save(checkpoint, progress)
            time.sleep(STEP)
            if progress["consumed"] in task["kills"]:
                os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    """Do what the task says; the process leads a group of its own (see `resume.start`)."""
    task = json.loads(Path(sys.argv[2]).read_text())
    job = Job(**task["job"])
    if sys.argv[1] == "prepare":
        known = versions(task["peer"])
        with contextlib.redirect_stdout(sys.stderr):
            PEERS[task["peer"]].prepare(job)
        print(json.dumps(known))
    else:
        run(task, job)


if __name__ == "__main__":
    main()
