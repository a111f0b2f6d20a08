"""The training loader: step → batch, from shards, through either engine, with nothing to remember but the step.

Threads only, and no pickling: a planner resolves a step's samples, `workers` threads read bytes (engine `cpu`:
and decode them), an assembler makes the batch. At most `PREFETCH` batches wait, so memory is bounded by
them and by the order's windows.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from shards.core.errors import RunError, UsageError, closest
from shards.manifest import Manifest
from train.augment import Augment, AugmentParams, Window, parameters, uniforms, window
from train.blocks import Record, Source, TarFiles, used
from train.cpu import CpuEngine, DecodeError, check_whole, image_size
from train.order import CAPTION, WINDOW, Order, sample_words

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

PREFETCH = 3  # batches made ahead
CHUNK = 8  # samples per task of a reading thread
MAX_BAD_RUN = 100  # so many undecodable samples in a row are no accident


@dataclass(frozen=True)
class Batch:
    """A rank's part of a global batch of n samples.

    images: (n, 3, S, S) uint8 crops, not yet flipped, coloured or normalised. epoch, sources: (n,) int64. windows:
    what was cropped, in pixels of the stored image. uids: of the samples really used.
    """

    step: int
    epoch: NDArray[np.int64]
    uids: list[str]
    images: torch.Tensor
    captions: list[str]
    params: AugmentParams
    sources: NDArray[np.int64]
    windows: list[Window]


class Replaced(NamedTuple):
    """An image that could not be decoded, what stood in for it, and why."""

    uid: str
    replacement: str
    why: str


class Engine(Protocol):
    """What decodes: each sample in the thread that read it, or the batch at once."""

    def one(self, data: bytes, window: Window) -> Any:
        """Return one sample's pixels, or what `batch` needs of it; DecodeError if it cannot be decoded."""

    def batch(self, parts: list[Any]) -> tuple[torch.Tensor, dict[int, str]]:
        """Return (n, 3, S, S) uint8 and, for each part that failed, why."""


@dataclass
class _Ready:
    """A sample that was read; `position` is where it stands in its source."""

    source: int
    epoch: int
    position: int
    record: Record
    numbers: NDArray[np.float64]
    window: Window
    part: Any


