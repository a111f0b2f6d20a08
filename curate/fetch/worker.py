"""One shard of a fetch, in a worker process: downloaded in a folder of its own, then renamed into the pool.

Imports img2dataset only when a task runs: it takes seconds, prints, and asks a server for news of a dependency.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
from typing import Any

from curate.fetch.pool import OWN
from curate.fetch.task import Fetched, Task


def fetch_shard(task: Task) -> Fetched:
    """Download one shard and commit it."""
    _settle(task.pool)
    from curate.fetch.downloader import download_shard

    return download_shard(task)


@functools.cache
def _settle(pool: str) -> None:
    """Make this process fit for img2dataset: its talk goes to a log, it looks for no updates, it ends with its parent."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    log = os.open(os.path.join(pool, OWN, "worker.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(supervisor: Any) -> None:
    """End this process when its supervisor has gone, so that a resumed fetch never meets an orphan in the same pool.

    The supervisor is not the parent in the system's sense: workers are forked off a server.
    """
    supervisor.join()
    os._exit(1)
