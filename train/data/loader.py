"""The training loader: step → batch, from shards, through either engine, with nothing to remember but the step."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from shards.manifest import Manifest
from train.data.batch import BadSample, Batch, View
from train.data.maker import BatchMaker, Facts, LoaderSettings, Slot

if TYPE_CHECKING:
    from train.data.feed import Child

AHEAD = 3  # batches made ahead by threads of the trainer's own process


class Loader:
    """Batches of a training by step. `bad` lists samples that cannot be used; restore it before `batches`."""

    def __init__(
        self, sources: Sequence[tuple[Manifest, float | None]], *, process: bool = False, child: Child | None = None, **settings: Any
    ) -> None:
        """Open the sources; nothing is read yet.

        Args:
            sources: manifests and their shares of the samples seen; None for all: shares follow sizes.
            process: make the batches in a process of their own. They are then valid until the next one is asked for.
            child: that process, if it has been started already; it serves the first call of `batches`.
            settings: fields of `LoaderSettings`.

        Raises:
            UsageError: sizes, weights or names that cannot be.
        """
        self.settings = LoaderSettings(sources=tuple(sources), **settings)
        self.process = process and may_be_apart(self.settings.engine, self.settings.device)
        self._child = child
        self._maker = BatchMaker(self.settings)
        self.order, self.sources = self._maker.order, self._maker.sources
        self.bad: dict[tuple[int, int], BadSample] = {}

    @property
    def epoch_samples(self) -> int:
        """Samples of one pass over all sources."""
        return sum(source.samples for source in self.sources)

    def repeats(self, step: int) -> list[float]:
        """Return how often each source was seen before a step, in its own epochs."""
        return [taken / source.samples for taken, source in zip(self.order.taken(step), self.sources, strict=True)]

    def restore(self, bad: Sequence[Sequence[Any]]) -> None:
        """Take the list of an earlier part of this training, so that what cannot be decoded is not tried again."""
        for row in bad:
            sample = BadSample(*row)
            self.bad[(sample.source, sample.position)] = sample

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of global steps `start`, `start` + 1, … without end; close it to stop the threads.

        Raises:
            RunError: a shard does not hold what its manifest says, or nothing decodes.
        """
        made = self._from_process(start) if self.process else self._from_threads(start)
        with contextlib.closing(made):  # type: ignore[type-var]
            for facts, slot in made:
                for sample in facts.bad:
                    self.bad[(sample.source, sample.position)] = sample
                yield as_batch(facts, slot)

    def _from_threads(self, start: int) -> Iterator[tuple[Facts, Slot]]:
        self._maker.restore(list(self.bad.values()))
        return self._maker.run(start, lambda _: self._maker.new_slot(), AHEAD)

    def _from_process(self, start: int) -> Iterator[tuple[Facts, Slot]]:
        from train.data.feed import HELD, Feed

        on_gpu = self.settings.device.startswith("cuda")
        child, self._child = self._child, None
        feed = Feed(self.settings, start, list(self.bad.values()), held=HELD if on_gpu else 0, child=child)
        with contextlib.closing(feed):
            if on_gpu:
                mark = functools.partial(_mark, self.settings.device)
                with _pinned(feed.memory, self.settings.device, mark):
                    yield from feed.batches(mark)
            else:
                yield from feed.batches()


def may_be_apart(engine: str, device: str) -> bool:
    """Return whether batches can be made in another process: pixels that are decoded on a GPU cannot cross to the trainer's."""
    return not (engine == "dali" and device.startswith("cuda"))


def as_batch(facts: Facts, slot: Slot) -> Batch:
    """Return a batch over a slot's memory."""
    import torch

    views = []
    for pixels, params, windows in zip(slot.on_device or slot.images, facts.params, facts.windows, strict=True):
        if isinstance(pixels, torch.Tensor):
            # They were made on another stream: their memory must not be used again there before this one has read them.
            pixels.record_stream(torch.cuda.current_stream(pixels.device))
            images = pixels
        else:
            images = torch.from_numpy(pixels)
        views.append(View(images.permute(0, 3, 1, 2), params, windows))
    return Batch(
        step=facts.step,
        epoch=facts.epoch,
        sources=facts.sources,
        positions=facts.positions,
        uids=facts.uids,
        views=tuple(views),
        captions=facts.captions,
        tokens=None if slot.tokens is None else torch.from_numpy(slot.tokens),
        labels=None if facts.labels is None else torch.from_numpy(facts.labels),
        weights=None if facts.weights is None else torch.from_numpy(facts.weights),
        replaced=facts.replaced,
        bad=facts.bad,
        recoded=facts.recoded,
    )


def _mark(device: str) -> Callable[[], None]:
    """Mark where a GPU's current stream is now; return what waits until the GPU has come there.

    A step's copies from the ring are all queued when the next batch is asked for, so the mark is set then. It is waited for
    one batch later: the GPU has a whole step before it, and does not run dry.
    """
    import torch

    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


@contextlib.contextmanager
def _pinned(memory: Any, device: str, mark: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """Let a GPU copy from the ring without a copy on the host in between, for a while.

    Where that cannot be, it is said, and copies are slower.

    Args:
        memory: of the ring.
        device: of the GPU.
        mark: returns what waits for the copies that were queued before.
    """
    import numpy as np
    import torch

    from shards.core.console import warn

    address = np.frombuffer(memory, np.uint8).ctypes.data
    cudart: Any = torch.cuda.cudart()
    status = int(cudart.cudaHostRegister(address, len(memory), 0))
    if status != 0:
        _clear_error(device)
        warn(f"the loader's memory cannot be page-locked (CUDA error {status}): copies to the GPU are slower")
        yield
        return
    try:
        yield
    finally:
        # After an error of the GPU both fail as well; that error is the one to be told.
        with contextlib.suppress(RuntimeError):
            mark()()
        status = int(cudart.cudaHostUnregister(address))
        if status != 0:
            _clear_error(device)
            warn(f"the loader's memory stays page-locked until this process ends (CUDA error {status})")


def _clear_error(device: str) -> None:
    """Take CUDA's last error away: the next kernel's launch would raise it as its own."""
    import torch

    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=device)
