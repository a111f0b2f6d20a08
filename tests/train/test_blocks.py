"""Blocks are loaded once, and outside the lock: a thread that loads one does not stop those that read others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shards.core.errors import RunError
from shards.manifest import read_manifest
from train.data.blocks import Block, Source, used
from train.data.tars import TarFiles

MakeShards = Callable[..., str]
PATIENCE = 10  # seconds, after which a thread is taken to be stuck


@pytest.fixture
def source(make_shards: MakeShards) -> Source:
    """Three blocks of eight samples, of which two are kept."""
    import numpy as np

    manifest = read_manifest(make_shards(24, per_shard=8))
    return Source(manifest, used(manifest), np.array([0, 8, 16, 24]), TarFiles(), keep=2)


class Slow:
    """Loads blocks one by one as they are let go, and counts them."""

    def __init__(self, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        self.load, self.calls = source._load, list[int]()
        self.begun, self.go = threading.Event(), threading.Event()
        monkeypatch.setattr(source, "_load", self)

    def __call__(self, number: int) -> Block:
        self.calls.append(number)
        if number == 0:
            self.begun.set()
            assert self.go.wait(PATIENCE)
        return self.load(number)


def test_a_block_that_loads_stops_no_other_and_loads_once(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(source, monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(source.record, position) for position in (3, 5)]
        assert slow.begun.wait(PATIENCE)
        try:
            other: Any = pool.submit(source.record, 8).result(PATIENCE)
            assert not any(asked.done() for asked in first)
        finally:
            slow.go.set()
        (block, third), (same, _) = (asked.result(PATIENCE) for asked in first)
    assert sorted(slow.calls) == [0, 1]
    assert block is same
    assert (third.row, other[1].row) == (3, 0)
    source.record(16)  # of the two that are kept the first goes
    source.record(8)
    assert sorted(slow.calls) == [0, 1, 2]


def test_a_block_that_fails_is_tried_anew(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    load, fails = source._load, [True]

    def once(number: int) -> Block:
        if fails.pop() if fails else False:
            raise RunError("the disk is gone")
        return load(number)

    monkeypatch.setattr(source, "_load", once)
    with pytest.raises(RunError, match="the disk is gone"):
        source.record(0)
    assert source.record(0)[1].row == 0
