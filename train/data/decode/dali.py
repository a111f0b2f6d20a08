"""Engine `dali`: decode, crop and resize batches with NVIDIA DALI, on the CPU or (`mixed`) on a GPU.

DALI gets plain JPEGs alone; all else is decoded as the engine `cpu` does it, so that both engines see the same pictures
(DALI drops alpha, ignores colour profiles, and cannot read GIF). Its pipeline is fed by a thread of its own that keeps two
batches in it: while one is waited for, the next is being decoded.

A decode error kills a DALI pipeline. Here it costs a few rebuilds: the batch is halved until the guilty samples are known,
and they are named instead of raised. The only module that imports nvidia.dali.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from train.data.augment.params import Window
from train.data.decode.cpu import EncodedImage
from train.data.maker import Decoder, LoaderSettings, Ready, Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTH = 2  # batches in the pipeline at a time


class DaliDecoder(Decoder):
    """Decodes batches; the reading threads only fetch bytes and read headers."""

    def __init__(self, settings: LoaderSettings) -> None:
        """Build nothing yet: a pipeline is built in the thread that feeds it."""
        super().__init__(settings)
        self.size = settings.image_size
        self.interpolations = [view.interpolation for view in settings.needs.views]
        self.batch_size, self.threads = settings.rank_batch, max(settings.workers, 1)
        device = settings.device
        self.device_id = int(device.partition(":")[2] or 0) if device.startswith("cuda") else None
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="dali", daemon=True)
        self._thread.start()

    def decode(self, image: EncodedImage, windows: list[Window], outs: list[NDArray[np.uint8]]) -> bytes | None:
        """Return the bytes of a plain JPEG; decode anything else at once.

        Raises:
            UndecodableError: it cannot be decoded.
        """
        if image.plain:
            return image.data
        image.crops_into(outs, windows, self.kinds)
        return None

    def submit(self, ready: list[Ready], slot: Slot) -> Future[dict[int, str]]:
        """Decode the plain JPEGs of a batch into its slot; the result says which rows failed, and why."""
        task = _Task([sample for sample in ready if sample.encoded is not None], slot)
        if task.samples:
            self._tasks.put(task)
        else:
            task.result.set_result({})
        return task.result

    def close(self) -> None:
        """Stop the thread; batches under way are given up."""
        self._tasks.put(None)
        self._thread.join()

    def _build(self, depth: int = DEPTH) -> Any:
        return _crops(self.size, self.interpolations, self.batch_size, self.threads, self.device_id, depth)

    def _serve(self) -> None:
        """Keep up to DEPTH batches in the pipeline; runs in the thread."""
        pipeline: Any = None
        under_way: deque[_Task] = deque()
        while True:
            # Waiting for a new task is right only while nothing is under way.
            try:
                task = self._tasks.get(block=not under_way)
            except queue.Empty:
                task = None
            else:
                if task is None:
                    return
                under_way.append(task)
            try:
                if task is not None and pipeline is None:
                    pipeline = _started(self._build(), task.samples)
                elif task is not None:
                    _feed(pipeline, task.samples)
                    pipeline.schedule_run()
                if task is None or len(under_way) == DEPTH:
                    self._take(pipeline.share_outputs(), under_way[0])
                    pipeline.release_outputs()
                    under_way.popleft().result.set_result({})
            except Exception:  # noqa: BLE001  DALI raises RuntimeError, IndexError and others
                # The pipeline is dead, and with it all that was under way: each batch is taken apart on its own.
                pipeline = None
                while under_way:
                    under_way[0].settle(self._apart)
                    under_way.popleft()

    def _apart(self, task: _Task) -> dict[int, str]:
        """Decode a batch in which a sample cannot be decoded; return which rows of the batch failed, and why."""
        # A pipeline's run() asks for as many batches as its queue is deep, and here there is one.
        pipeline = _Rebuilt(functools.partial(self._build, depth=1))

        def run(samples: Sequence[Ready]) -> None:
            outputs = pipeline.run(samples)
            self._take(outputs, _Task(list(samples), task.slot))

        causes = failing(run, task.samples)
        return {task.samples[number].place: why for number, why in causes.items()}

    def _take(self, outputs: Any, task: _Task) -> None:
        """Copy a pipeline's outputs, one for each view, to their rows of the batch."""
        rows = [sample.place for sample in task.samples]
        whole = len(rows) == len(task.slot.images[0])
        for view, output in enumerate(outputs):
            pixels = _on_host(output) if self.device_id is None else _on_device(output, self.device_id)
            if self.device_id is not None:
                task.slot.images[view] = _placed(task.slot.images[view], pixels, rows)
            elif whole:
                np.copyto(task.slot.images[view], pixels)
            else:
                task.slot.images[view][rows] = pixels


class _Task:
    """A batch for the pipeline: its plain JPEGs, and where their pixels go."""

    def __init__(self, samples: list[Ready], slot: Slot) -> None:
        self.samples, self.slot = samples, slot
        self.result: Future[dict[int, str]] = Future()

    def settle(self, work: Callable[[_Task], dict[int, str]]) -> None:
        """Set the result, or the error, of some work."""
        try:
            self.result.set_result(work(self))
        except Exception as error:  # noqa: BLE001  the finisher raises it
            self.result.set_exception(error)


