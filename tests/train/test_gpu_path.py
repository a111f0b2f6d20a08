"""The way to a GPU, on a machine without one: a GPU that copies late, a ring that cannot be page-locked, DALI's rows on a device.

The stand-ins for CUDA do late or on the host what a GPU does; all else is the real loader, process and pipeline.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from pictures import differences, encoded
from PIL import Image

from shards.core.errors import UsageError
from shards.manifest import read_manifest
from tests.train import runs
from tests.train.test_engines import broken_tables, loader
from train import distributed, run
from train.data.augment.params import Augment
from train.data.batch import Needs
from train.data.decode import dali
from train.data.feed import SLOTS, Feed
from train.data.loader import Loader
from train.tasks.clip import encode_texts

MakeShards = Callable[..., str]


class LateGpu:
    """A GPU that does what is queued only when it is waited for, and then slowly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: int = 0) -> None:
        self.queue: list[Callable[[], None]] = []
        self.done = 0
        self.calls: list[str] = []
        monkeypatch.setattr(
            torch.cuda, "cudart", lambda: SimpleNamespace(cudaHostRegister=self.register, cudaHostUnregister=self.unregister)
        )
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(torch.cuda, "Event", lambda: LateEvent(self))
        self.status = status
        close = Feed.close
        monkeypatch.setattr(Feed, "close", lambda feed: (self.calls.append("close"), close(feed))[1])

    def register(self, address: int, length: int, flags: int) -> int:
        self.address = address
        self.calls.append("register")
        return self.status

    def unregister(self, address: int) -> int:
        assert address == self.address
        assert self.done == len(self.queue)  # no copy from the ring is under way
        self.calls.append("unregister")
        return 0


class LateEvent:
    """A place in the queue of a late GPU."""

    def __init__(self, gpu: LateGpu) -> None:
        self.gpu = gpu

    def record(self, stream: LateGpu) -> None:
        self.place = len(stream.queue)

    def synchronize(self) -> None:
        time.sleep(0.05)  # by now the loader's process has filled all that it may
        for copy in self.gpu.queue[self.gpu.done : self.place]:
            copy()
        self.gpu.done = max(self.gpu.done, self.place)


def ring(build: str, device: str, process: bool = True) -> Loader:
    needs = Needs(views=(Augment(scale=(0.3, 1.0)),), captions=True, context_length=10)
    source = [(read_manifest(build), None)]
    return Loader(source, batch_size=8, image_size=24, seed=5, needs=needs, workers=2, device=device, process=process)


