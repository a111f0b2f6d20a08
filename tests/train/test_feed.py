"""The loader in a process of its own: the same batches, and no process left behind whatever ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from train.data.augment.params import Augment
from train.data.batch import Batch, Needs
from train.data.feed import SLOTS, Child, Feed, slot_bytes
from train.data.loader import Loader
from train.data.maker import LoaderSettings

MakeShards = Callable[..., str]
NEEDS = Needs(views=(Augment(scale=(0.3, 1.0)), Augment(interpolation="bilinear")), captions=True, context_length=10, classes=4)


def settings(build: str, **options: Any) -> dict[str, Any]:
    return {
        "sources": ((read_manifest(build), None),),
        "batch_size": 8,
        "image_size": 24,
        "seed": 5,
        "needs": NEEDS,
        "weights": "information",
        **options,
    }


def broken(i: int, jpeg: bytes) -> bytes:
    return jpeg[: len(jpeg) // 2] if i in (3, 11) else jpeg


def content(batch: Batch) -> dict[str, Any]:
    """Return all that a batch holds, copied: the next one may take its place."""
    assert batch.tokens is not None
    assert batch.labels is not None
    assert batch.weights is not None
    return {
        "step": batch.step,
        "uids": batch.uids,
        "images": [view.images.numpy().tobytes() for view in batch.views],
        "strides": [view.images.stride() for view in batch.views],
        "windows": [view.windows for view in batch.views],
        "factors": [view.params.factors.tolist() for view in batch.views],
        "places": (batch.epoch.tolist(), batch.sources.tolist(), batch.positions.tolist()),
        "captions": batch.captions,
        "tokens": batch.tokens.tolist(),
        "labels": batch.labels.tolist(),
        "weights": batch.weights.tolist(),
        "replaced": batch.replaced,
    }


def take(loader: Loader, n: int, start: int = 0) -> list[dict[str, Any]]:
    with contextlib.closing(loader.batches(start)) as batches:
        return [content(batch) for batch in itertools.islice(batches, n)]


def children() -> list[psutil.Process]:
    """Return the loaders' processes of this one."""
    here = psutil.Process()
    return [child for child in here.children() if any("train.data.feed" in part for part in child.cmdline())]


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    yield
    assert children() == []


@pytest.mark.parametrize(("engine", "workers"), [("cpu", 3), ("dali", 2)])
def test_a_process_gives_the_same_batches(make_shards: MakeShards, engine: str, workers: int) -> None:
    build = make_shards(24, classes=True, recode=broken)
    inside = Loader(**settings(build, engine=engine, workers=2))
    outside = Loader(**settings(build, engine=engine, workers=workers), process=True)
    expected = take(inside, 2 * SLOTS)
    assert take(outside, 2 * SLOTS) == expected
    assert outside.bad == inside.bad
    assert len(inside.bad) == 2
    if engine == "cpu":
        resumed = Loader(**settings(build, workers=1), process=True)
        resumed.restore(list(inside.bad.values()))
        assert take(resumed, 3, start=4) == expected[4:7]


def test_a_batch_stays_until_the_next_is_asked_for(make_shards: MakeShards) -> None:
    loader = Loader(**settings(make_shards(24, classes=True)), process=True)
    with contextlib.closing(loader.batches()) as batches:
        for batch in itertools.islice(batches, SLOTS + 2):
            before = content(batch)
            time.sleep(0.1)  # by now the process has filled all that it may
            assert content(batch) == before


def test_signals_pass_it_by_and_a_kill_is_named(make_shards: MakeShards) -> None:
    loader = Loader(**settings(make_shards(24, classes=True)), process=True)
    with contextlib.closing(loader.batches()) as batches:
        next(batches)
        (child,) = children()
        assert "libtorch" not in Path(f"/proc/{child.pid}/maps").read_text()
        for number in (signal.SIGINT, signal.SIGTERM) * 2:
            os.kill(child.pid, number)
        steps = [batch.step for batch in itertools.islice(batches, 2 * SLOTS)]
        assert steps == list(range(1, 2 * SLOTS + 1))
        child.kill()
        with pytest.raises(
            RunError, match=r"the loader's process was killed by SIGKILL \(out of memory\?\) while it made step \d+ "
        ) as error:
            for batch in batches:
                steps.append(batch.step)
    assert f"step {steps[-1] + 1} " in str(error.value)
    assert "last checkpoint" in error.value.advice
    assert steps[-1] <= 3 * SLOTS


