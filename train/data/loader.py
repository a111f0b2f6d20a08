"""The training loader: step → batch, from shards, through either engine, with nothing to remember but the step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from shards.manifest import Manifest
from train.data.batch import BadSample, Batch, View
from train.data.maker import BatchMaker, Facts, LoaderSettings, Slot

AHEAD = 3  # batches made ahead by threads of the trainer's own process


class Loader:
    """Batches of a training by step. `bad` lists samples that cannot be used; restore it before `batches`."""

    def __init__(self, sources: Sequence[tuple[Manifest, float | None]], *, process: bool = False, **settings: Any) -> None:
        """Open the sources; nothing is read yet.

        Args:
            sources: manifests and their shares of the samples seen; None for all: shares follow sizes.
            process: make the batches in a process of their own. They are then valid until the next one is asked for.
            settings: fields of `LoaderSettings`.

        Raises:
            UsageError: sizes, weights or names that cannot be.
        """
        self.settings = LoaderSettings(sources=tuple(sources), **settings)
        # Pixels that are decoded on a GPU cannot cross to another process.
        on_gpu = self.settings.engine == "dali" and self.settings.device.startswith("cuda")
        self.process = process and not on_gpu
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
        from train.data.feed import Feed

        feed = Feed(self.settings, start, list(self.bad.values()))
        if self.settings.device.startswith("cuda"):
            _pin(feed.memory)
        with contextlib.closing(feed):
            yield from feed.batches()


def as_batch(facts: Facts, slot: Slot) -> Batch:
    """Return a batch over a slot's memory."""
    import torch

    views = []
    for pixels, params, windows in zip(slot.images, facts.params, facts.windows, strict=True):
        images = pixels if isinstance(pixels, torch.Tensor) else torch.from_numpy(pixels)
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
        replaced=facts.replaced,
        bad=facts.bad,
    )


def _pin(memory: Any) -> None:
    """Let a GPU copy from the ring without a copy on the host in between."""
    import numpy as np
    import torch

    from shards.core.console import warn

    address = np.frombuffer(memory, np.uint8).ctypes.data
    status = torch.cuda.cudart().cudaHostRegister(address, len(memory), 0)  # type: ignore[attr-defined]
    if int(status) != 0:
        warn(f"the loader's memory cannot be page-locked (CUDA error {int(status)}): copies to the GPU are slower")
