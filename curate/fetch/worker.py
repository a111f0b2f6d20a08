"""One shard of a fetch, in a worker process: downloaded in a folder of its own, then renamed into the pool.

Imports img2dataset only when a task runs: it takes seconds, prints, asks a server for news of a dependency, and wandb, which
it imports, makes temporary folders that it removes only where a process ends of its own accord.
"""

from __future__ import annotations

import functools
import os
import tempfile

from curate.fetch.pool import OWN
from curate.fetch.state import temporary
from curate.fetch.task import Fetched, Task
from shards.core import fs


def fetch_shard(task: Task) -> Fetched:
    """Download one shard and commit it."""
    _settle(task.pool)
    from curate.fetch.downloader import download_shard

    return download_shard(task)


@functools.cache
def _settle(pool: str) -> None:
    """Make this process fit for img2dataset: its talk goes to a log, its temporary files into the pool, and it looks for no updates."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    os.environ["TMPDIR"] = tempfile.tempdir = temporary(pool, f"files-{os.getpid()}")
    fs.make_dirs(tempfile.tempdir)
    log = os.open(os.path.join(pool, OWN, "worker.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
