"""Engine `dali`: decode, crop and resize a batch with NVIDIA DALI, on the CPU or (`mixed`) on a GPU.

A decode error kills a DALI pipeline. Here it costs a few rebuilds: the batch is halved until the guilty samples are
known, and they are named instead of raised. The only module that imports nvidia.dali.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from train.augment import Window

if TYPE_CHECKING:
    import torch


class DaliEngine:
    """Decodes batches; the reading threads only fetch bytes."""

    def __init__(self, size: int, interpolation: str, batch_size: int, threads: int, device: str = "cpu") -> None:
        """Take the side of the crops, the largest batch, and where to decode: `cpu`, `cuda` or `cuda:N`."""
        self.size = size
        self.device_id = int(device.partition(":")[2] or 0) if device.startswith("cuda") else None
        self._pipeline = _Pipeline(lambda: _crops(size, interpolation, batch_size, threads, self.device_id))

    def one(self, data: bytes, window: Window) -> Any:
        """Return what the batch needs: the bytes and the window."""
        return data, window

    def batch(self, parts: list[Any]) -> tuple[torch.Tensor, dict[int, str]]:
        """Return (n, 3, S, S) uint8, channels last in memory, and which samples failed and why.

        The images mean nothing where any sample failed.
        """
        import torch

        images: list[torch.Tensor] = []

        def run(some: Sequence[Any]) -> None:
            images[:] = [self._run(some)]

        failed = failing(run, parts)
        if failed:
            return torch.empty((0, 3, self.size, self.size), dtype=torch.uint8), failed
        return images[0].permute(0, 3, 1, 2), {}

    def _run(self, parts: Sequence[tuple[bytes, Window]]) -> torch.Tensor:
        import numpy as np
        import torch
        import torch.utils.dlpack

        inputs: dict[str, list[Any]] = {
            "data": [np.frombuffer(data, np.uint8) for data, _ in parts],
            "start": [np.array([w.top, w.left], np.int32) for _, w in parts],
            "shape": [np.array([w.height, w.width], np.int32) for _, w in parts],
        }
        (out,) = self._pipeline.run(inputs)
        # The pipeline reuses its buffers: the batch must be a copy, made before the next run begins.
        if self.device_id is None:
            return torch.from_numpy(out.as_array().copy())
        images = torch.utils.dlpack.from_dlpack(out.as_tensor()).clone()
        torch.cuda.current_stream(self.device_id).synchronize()
        return images


class Prover:
    """Decodes whole images, to see whether they can be."""

    def __init__(self, batch_size: int, threads: int = 1) -> None:
        """Take the largest batch."""
        self._pipeline = _Pipeline(lambda: _whole(batch_size, threads))

    def failing(self, images: Sequence[bytes]) -> dict[int, str]:
        """Return which of some encoded images DALI cannot decode, and why."""
        import numpy as np

        def run(some: Sequence[bytes]) -> None:
            if not all(some):
                raise RuntimeError("no bytes")
            self._pipeline.run({"data": [np.frombuffer(data, np.uint8) for data in some]})

        return failing(run, images)


def failing(run: Callable[[Sequence[Any]], None], parts: Sequence[Any], first: int = 0) -> dict[int, str]:
    """Return the indices of the parts that make `run` raise RuntimeError, and why, by halving."""
    try:
        run(parts)
    except RuntimeError as error:
        if len(parts) == 1:
            return {first: _cause(str(error))}
        half = len(parts) // 2
        found = failing(run, parts[:half], first) | failing(run, parts[half:], first + half)
        if not found:
            raise  # Together they fail, alone they do not: no sample is at fault (memory, device).
        return found
    return {}


def _cause(message: str) -> str:
    """Return the line of DALI's long message that says what went wrong: the one after "encountered:"."""
    lines = [line.strip(" :") for line in message.partition("encountered:")[2].splitlines()] or [message]
    return "DALI: " + next((line for line in lines if line), "unknown").replace(" sample #0", "")[:200]


class _Pipeline:
    """A pipeline that is built when first used, and anew after an error has killed it."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._built: Any = None

    def run(self, inputs: dict[str, list[Any]]) -> Any:
        """Feed one batch and return the outputs.

        Raises:
            RuntimeError: DALI could not.
        """
        if self._built is None:
            self._built = self._build()
        try:
            for name, values in inputs.items():
                self._built.feed_input(name, values)
            return self._built.run()
        except RuntimeError:
            self._built = None
            raise


def _toolkit() -> tuple[Any, Any, Any]:
    """Return DALI's pipeline_def, fn and types, untyped: its stubs leave out much of what it exports."""
    import nvidia.dali as dali
    from nvidia.dali import fn, types

    return vars(dali)["pipeline_def"], fn, types


def _crops(size: int, interpolation: str, batch_size: int, threads: int, device_id: int | None) -> Any:
    pipeline_def, fn, types = _toolkit()
    kinds = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=device_id, prefetch_queue_depth=1)
    def pipeline() -> Any:
        """Bytes and windows in; cropped, resized uint8 images out."""
        data, start, shape = (fn.external_source(name=name) for name in ("data", "start", "shape"))
        images = fn.decoders.image_slice(
            data,
            start=start,
            shape=shape,
            axis_names="HW",
            output_type=types.RGB,
            # As torchvision, open_clip and the engine `cpu`: a window is in pixels of the stored image.
            adjust_orientation=False,
            device="cpu" if device_id is None else "mixed",
            **({} if device_id is None else {"jpeg_fancy_upsampling": True}),  # as libjpeg-turbo upsamples chroma
        )
        return fn.resize(images, resize_x=size, resize_y=size, interp_type=kinds[interpolation], antialias=True)

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
