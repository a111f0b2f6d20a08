"""Engine `dali`: decode and crop batches with NVIDIA DALI, on the CPU or (`mixed`) on a GPU.

DALI gets plain JPEGs alone; all else is decoded as the engine `cpu` does it, so that both engines see the same pictures
(DALI drops alpha, ignores colour profiles, and cannot read GIF). Its pipeline is fed by a thread of its own that keeps two
batches in it: while one is waited for, the next is being decoded.

On a GPU DALI resizes as well. On a CPU its antialiased cubic filter takes 4.9 ms a crop (500-px photos, 224-px crops), five
times what its decoding takes, and `resample` 0.4 ms. So there it decodes, and each crop is resized as the engine `cpu` does
it: where `cpu` decodes at full scale, the two engines' crops are equal to the bit.

A decode error kills a DALI pipeline. Here it costs a few rebuilds: the batch is halved until the guilty samples are known,
and they are named instead of raised. The only module that imports nvidia.dali.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from train.data.augment.params import Window
from train.data.decode.cpu import EncodedImage
from train.data.decode.resample import resize_into
from train.data.maker import CHUNK, Decoder, Encoded, LoaderSettings, Ready, Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTH = 2  # batches in the pipeline at a time


class DaliDecoder(Decoder):
    """Decodes batches; the reading threads only fetch bytes and read headers."""

    def __init__(self, settings: LoaderSettings) -> None:
        """Build nothing yet: a pipeline is built in the thread that feeds it."""
        super().__init__(settings)
        self.size = settings.image_size
        self.batch_size, self.threads = settings.rank_batch, max(settings.workers, 1)
        device = settings.device
        self.device_id = int(device.partition(":")[2] or 0) if device.startswith("cuda") else None
        self._gpu = None if self.device_id is None else _Gpu(device)
        self._resizers = ThreadPoolExecutor(self.threads, "resize")
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="dali", daemon=True)
        self._thread.start()

    def decode(self, image: EncodedImage, windows: list[Window], outs: list[NDArray[np.uint8]]) -> Encoded | None:
        """Return the bytes of a plain JPEG; decode anything else at once.

        Raises:
            UndecodableError: it cannot be decoded.
        """
        if image.plain:
            return Encoded(image.data, box_of(windows))
        image.crops_into(outs, windows, self.kinds)
        return None

    def submit(self, ready: list[Ready], slot: Slot) -> Future[dict[int, str]]:
        """Decode the plain JPEGs of a batch into its slot; the result says which rows failed, and why."""
        encoded = [sample for sample in ready if sample.encoded is not None]
        on_host = [sample.place for sample in ready if sample.encoded is None] if self._gpu else []
        task = _Task(encoded, slot)
        if self._gpu and on_host:
            self._gpu.upload(slot, on_host)
        if task.samples:
            self._tasks.put(task)
        else:
            task.result.set_result({})
        return task.result

    def close(self) -> None:
        """Stop the thread; batches under way are given up."""
        self._tasks.put(None)
        self._thread.join()
        self._resizers.shutdown()

    def _build(self, depth: int = DEPTH) -> Any:
        settings = {"batch_size": self.batch_size, "num_threads": self.threads, "device_id": self.device_id, "prefetch_queue_depth": depth}
        if self.device_id is None:
            return _boxes(settings, self.fast)
        return _crops(settings, self.size, self.interpolations)

    def _feed(self, pipeline: Any, samples: Sequence[Ready]) -> None:
        """Give a pipeline its next batch: bytes, and the rectangles that it cuts out."""
        encoded = [sample.encoded for sample in samples if sample.encoded is not None]
        pipeline.feed_input("data", [np.frombuffer(data, np.uint8) for data, _ in encoded])
        if self.device_id is None:
            _feed_windows(pipeline, "", [box for _, box in encoded])
        else:
            for view in range(len(self.interpolations)):
                _feed_windows(pipeline, str(view), [sample.windows[view] for sample in samples])

    def _started(self, samples: Sequence[Ready]) -> Any:
        """Return a pipeline that has the first batch under way.

        DALI begins with as many runs as its queue is deep. All but the last are given the same batch, and their outputs dropped.
        """
        pipeline = self._build()
        for _ in range(DEPTH):
            self._feed(pipeline, samples)
        pipeline.schedule_run()
        for _ in range(DEPTH - 1):
            pipeline.share_outputs()
            pipeline.release_outputs()
        return pipeline

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
                    pipeline = self._started(task.samples)
                elif task is not None:
                    self._feed(pipeline, task.samples)
                    pipeline.schedule_run()
                if task is None or len(under_way) == DEPTH:
                    failed = self._take(pipeline.share_outputs(), under_way[0])
                    pipeline.release_outputs()
                    under_way.popleft().result.set_result(failed)
            except Exception:  # noqa: BLE001  DALI raises RuntimeError, IndexError and others
                # The pipeline is dead, and with it all that was under way: each batch is taken apart on its own.
                pipeline = None
                while under_way:
                    under_way[0].settle(self._apart)
                    under_way.popleft()

    def _apart(self, task: _Task) -> dict[int, str]:
        """Decode a batch in which a sample cannot be decoded; return which rows of the batch failed, and why."""
        # A pipeline's run() asks for as many batches as its queue is deep, and here there is one.
        pipeline = _Rebuilt(functools.partial(self._build, depth=1), self._feed)
        failed: dict[int, str] = {}

        def run(samples: Sequence[Ready]) -> None:
            outputs = pipeline.run(samples)
            failed.update(self._take(outputs, _Task(list(samples), task.slot)))

        causes = failing(run, task.samples)
        return failed | {task.samples[number].place: why for number, why in causes.items()}

    def _take(self, outputs: Any, task: _Task) -> dict[int, str]:
        """Bring a pipeline's outputs to their rows of the batch; return which rows failed, and why."""
        if self._gpu is None:
            return self._resize(outputs[0], task)
        self._gpu.place(task.slot, outputs, [sample.place for sample in task.samples])
        return {}

    def _resize(self, boxes: Any, task: _Task) -> dict[int, str]:
        """Resize the crops of the rectangles that were decoded on the CPU, in several threads."""
        firsts = range(0, len(task.samples), CHUNK)
        resizing = [self._resizers.submit(self._resize_some, boxes, task, first) for first in firsts]
        failed: dict[int, str] = {}
        for chunk in resizing:
            failed |= chunk.result()
        return failed

    def _resize_some(self, boxes: Any, task: _Task, first: int) -> dict[int, str]:
        failed = {}
        for number, sample in enumerate(task.samples[first : first + CHUNK], first):
            pixels = np.asarray(boxes[number])
            assert sample.encoded is not None  # `submit` chose those that are
            top, left, height, width = sample.encoded.box
            # The compiled loops check no bounds, and a hostile file may decode to another size than its header states.
            if pixels.shape != (height, width, 3):
                failed[sample.place] = f"DALI: decodes to {pixels.shape[1]} × {pixels.shape[0]} pixels, not {width} × {height}"
                continue
            for images, window, kind in zip(task.slot.images, sample.windows, self.kinds, strict=True):
                resize_into(images[sample.place], pixels, window.top - top, window.left - left, window.height, window.width, kind)
        return failed


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

    def __init__(self, build: Callable[[], Any], feed: Callable[[Any, Sequence[Ready]], None]) -> None:
        self._build, self._feed = build, feed
        self._built: Any = None

    def run(self, samples: Sequence[Ready]) -> Any:
        """Decode some samples and return the outputs.

        Raises:
            RuntimeError: DALI could not.
        """
        if self._built is None:
            self._built = self._build()
        try:
            self._feed(self._built, samples)
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