class Loader:
    """Batches of a training by step. `replaced` lists images that could not be decoded; restore it before `batches`."""

    def __init__(
        self,
        sources: Sequence[tuple[Manifest, float | None]],
        *,
        batch_size: int,
        image_size: int,
        seed: int,
        engine: str = "cpu",
        workers: int = 1,
        augment: Augment | None = None,
        captions: Literal["first", "sampled"] = "first",
        layer: str = "",
        samples: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: str = "cpu",
        replaced: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        """Open the sources; nothing is read yet.

        Args:
            sources: manifests and their shares of the samples seen; None for all: shares follow sizes.
            batch_size: of all ranks together.
            image_size: S, the side of the crops.
            layer: take captions from this layer, where it has some.
            samples: use the first so many of each manifest.
            device: of the training; the engine `dali` decodes there.
            replaced: the list of an earlier part of this training.

        Raises:
            UsageError: sizes, weights or names that cannot be.
        """
        self.seed, self.captions, self.rank, self.workers = seed, captions, rank, max(workers, 1)
        self.augment = augment or Augment()
        counts = [used(manifest, samples) for manifest, _ in sources]
        self.order = Order(counts, [weight for _, weight in sources], batch_size=batch_size, seed=seed, world_size=world_size)
        files, streams = TarFiles(), self.order.streams // world_size
        # Each stream of this rank holds a window of blocks and enters the next one; a mixture may spill into a neighbour.
        keep = (WINDOW + 1) * (streams + 2)
        orders = self.order.sources
        self.sources = [Source(m, c, o.starts, files, keep, layer) for (m, _), c, o in zip(sources, counts, orders, strict=True)]
        self.files = files
        self.engine = _engine(engine, image_size, self.augment, batch_size // world_size, self.workers, device)
        self.replaced = [Replaced(*row) for row in replaced]
        self._bad: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def epoch_samples(self) -> int:
        """Samples of one pass over all sources."""
        return sum(source.samples for source in self.sources)

    def repeats(self, step: int) -> list[float]:
        """Return how often each source was seen before a step, in its own epochs."""
        return [taken / source.samples for taken, source in zip(self.order.taken(step), self.sources, strict=True)]

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's part of global steps `start`, `start` + 1, … without end; close it to stop the threads.

        Raises:
            RunError: a shard does not hold what its manifest says, or nothing near a sample decodes.
        """
        self._bad.update({row[0]: row[2] for row in self.replaced})
        stages = [ThreadPoolExecutor(n, name) for n, name in ((1, "plan"), (self.workers, "read"), (1, "assemble"))]
        planner, readers, assembler = stages
        ahead: deque[Future[Batch]] = deque()
        try:
            for step in itertools.count(start):
                planned = planner.submit(self._spread, step, readers)
                ahead.append(assembler.submit(self._assemble, step, planned))
                if len(ahead) > PREFETCH:
                    yield ahead.popleft().result()
        finally:
            for stage in stages:
                stage.shutdown(wait=False, cancel_futures=True)
            for stage in stages:
                stage.shutdown()

    def _spread(self, step: int, readers: ThreadPoolExecutor) -> list[Future[list[_Ready]]]:
        """Hand a step's samples to the readers."""
        items = self.order.items(step, self.rank)
        wanted = list(zip(items.sources.tolist(), items.epochs.tolist(), items.positions.tolist(), strict=True))
        return [readers.submit(self._read_all, wanted[i : i + CHUNK]) for i in range(0, len(wanted), CHUNK)]

    def _read_all(self, wanted: list[tuple[int, int, int]]) -> list[_Ready]:
        return [self._read(*one) for one in wanted]

    def _assemble(self, step: int, planned: Future[list[Future[list[_Ready]]]]) -> Batch:
        """Wait for a step's samples and make its batch."""
        import numpy as np

        ready = [one for part in planned.result() for one in part.result()]
        for _ in range(MAX_BAD_RUN):
            images, failed = self.engine.batch([one.part for one in ready])
            if not failed:
                break
            for i, why in failed.items():
                ready[i] = self._read(ready[i].source, ready[i].epoch, ready[i].position, why)
        else:
            raise RunError(f"step {step}: {len(failed)} samples still fail after {MAX_BAD_RUN} replacements", advice="train check")
        return Batch(
            step=step,
            epoch=np.array([one.epoch for one in ready], np.int64),
            uids=[one.record.uid for one in ready],
            images=images,
            captions=[self._caption(one) for one in ready],
            params=parameters(self.augment, [one.numbers for one in ready]),
            sources=np.array([one.source for one in ready], np.int64),
            windows=[one.window for one in ready],
        )

    def _read(self, source: int, epoch: int, position: int, failed: str = "") -> _Ready:
        """Read a sample; where it cannot be decoded (`failed`: the batch found so), the next one of its source that can.

        What stands in depends on the sample alone, so neither rank nor engine nor time changes it.
        """
        origin, bad = self.sources[source], []
        for step in range(min(MAX_BAD_RUN, origin.samples)):
            at = (position + step) % origin.samples
            record = origin.record(at)
            try:
                if why := self._bad.get(record.uid) or (failed if step == 0 else ""):
                    raise DecodeError(why)
                ready = self._decode(source, epoch, at, record)
            except DecodeError as error:
                bad.append((record.uid, str(error)))
            else:
                self._note(bad, record.uid)
                return ready
        raise RunError(f"{len(bad)} samples in a row cannot be decoded, the last one {bad[-1][0]}: {bad[-1][1]}", advice="train check")

    def _decode(self, source: int, epoch: int, position: int, record: Record) -> _Ready:
        if record.size < 0:
            raise DecodeError("no image member")
        data = self.files.read(record.path, record.offset, record.size)
        check_whole(data)
        numbers = uniforms(self.seed, epoch, record.uid)
        cut = window(self.augment, numbers, *image_size(data))
        return _Ready(source, epoch, position, record, numbers, cut, self.engine.one(data, cut))

    def _note(self, bad: list[tuple[str, str]], replacement: str) -> None:
        """List newly found bad images, once each."""
        with self._lock:
            for uid, why in bad:
                if uid not in self._bad:
                    self._bad[uid] = why
                    self.replaced.append(Replaced(uid, replacement, why))

    def _caption(self, one: _Ready) -> str:
        texts = one.record.captions if self.captions == "sampled" else []
        if not texts:
            return one.record.caption
        return texts[int(sample_words(self.seed, CAPTION, one.epoch, one.record.uid, 1)[0] % len(texts))]


def _engine(name: str, size: int, augment: Augment, batch_size: int, workers: int, device: str) -> Engine:
    """Return an engine by name; DALI is imported only if asked for."""
    known: dict[str, Callable[[], Engine]] = {
        "cpu": lambda: CpuEngine(size, augment.interpolation, pin=device.startswith("cuda")),
        "dali": lambda: _dali(size, augment, batch_size, workers, device),
    }
    if name not in known:
        raise UsageError(f"engine {name!r}", ", ".join(known), closest(name, known))
    return known[name]()


def _dali(size: int, augment: Augment, batch_size: int, workers: int, device: str) -> Engine:
    from train.dali import DaliEngine

    return DaliEngine(size, augment.interpolation, batch_size, workers, device)
