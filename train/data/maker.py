"""Steps become batches, by threads. What a batch holds depends on (settings, step) alone: there is no state but the step.

A planner resolves a step's samples, `workers` threads read them (engine `cpu`: and decode them into the batch), an assembler
hands the batch to the engine and a finisher completes it. At most `ahead` batches are on their way, so memory is bounded by
them and by the order's windows. Nothing here imports torch, but for an engine that does.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from shards.core.errors import RunError, UsageError, closest
from shards.manifest import Manifest
from shards.tables.notes import noting
from shards.tables.text import NOT_UTF8
from shards.upright import UndecodableError
from train.data.annotations import Annotator, LayerShare
from train.data.augment.params import AugmentParams, Window, parameters, uniforms_at, window
from train.data.batch import BadSample, Needs
from train.data.blocks import Block, Columns, Record, Source, used
from train.data.decode.cpu import EncodedImage
from train.data.decode.kept import Store
from train.data.noise import Noise
from train.data.order import STAND_IN, WINDOW, Order, few_words
from train.data.tars import TarFiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

CHUNK = 8  # samples per task of a reading thread
MAX_STAND_INS = 100  # so many undecodable samples drawn one after the other are no accident


@dataclass(frozen=True)
class LoaderSettings:
    """All that decides what a loader's batches hold, and how they are made.

    Attributes:
        sources: manifests and their shares of the samples seen; None for all: shares follow sizes.
        batch_size: of all ranks together.
        image_size: S, the side of the crops.
        fast: scaled decode with less margin, libjpeg-turbo's faster transforms, and bilinear crops whatever the views ask for.
        captions: where a sample has several: the chosen one, or one drawn each time.
        layers: take captions from these layers, each as often as its share says; a sample's own where the drawn one has none.
        tokens: a layer with the token ids of captions, which are then not encoded; the ids are the same.
        labels, weights: the columns of the sidecar or of a layer that hold labels, and the weights of samples.
        samples: use the first so many of each manifest.
        keep_decoded: bytes of decoded images that are kept in memory (engine `cpu` alone); batches are the same with any number.
        device: of the training; the engine `dali` decodes there.
    """

    sources: tuple[tuple[Manifest, float | None], ...]
    batch_size: int
    image_size: int
    seed: int
    needs: Needs = field(default_factory=Needs)
    engine: str = "cpu"
    workers: int = 1
    fast: bool = False
    captions: Literal["first", "sampled"] = "first"
    layers: tuple[LayerShare, ...] = ()
    tokens: str = ""
    labels: str = "class"
    weights: str = ""
    noise: Noise = field(default_factory=Noise)
    samples: int | None = None
    keep_decoded: int = 0
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    @property
    def rank_batch(self) -> int:
        """Samples of this rank in each batch."""
        return self.batch_size // self.world_size


@dataclass
class Slot:
    """The memory that a batch is made in.

    Attributes:
        images: (n, S, S, 3) uint8 for each view, in the host's memory.
        on_device: the same on a GPU, as tensors, where an engine decodes there; it holds all rows then, `images` only some.
        tokens: (n, context length) int32, or None.
        number: which slot of a ring this is.
    """

    images: list[Pixels]
    tokens: NDArray[np.int32] | None = None
    number: int = 0
    on_device: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Facts:
    """All of a batch but its arrays of pixels and tokens; small, and sent between processes."""

    step: int
    epoch: NDArray[np.int64]
    sources: NDArray[np.int64]
    positions: NDArray[np.int64]
    uids: list[str]
    params: list[AugmentParams]
    windows: list[list[Window]]
    captions: list[str]
    labels: NDArray[Any] | None
    weights: NDArray[np.float32] | None
    replaced: int
    bad: tuple[BadSample, ...]
    recoded: int = 0


class Encoded(NamedTuple):
    """A plain JPEG that the engine has still to decode, and the rectangle of it that holds all windows."""

    data: bytes
    box: Window


@dataclass
class Ready:
    """A sample that was read. `place` is its row in the batch, `position` where it stands in its source.

    `asked` is the position that the order asked for: another one where this sample stands in for it.
    """

    place: int
    source: int
    epoch: int
    asked: int
    position: int
    record: Record
    block: Block
    numbers: list[NDArray[np.float64]]
    windows: list[Window]
    encoded: Encoded | None


class Decoder:
    """What an engine is. This one, `cpu`, decodes each sample in the thread that read it."""

    def __init__(self, settings: LoaderSettings) -> None:
        """Take how crops are resized."""
        from train.data.decode.resample import FILTERS

        self.fast = settings.fast
        self.interpolations = ["bilinear" if settings.fast else view.interpolation for view in settings.needs.views]
        self.kinds = [FILTERS[interpolation] for interpolation in self.interpolations]

    def decode(self, image: EncodedImage, windows: list[Window], outs: list[Pixels]) -> Encoded | None:
        """Decode a sample into its rows of the batch; or return what `submit` will decode.

        Raises:
            UndecodableError: it cannot be decoded.
        """
        image.crops_into(outs, windows, self.kinds, fast=self.fast)
        return None

    def submit(self, ready: list[Ready], slot: Slot) -> Future[dict[int, str]]:
        """Decode the rest of a batch; the result says which rows failed, and why."""
        done: Future[dict[int, str]] = Future()
        done.set_result({})
        return done

    def close(self) -> None:
        """Stop what runs in the background."""


class BatchMaker:
    """Makes this rank's batches by step. `bad` lists samples that cannot be used; restore it before `run`."""

    def __init__(self, settings: LoaderSettings) -> None:
        """Open the sources; nothing is read yet.

        Raises:
            UsageError: sizes, weights or names that cannot be.
        """
        self.settings = settings
        manifests = [manifest for manifest, _ in settings.sources]
        counts = [used(manifest, settings.samples) for manifest in manifests]
        weights = [weight for _, weight in settings.sources]
        self.order = Order(counts, weights, batch_size=settings.batch_size, seed=settings.seed, world_size=settings.world_size)
        files = TarFiles()
        # Each stream of this rank holds a window of blocks and enters the next one; a mixture may spill into a neighbour.
        keep = (WINDOW + 1) * (self.order.streams // settings.world_size + 2)
        needs = settings.needs
        columns = Columns(
            captions=needs.captions,
            every_caption=needs.captions and settings.captions == "sampled",
            layers=tuple(layer.name for layer in settings.layers) if needs.captions else (),
            tokens=settings.tokens,
            labels=settings.labels if needs.classes else "",
            weights=settings.weights,
        )
        self.sources = [
            Source(manifest, count, order.starts, files, keep, columns, settings.noise)
            for manifest, count, order in zip(manifests, counts, self.order.sources, strict=True)
        ]
        self.files = files
        self.bad: dict[tuple[int, int], BadSample] = {}
        self._unsaid: list[BadSample] = []  # found, and not yet in the facts of a batch
        self._lock = threading.Lock()
        self._annotator = Annotator(settings, self.sources)
        self._kept = Store(settings.keep_decoded if settings.engine == "cpu" else 0)

    def restore(self, bad: Iterable[BadSample]) -> None:
        """Take a list of samples that cannot be used, so that they are not tried again."""
        self.bad.update({(sample.source, sample.position): sample for sample in bad})

    def new_slot(self) -> Slot:
        """Return fresh memory for a batch."""
        settings = self.settings
        n, size, length = settings.rank_batch, settings.image_size, settings.needs.context_length
        images = [np.empty((n, size, size, 3), np.uint8) for _ in settings.needs.views]
        return Slot(images, np.empty((n, length), np.int32) if length else None)

    def run(self, start: int, free_slot: Callable[[bool], Slot | None], ahead: int = 3) -> Iterator[tuple[Facts, Slot]]:
        """Yield the batches of steps `start`, `start` + 1, … without end; close the generator to stop the threads.

        Args:
            free_slot: returns memory for a batch, or None if none is free; it is called with True where it has to wait for some.
            ahead: how many batches are made beside the one that is waited for.

        Raises:
            RunError: a shard does not hold what its manifest says, or nothing decodes.
        """
        decoder = _decoder(self.settings)
        threads = (("plan", 1), ("read", max(self.settings.workers, 1)), ("assemble", 1), ("finish", 1))
        pools = [ThreadPoolExecutor(count, name) for name, count in threads]
        planner, readers, assembler, finisher = pools
        under_way: deque[Future[tuple[Facts, Slot]]] = deque()
        step = start
        try:
            while True:
                while len(under_way) <= ahead and (slot := free_slot(not under_way)) is not None:
                    planned = planner.submit(self._spread, step, slot, decoder, readers)
                    assembled = assembler.submit(_gather, planned, slot, decoder)
                    under_way.append(finisher.submit(self._finish, step, assembled, slot, decoder))
                    step += 1
                yield under_way.popleft().result()
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)
            for pool in pools:
                pool.shutdown()
            decoder.close()

    def _spread(self, step: int, slot: Slot, decoder: Decoder, readers: ThreadPoolExecutor) -> list[Future[list[Ready]]]:
        """Hand a step's samples to the reading threads."""
        items = self.order.items(step, self.settings.rank)
        wanted = list(zip(items.sources.tolist(), items.epochs.tolist(), items.positions.tolist(), strict=True))
        parts = [(first, wanted[first : first + CHUNK]) for first in range(0, len(wanted), CHUNK)]
        return [readers.submit(self._read_chunk, first, part, slot, decoder) for first, part in parts]

    def _read_chunk(self, first: int, wanted: list[tuple[int, int, int]], slot: Slot, decoder: Decoder) -> list[Ready]:
        """Read consecutive samples of a batch; their random numbers are drawn together, 2 µs each."""
        samples = [self.sources[source].record(position) for source, _, position in wanted]
        epochs = [epoch for _, epoch, _ in wanted]
        numbers = self._numbers(epochs, [record for _, record in samples])
        ready = []
        for row, (source, epoch, position) in enumerate(wanted):
            block, record = samples[row]
            drawn = [view[row] for view in numbers]
            sample = Ready(first + row, source, epoch, position, position, record, block, drawn, [], None)
            ready.append(self._decoded(sample, slot, decoder))
        return ready

    def _numbers(self, epochs: list[int], records: list[Record]) -> list[NDArray[np.float64]]:
        """Return the random numbers of each view for some samples, (n, NUMBERS) each."""
        counters = np.array([(epoch, *record.identity) for epoch, record in zip(epochs, records, strict=True)], np.uint64)
        return [uniforms_at(self.settings.seed, counters, view) for view in range(len(self.settings.needs.views))]

    def _decoded(self, sample: Ready, slot: Slot, decoder: Decoder, failed: str = "") -> Ready:
        """Decode a sample, or where it cannot be decoded one that stands in for it.

        What stands in is drawn anew for each epoch, by (source, position asked for, epoch) alone: neither rank nor engine nor
        time changes it, and the stand-ins of many bad samples are spread over the source.

        Args:
            failed: why the engine could not decode it.
        """
        known = self.bad.get((sample.source, sample.position))
        why = failed or (known.why if known else "")
        if not why:
            try:
                return self._decode(sample, slot, decoder)
            except UndecodableError as error:
                why = str(error)
        first_bad = BadSample(sample.source, sample.position, sample.record.uid, why)
        self._note(first_bad)
        origin = self.sources[sample.source]
        for attempt in range(MAX_STAND_INS):
            position = self._stand_in(sample, attempt, origin.samples)
            if (sample.source, position) in self.bad:
                continue
            block, record = origin.record(position)
            numbers = [view[0] for view in self._numbers([sample.epoch], [record])]
            other = Ready(sample.place, sample.source, sample.epoch, sample.asked, position, record, block, numbers, [], None)
            try:
                return self._decode(other, slot, decoder)
            except UndecodableError as error:
                self._note(BadSample(sample.source, position, record.uid, str(error)))
        raise RunError(
            f"{MAX_STAND_INS} samples drawn from {origin.manifest.folder} cannot be decoded; the first, {first_bad.uid}: {first_bad.why}",
            advice="train check",
        )

    def _stand_in(self, sample: Ready, attempt: int, samples: int) -> int:
        counter = (attempt, sample.source << 32 | sample.epoch, sample.asked)
        return int(few_words(self.settings.seed, STAND_IN, counter, 1)[0] % np.uint64(samples))

    def _decode(self, sample: Ready, slot: Slot, decoder: Decoder) -> Ready:
        record = sample.record
        if record.image[1] < 0:
            raise UndecodableError("no image member")
        image = self._kept.image((sample.source, sample.position), lambda: self.files.member(record.path, *record.image))
        pairs = zip(self.settings.needs.views, sample.numbers, strict=True)
        sample.windows = [window(augment, numbers, image.height, image.width) for augment, numbers in pairs]
        sample.encoded = decoder.decode(image, sample.windows, [images[sample.place] for images in slot.images])
        return sample

    def _note(self, bad: BadSample) -> None:
        with self._lock:
            if (bad.source, bad.position) not in self.bad:
                self.bad[(bad.source, bad.position)] = bad
                self._unsaid.append(bad)

    def _finish(self, step: int, assembled: Future[tuple[list[Ready], Future[dict[int, str]]]], slot: Slot, decoder: Decoder) -> Any:
        """Wait for a step's pixels, replace what the engine could not decode, and return the facts and the slot."""
        ready, decoding = assembled.result()
        for _ in range(MAX_STAND_INS):
            failed = decoding.result()
            if not failed:
                break
            again = [self._decoded(ready[place], slot, decoder, why) for place, why in failed.items()]
            for sample in again:
                ready[sample.place] = sample
            decoding = decoder.submit(ready, slot)
        else:
            raise RunError(f"step {step}: {len(failed)} samples still fail after {MAX_STAND_INS} replacements", advice="train check")
        return self._facts(step, ready, slot), slot

    def _facts(self, step: int, ready: list[Ready], slot: Slot) -> Facts:
        needs = self.settings.needs
        with noting() as noted:
            captions = self._annotator.captions(ready)
        if slot.tokens is not None:
            self._annotator.fill_tokens(ready, captions, slot.tokens)
        views = range(len(needs.views))
        params = [parameters(needs.views[k], np.stack([sample.numbers[k] for sample in ready])) for k in views]
        with self._lock:
            bad, self._unsaid = tuple(self._unsaid), []
        return Facts(
            step=step,
            epoch=np.array([sample.epoch for sample in ready], np.int64),
            sources=np.array([sample.source for sample in ready], np.int64),
            positions=np.array([sample.position for sample in ready], np.int64),
            uids=[sample.record.uid for sample in ready],
            params=params,
            windows=[[sample.windows[k] for sample in ready] for k in views],
            captions=captions,
            labels=self._annotator.labels(ready),
            weights=self._annotator.weights(ready),
            replaced=sum(sample.position != sample.asked for sample in ready),
            bad=bad,
            recoded=noted.counts.get(NOT_UTF8, 0),
        )


def _gather(planned: Future[list[Future[list[Ready]]]], slot: Slot, decoder: Decoder) -> tuple[list[Ready], Future[dict[int, str]]]:
    """Wait for a step's samples to be read and hand them to the engine."""
    ready = [sample for part in planned.result() for sample in part.result()]
    return ready, decoder.submit(ready, slot)


def _decoder(settings: LoaderSettings) -> Decoder:
    """Return the engine of the settings; DALI is imported only if asked for."""
    if settings.engine == "cpu":
        return Decoder(settings)
    if settings.engine == "dali":
        from train.data.decode.dali import DaliDecoder

        return DaliDecoder(settings)
    raise UsageError(f"engine {settings.engine!r}", "cpu, dali", closest(settings.engine, ("cpu", "dali")))
