"""A batch that the machine cannot hold is refused before anything is allocated."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from shards.core.errors import UsageError
from tests.train import runs
from train import loop
from train.data.feed import HELD, SLOTS, slot_bytes
from train.data.maker import LoaderSettings
from train.memory import check_memory, memory_of_machine, needed

MakeShards = Callable[..., str]
CPU = torch.device("cpu")


def test_the_ring_is_what_the_loader_makes() -> None:
    settings = LoaderSettings(sources=(), batch_size=24, image_size=48, seed=0)
    assert abs(needed(24, 48).ring - SLOTS * slot_bytes(settings)) < SLOTS * 4096  # whole pages


def test_what_is_needed_in_closed_form() -> None:
    pixels = 64 * 2 * 3 * 100 * 100
    assert needed(64, 100, views=2).ring == SLOTS * pixels
    assert needed(64, 100, views=2).images == 4 * pixels
    assert needed(64, 100, views=2, accum=4, number_bytes=2).images == pixels // 2
    assert needed(64, 100, views=2, on_gpu=True).ring == (SLOTS + HELD) * pixels


def test_the_machine_has_no_more_than_psutil_says() -> None:
    assert 2**28 < memory_of_machine() <= psutil.virtual_memory().total


def test_the_bound_is_the_memory_of_the_machine() -> None:
    there, each = memory_of_machine(), needed(1, 1000)
    fits = there // (each.ring + each.images)
    check_memory(fits, 1000, CPU)
    with pytest.raises(UsageError, match="of memory"):
        check_memory(fits + 1, 1000, CPU)
    with pytest.raises(UsageError, match="in each of 3 processes"):
        check_memory(fits // 2, 1000, CPU, processes=3)


@pytest.mark.usefixtures("micro_models", "one_thread")
@pytest.mark.parametrize("values", [{"image_size": 100_000}, {"batch_size": 10_000_000}, {"image_size": 100_000, "model": "micro-vit"}])
@pytest.mark.parametrize("dry", [True, False])
def test_a_training_that_cannot_fit_is_refused_at_once(make_shards: MakeShards, tmp_path: Path, values: dict[str, Any], dry: bool) -> None:
    build = make_shards(20)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UsageError) as refusal:
        loop.train(runs.config("clip", build, tmp_path / "run", dry_run=dry, **values))
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "in KiB: less than one GiB more"
    assert "at least" in refusal.value.found
    assert "GiB of memory" in refusal.value.found
    assert "what this machine has" in refusal.value.allowed
    assert not (tmp_path / "run" / "log.jsonl").exists()
