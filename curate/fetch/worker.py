"""One shard of a fetch, in a worker process: downloaded in a folder of its own, then renamed into the pool.

Imports img2dataset only when a task runs: it takes seconds, prints, and asks a server for news of a dependency.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
import time
from dataclasses import dataclass

from curate.fetch.web import Limits


@dataclass(frozen=True)
class Task:
    """One shard: the pool (a local folder), the shard's number, and how it is downloaded."""

    pool: str
    shard: int
    limits: Limits
    threads: int
    samples_per_shard: int
    image_size: int | None
    resize_mode: str
    resize_only_if_bigger: bool


@dataclass(frozen=True)
class Fetched:
    """A shard that is in the pool."""

    shard: int
    urls: int
    successes: int


def fetch_shard(task: Task) -> Fetched:
    """Download one shard and commit it."""
    _settle()
    from curate.fetch.downloader import download_shard

    return download_shard(task)


@functools.cache
def _settle() -> None:
    """Make this process fit for img2dataset: no talk on stdout, no look for updates, no life without its parent."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_leave_with, args=(parent.pid,), daemon=True).start()


def _leave_with(parent: int | None) -> None:
    """End this process when its parent has gone, so that a resumed fetch never meets an orphan in the same pool."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
