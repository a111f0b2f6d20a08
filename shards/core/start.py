"""Where the console commands start: before anything else is imported, so that an early Ctrl-C is one word and no traceback.

This module imports nothing; `shards.core.interrupt` takes over once a room's command line runs.
"""

from __future__ import annotations

import sys


def run(module: str) -> int:
    """Import a room's command line and run it; return its exit code."""
    try:
        from importlib import import_module

        return int(import_module(module).main())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


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