def box_of(windows: Sequence[Window]) -> Window:
    """Return the smallest rectangle that holds all windows of an image."""
    top = min(window.top for window in windows)
    left = min(window.left for window in windows)
    bottom = max(window.top + window.height for window in windows)
    right = max(window.left + window.width for window in windows)
    return Window(top, left, bottom - top, right - left)


def _feed_windows(pipeline: Any, suffix: str, windows: Sequence[Window]) -> None:
    pipeline.feed_input(f"start{suffix}", [np.array([w.top, w.left], np.int32) for w in windows])
    pipeline.feed_input(f"shape{suffix}", [np.array([w.height, w.width], np.int32) for w in windows])


class _Gpu:
    """Puts rows into a slot's images on a GPU, from DALI and from the host, on a stream of its own.

    Each call returns when its rows are there. It waits for its own stream alone: on the default one it would wait for the
    trainer's steps. The images are allocated on this stream, so a reader on another one records its own with them.
    """

    def __init__(self, device: str) -> None:
        """Take the device: such as `cuda:0`."""
        import torch

        self.device = device
        self.stream = torch.cuda.Stream(device)

    def place(self, slot: Slot, outputs: Any, rows: list[int]) -> None:
        """Copy DALI's outputs, one for each view, to some rows, before its pipeline may use their memory again."""
        from torch.utils.dlpack import from_dlpack

        self._fill(slot, rows, lambda view: from_dlpack(outputs[view].as_tensor()))

    def upload(self, slot: Slot, rows: list[int]) -> None:
        """Copy some rows that were decoded on the host."""
        import torch

        self._fill(slot, rows, lambda view: torch.from_numpy(slot.images[view][rows]).to(self.device))

    def _fill(self, slot: Slot, rows: list[int], pixels_of: Callable[[int], Any]) -> None:
        import torch

        with torch.cuda.stream(self.stream):
            if not slot.on_device:
                slot.on_device = [torch.empty(images.shape, dtype=torch.uint8, device=self.device) for images in slot.images]
            places = torch.tensor(rows, device=self.device)
            for view, images in enumerate(slot.on_device):
                images.index_copy_(0, places, pixels_of(view))
        self.stream.synchronize()


def _toolkit() -> tuple[Any, Any, Any]:
    """Return DALI's pipeline_def, fn and types, untyped: its stubs leave out much of what it exports."""
    import nvidia.dali as dali
    from nvidia.dali import fn, types

    return vars(dali)["pipeline_def"], fn, types


def _boxes(settings: dict[str, Any], fast: bool) -> Any:
    """Return a pipeline on the CPU from bytes and rectangles to uint8 pixels of different sizes.

    Args:
        fast: libjpeg-turbo's faster transform and upsampling.
    """
    pipeline_def, fn, types = _toolkit()

    @pipeline_def(**settings)
    def pipeline() -> Any:
        # An image is decoded once for all views: a decoder for each would read the whole bit stream again.
        return fn.decoders.image_slice(
            fn.external_source(name="data"),
            start=fn.external_source(name="start"),
            shape=fn.external_source(name="shape"),
            axis_names="HW",
            output_type=types.RGB,
            adjust_orientation=False,  # only upright images come here
            device="cpu",
            use_fast_idct=fast,
            jpeg_fancy_upsampling=not fast,
        )

    built = pipeline()
    built.build()
    return built


def _crops(settings: dict[str, Any], size: int, interpolations: Sequence[str]) -> Any:
    """Return a pipeline on a GPU from bytes and windows to cropped, resized uint8 images, one output for each view."""
    pipeline_def, fn, types = _toolkit()
    kinds = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}

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
                adjust_orientation=False,
                device="mixed",
                jpeg_fancy_upsampling=True,  # as libjpeg-turbo upsamples chroma
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