def test_a_slot_is_not_written_while_a_gpu_copies_from_it(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    build, steps = make_shards(24), 2 * SLOTS
    with contextlib.closing(ring(build, "cpu", process=False).batches()) as batches:
        expected = [(batch.images.clone(), batch.tokens) for batch in itertools.islice(batches, steps)]
    gpu = LateGpu(monkeypatch)
    copied: list[tuple[torch.Tensor, torch.Tensor]] = []
    most_behind = 0
    with contextlib.closing(ring(build, "cuda:0").batches()) as batches:
        for batch in itertools.islice(batches, steps):
            most_behind = max(most_behind, len(gpu.queue) - gpu.done)
            gpu.queue.append(lambda batch=batch: copied.append((batch.images.clone(), batch.tokens.clone())))  # type: ignore[misc]
    assert gpu.calls == ["register", "unregister", "close"]
    assert most_behind == 2 - 1  # a whole step is queued when one waits: the GPU does not run dry
    assert len(copied) == steps
    for (images, tokens), (its_images, its_tokens) in zip(copied, expected, strict=True):
        assert torch.equal(images, its_images)
        assert torch.equal(tokens, its_tokens)  # type: ignore[arg-type]


def test_a_ring_that_cannot_be_locked_is_said_and_leaves_no_error(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = LateGpu(monkeypatch, status=2)
    zeros = torch.zeros

    def launch(*size: int, device: Any = None) -> torch.Tensor:
        gpu.calls.append(f"launch on {device}")
        gpu.status = 0
        zeros(*size)
        raise RuntimeError("CUDA error: out of memory")

    with contextlib.closing(ring(make_shards(24), "cuda:0").batches()) as batches:
        monkeypatch.setattr(torch, "zeros", launch)
        batch = next(batches)
        monkeypatch.setattr(torch, "zeros", zeros)
        assert batch.step == 0
    assert gpu.calls == ["register", "launch on cuda:0", "close"]
    assert gpu.status == 0
    assert "cannot be page-locked (CUDA error 2)" in capsys.readouterr().err


def of_pngs(i: int, jpeg: bytes) -> bytes:
    """Of 24 pictures two are JPEGs that only a decode finds out, six fine ones; the others are PNGs, which the host decodes."""
    if i in (8, 13):
        return broken_tables(jpeg)
    return jpeg if i % 4 == 0 else encoded(Image.open(io.BytesIO(jpeg)), "PNG")


@pytest.fixture
def _dali_on_a_device_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI's pipeline for a GPU, run on the CPU; and for a stream, nothing."""
    pipeline_def, fn, types = dali._toolkit()
    image_slice = lambda *args, device, **options: fn.decoders.image_slice(*args, device="cpu", **options)
    on_host = SimpleNamespace(external_source=fn.external_source, resize=fn.resize, decoders=SimpleNamespace(image_slice=image_slice))
    crops, real = dali._crops, dali._Gpu
    monkeypatch.setattr(dali, "_toolkit", lambda: (pipeline_def, on_host, types))
    monkeypatch.setattr(dali, "_crops", lambda settings, *others: crops({**settings, "device_id": None}, *others))
    monkeypatch.setattr(dali, "_Gpu", lambda device: real("cpu"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)


@pytest.mark.usefixtures("_dali_on_a_device_of_the_host")
def test_rows_of_the_host_and_of_dali_meet_on_the_device(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    build = make_shards(24, width=90, height=70, recode=of_pngs)
    are_equal: list[bool] = []
    source, on_cpu = loader(build, "dali", device="cuda:0"), loader(build, "cpu")
    maker = source._maker
    with contextlib.closing(maker.run(0, lambda _: maker.new_slot())) as made, contextlib.closing(on_cpu.batches()) as batches:
        for (facts, slot), batch in itertools.islice(zip(made, batches, strict=False), 6):
            assert facts.uids == batch.uids
            (images,) = slot.on_device
            assert images.shape == slot.images[0].shape
            for row in range(8):
                mean, _ = differences(images[row], batch.images[row].permute(1, 2, 0))
                are_equal.append(mean == 0)
                assert mean <= 2.5, (facts.step, row)  # DALI's resize is not ours
    assert len(maker.bad) == 2
    assert 0.5 < np.mean(are_equal) < 1  # the rows that were decoded on the host are equal to the bit


@pytest.mark.parametrize("groups", [1, 2])
def test_ids_go_to_a_gpu_as_they_are_and_page_locked(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ids:
        """Ids that write down what is done to them."""

        def __init__(self) -> None:
            self.calls: list[str] = []

        def __getattr__(self, name: str) -> Callable[..., Ids]:
            return lambda *args, **options: (self.calls.append(" ".join([name, *map(str, args), *options])), self)[1]

    ids = Ids()
    monkeypatch.setattr("train.data.text.encode_text", lambda model, tokens, groups: tokens)
    images, batch = SimpleNamespace(device=torch.device("cuda:0")), SimpleNamespace(tokens=ids)
    encode_texts(None, batch, images, groups)  # type: ignore[arg-type]
    assert ids.calls == (["contiguous", "pin_memory", "to cuda:0 non_blocking", "long"] if groups == 1 else [])


def test_processes_wait_for_hours_and_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    joined: list[Any] = []
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: joined.append((backend, timeout.total_seconds())))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with distributed.session("cpu") as device:
        assert device == torch.device("cpu")
    assert joined[0][0] == "gloo"
    assert joined[0][1] >= 6 * 3600
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match=r"device 'cuda:1' for each of 2 processes"), distributed.session("cuda:1"):
        pass
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # one process on each of two machines
    assert distributed._device("cuda:1") == torch.device("cuda", 1)


def test_parts_that_are_gathered_lie_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_gather(parts: list[torch.Tensor], ours: torch.Tensor) -> None:
        for part in (*parts, ours):
            assert part.is_contiguous()
        for part in parts:
            part.copy_(ours)

    monkeypatch.setattr(dist, "all_gather", all_gather)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    rows = torch.arange(6.0).view(2, 3).t()
    assert torch.equal(distributed.gather(rows), torch.cat([rows, rows]))


@pytest.mark.parametrize(("processes", "threads"), [("1", 8), ("3", 2), ("16", 1)])
def test_processes_share_the_cores_of_a_machine(processes: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    monkeypatch.setattr(run, "default_workers", lambda: 8)
    monkeypatch.setattr(run, "threads_of", lambda count: min(count, 8))  # of that machine's 8 cores
    monkeypatch.setattr(run, "Loader", lambda sources, **options: options)
    task: Any = SimpleNamespace(image_size=16, needs=Needs())
    made: Any = run._loader([], task, runs.config("clip", "none", tmp_path, workers=0), torch.device("cpu"))
    assert made["workers"] == threads