class _Rebuilt:
    """A pipeline that is built when first used, and anew after an error has killed it."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._built: Any = None

    def run(self, samples: Sequence[Ready]) -> Any:
        """Decode some samples and return the outputs.

        Raises:
            RuntimeError: DALI could not.
        """
        if self._built is None:
            self._built = self._build()
        try:
            _feed(self._built, samples)
            return self._built.run()
        except RuntimeError:
            self._built = None
            raise


class Prover:
    """Decodes whole images, to see whether they can be."""

    def __init__(self, batch_size: int, threads: int = 1) -> None:
        """Take the largest batch."""
        self._build = lambda: _whole(batch_size, threads)
        self._built: Any = None

    def failing(self, images: Sequence[bytes]) -> dict[int, str]:
        """Return which of some encoded images DALI cannot decode, and why."""

        def run(some: Sequence[bytes]) -> None:
            if not all(some):
                raise RuntimeError("no bytes")
            self._built = self._built or self._build()
            try:
                self._built.feed_input("data", [np.frombuffer(data, np.uint8) for data in some])
                self._built.run()
            except RuntimeError:
                self._built = None
                raise

        return failing(run, images)


def failing(run: Callable[[Sequence[Any]], None], parts: Sequence[Any], first: int = 0) -> dict[int, str]:
    """Return the indices of the parts that make `run` raise RuntimeError, and why, by halving."""
    try:
        run(parts)
    except RuntimeError as error:
        if len(parts) == 1:
            return {first: _cause(str(error))}
        half = len(parts) // 2
        causes = failing(run, parts[:half], first) | failing(run, parts[half:], first + half)
        if not causes:
            raise  # Together they fail, alone they do not: no sample is at fault (memory, device).
        return causes
    return {}


def _cause(message: str) -> str:
    """Return the line of DALI's long message that says what went wrong: the one after "encountered:"."""
    lines = [line.strip(" :") for line in message.partition("encountered:")[2].splitlines()] or [message]
    return "DALI: " + next((line for line in lines if line), "unknown").replace(" sample #0", "")[:200]


def _feed(pipeline: Any, samples: Sequence[Ready]) -> None:
    pipeline.feed_input("data", [np.frombuffer(sample.encoded or b"", np.uint8) for sample in samples])
    for view in range(len(samples[0].windows)):
        windows = [sample.windows[view] for sample in samples]
        pipeline.feed_input(f"start{view}", [np.array([w.top, w.left], np.int32) for w in windows])
        pipeline.feed_input(f"shape{view}", [np.array([w.height, w.width], np.int32) for w in windows])


def _started(pipeline: Any, samples: Sequence[Ready]) -> Any:
    """Return a pipeline that has the first batch under way.

    DALI begins with as many runs as its queue is deep. All but the last are given the same batch, and their outputs dropped.
    """
    for _ in range(DEPTH):
        _feed(pipeline, samples)
    pipeline.schedule_run()
    for _ in range(DEPTH - 1):
        pipeline.share_outputs()
        pipeline.release_outputs()
    return pipeline


def _on_host(output: Any) -> NDArray[np.uint8]:
    return np.asarray(output.as_array())


def _on_device(output: Any, device: int) -> Any:
    """Return a copy on the GPU, made before the pipeline may use its buffer again."""
    import torch
    import torch.utils.dlpack

    images = torch.utils.dlpack.from_dlpack(output.as_tensor()).clone()
    torch.cuda.current_stream(device).synchronize()
    return images


def _placed(images: Any, pixels: Any, rows: list[int]) -> Any:
    """Return a batch on the GPU: the rows that DALI decoded, and those that were decoded on the host."""
    import torch

    if len(rows) == len(images):
        return pixels
    whole = images if isinstance(images, torch.Tensor) else torch.from_numpy(images).to(pixels.device)
    whole[torch.tensor(rows, device=pixels.device)] = pixels
    return whole


def _toolkit() -> tuple[Any, Any, Any]:
    """Return DALI's pipeline_def, fn and types, untyped: its stubs leave out much of what it exports."""
    import nvidia.dali as dali
    from nvidia.dali import fn, types

    return vars(dali)["pipeline_def"], fn, types


def _crops(size: int, interpolations: Sequence[str], batch_size: int, threads: int, device_id: int | None, depth: int) -> Any:
    """Return a pipeline from bytes and windows to cropped, resized uint8 images, one output for each view."""
    pipeline_def, fn, types = _toolkit()
    kinds = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}
    settings = {"batch_size": batch_size, "num_threads": threads, "device_id": device_id, "prefetch_queue_depth": depth}

    @pipeline_def(**settings)
    def pipeline() -> Any:
        data = fn.external_source(name="data")
        outputs = []
        for view, interpolation in enumerate(interpolations):
            images = fn.decoders.image_slice(
                data,
                start=fn.external_source(name=f"start{view}"),
                shape=fn.external_source(name=f"shape{view}"),
                axis_names="HW",
                output_type=types.RGB,
                adjust_orientation=False,  # only upright images come here
                device="cpu" if device_id is None else "mixed",
                **({} if device_id is None else {"jpeg_fancy_upsampling": True}),  # as libjpeg-turbo upsamples chroma
            )
            outputs.append(fn.resize(images, resize_x=size, resize_y=size, interp_type=kinds[interpolation], antialias=True))
        return tuple(outputs)

    built = pipeline()
    built.build()
    return built


def _whole(batch_size: int, threads: int) -> Any:
    pipeline_def, fn, types = _toolkit()

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=None, prefetch_queue_depth=1)
    def pipeline() -> Any:
        # output_type=ANY_DATA crashes the process on a gray JPEG.
        return fn.decoders.image(fn.external_source(name="data"), device="cpu", output_type=types.RGB, adjust_orientation=False)

    built = pipeline()
    built.build()
    return built
