"""Every command that takes workers or threads has a bound on them, and no process computes with more threads than cores."""

from __future__ import annotations

import dataclasses
import importlib
import threading
import time
from typing import Any

import numpy as np
import pytest

from curate.dedup import near_duplicates
from curate.listing import connect
from shards.core.cli import Command
from shards.core.config import MOST_WORKERS
from shards.core.engines.local import default_workers, threads_of

ROOMS = ("curate", "shards", "train", "eval")
COUNTS = ("workers", "threads")


def commands() -> list[tuple[str, str, Command]]:
    found = []
    for room in ROOMS:
        cli = importlib.import_module(f"{room}.cli")
        verbs = cli.commands() if hasattr(cli, "commands") else cli.COMMANDS
        found += [(room, name, command) for name, command in verbs.items()]
    return found


def config_of(command: Command) -> Any:
    if not isinstance(command.config, str):
        return command.config
    module, _, name = command.config.partition(":")
    return getattr(importlib.import_module(module), name)


def test_each_count_of_workers_has_a_bound() -> None:
    unbounded, bounded = [], 0
    for room, name, command in commands():
        for field in dataclasses.fields(config_of(command)):
            if field.name not in COUNTS:
                continue
            most = field.metadata["limits"]["most"]
            bounded += 1
            if most is None or most > MOST_WORKERS:
                unbounded.append(f"{room} {name} --{field.name}")
    assert unbounded == []
    assert bounded > 15


@pytest.mark.parametrize(
    "line",
    [
        "curate build-shards --source folder --input x --output y", "curate fetch --source cc3m --input x --output y", "shards index x",
        "shards verify x", "shards subset x --output y --samples 1", "train clip --manifest x --output y --epochs 1", "train check --manifest x",
        "eval zeroshot --checkpoint x --data y",
    ],
)  # fmt: skip
def test_more_workers_than_the_bound_are_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    room, *arguments = line.split()
    code = importlib.import_module(f"{room}.cli").main([*arguments, "--workers", "99999"])
    said = capsys.readouterr().err
    assert code == 2
    assert "workers: found 99999" in said
    assert "at most 1,024" in said


def test_threads_are_never_more_than_cores() -> None:
    cores = default_workers()
    assert [threads_of(n) for n in (0, 1, cores, 99_999)] == [cores, 1, cores, cores]


def test_duckdb_has_no_more_threads_than_cores() -> None:
    wanted = 64  # few enough that a fault fails here instead of hanging
    con = connect("", wanted)
    assert con.execute("SELECT current_setting('threads')").fetchone() == (min(wanted, default_workers()),)


def test_duplicates_are_searched_with_no_more_threads_than_cores() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 50_000, np.uint64)
    before, peak, done = threading.active_count(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, threading.active_count())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        near_duplicates(hashes, 2, threads=500)
    finally:
        done.set()
        watcher.join()
    assert peak <= before + 1 + default_workers()
