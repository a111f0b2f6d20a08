"""Where the console commands start: before anything else is imported, so that an early Ctrl-C is one word and no traceback.

This module imports nothing; `shards.core.interrupt` takes over once a room's command line runs.
"""

from __future__ import annotations

import sys

# A thread of Arrow's that has read a Parquet file gives back the file's bytes, for which it waits for the interpreter. Where the
# interpreter ends first, C++ aborts the process: exit code 134 instead of 2, in 2 of 18 refusals on two busy cores, in none of 50 with
# this wait.
SETTLE = 0.02  # seconds; the wait takes microseconds, but the thread has to get a core


def let_arrow_settle() -> None:
    """Let go of the interpreter for a moment, if Arrow was used, so that its threads do not meet the end of it."""
    if "pyarrow" in sys.modules:
        from time import sleep

        sleep(SETTLE)


def run(module: str) -> int:
    """Import a room's command line and run it; return its exit code."""
    try:
        from importlib import import_module

        return int(import_module(module).main())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    finally:
        let_arrow_settle()


def curate() -> int:
    """Run `curate`."""
    return run("curate.cli")


def shards() -> int:
    """Run `shards`."""
    return run("shards.cli")


def train() -> int:
    """Run `train`."""
    return run("train.cli")


def evaluate() -> int:
    """Run `evaluate`."""
    return run("eval.cli")