ORPHAN = """
import sys, time
from shards.manifest import read_manifest
from train.data.batch import Needs
from train.data.feed import Feed
from train.data.maker import LoaderSettings
source = ((read_manifest(sys.argv[1]), None),)
feed = Feed(LoaderSettings(sources=source, batch_size=8, image_size=24, seed=5, needs=Needs(captions=True)), 0, [])
next(feed.batches())
assert "torch" not in sys.modules
print(feed.child.process.pid, flush=True)
time.sleep(60)
"""


def test_it_does_not_outlive_a_killed_trainer(make_shards: MakeShards) -> None:
    arguments = [sys.executable, "-c", ORPHAN, make_shards(24)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        child = psutil.Process(int(trainer.stdout.readline()))
        assert child.is_running()
        trainer.kill()
    gone, _ = psutil.wait_procs([child], timeout=8)
    assert gone == [child]


def test_errors_arrive_as_they_were(make_shards: MakeShards) -> None:
    build = make_shards(24, classes=True, per_shard=8)
    unknown = Loader(**settings(build, labels="clas"), process=True)
    with pytest.raises(UsageError, match="no column 'clas' with labels") as error:
        take(unknown, 1)
    assert error.value.advice == "did you mean 'class'?"
    Path(build, "00001.tar").unlink()
    with pytest.raises(RunError, match=r"00001\.tar: No such file or directory, while reading") as missing:
        take(Loader(**settings(build), process=True), 3)
    assert missing.value.advice == "shards verify"


def test_closing_early_leaves_no_process(make_shards: MakeShards) -> None:
    made = LoaderSettings(**settings(make_shards(24, classes=True), workers=2))
    for batches in (0, 1):
        feed = Feed(made, 0, [])
        for _ in itertools.islice(feed.batches(), batches):
            pass
        process = feed.child.process
        feed.close()
        assert process.poll() is not None


def test_a_process_started_ahead_serves_the_first_call(make_shards: MakeShards) -> None:
    build = make_shards(24, classes=True)
    with contextlib.closing(Child()) as child:
        loader = Loader(**settings(build), process=True, child=child)
        ahead = take(loader, 3)
        assert child.process.poll() is not None
        again = take(loader, 3)
    assert ahead == again == take(Loader(**settings(build), process=True), 3)


def test_what_a_consumer_raises_closes_it(make_shards: MakeShards) -> None:
    loader = Loader(**settings(make_shards(24, classes=True)), process=True)
    with pytest.raises(ZeroDivisionError), contextlib.closing(loader.batches()) as batches:
        for _ in batches:
            assert len(children()) == 1
            raise ZeroDivisionError
    assert children() == []


def test_a_ring_holds_its_slots_apart(make_shards: MakeShards) -> None:
    made = LoaderSettings(**settings(make_shards(8, classes=True)))
    feed = Feed(made, 0, [])
    try:
        assert slot_bytes(made) >= 2 * 8 * 24 * 24 * 3 + 8 * 10 * 4
        arrays = [array for slot in feed.slots for array in (*slot.images, slot.tokens)]
        assert len(arrays) == 3 * SLOTS
        places = sorted((array.__array_interface__["data"][0], array.nbytes) for array in arrays if array is not None)
        assert all(a + length <= b for (a, length), (b, _) in itertools.pairwise(places))
        assert places[-1][0] + places[-1][1] - places[0][0] <= SLOTS * slot_bytes(made) == len(feed.memory)
        assert all(array.dtype in (np.uint8, np.int32) for array in arrays if array is not None)
    finally:
        feed.close()
