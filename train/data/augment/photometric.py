"""Flip, RandAugment, colour jitter, gray, blur, solarise and normalise a batch from its parameters, on any device."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from shards.core.errors import UsageError
from train.data.augment.params import Augment, AugmentParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHARES = 4  # parts of a batch per thread: samples differ in work by up to 20 times, so threads fetch small parts
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # factors of brightness, contrast, saturation and hue that change nothing
_MAX_FREE = 8  # buffers kept though nobody uses them


class Photometric(nn.Module):
    """uint8 crops and their parameters → normalised float crops, channels-last in memory.

    Each operation is torchvision's functional of the same name on floats in [0, 1], applied per sample but batched:
    horizontal flip, RandAugment (on uint8, as timm does), then brightness, contrast, saturation and hue in the sample's own
    order, gray, Gaussian blur with a kernel of a tenth of the side (SimCLR's), solarisation from 0.5 on (BYOL's), then
    (x − mean) / std, and 0 in erased rectangles. It has no state and draws nothing. On a CPU the compiled chain of `photokernel`
    does it with torch's number of threads; elsewhere, torch's operations on the rows that need them, without waiting for the device.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, augment: Augment, dtype: torch.dtype = torch.float32) -> None:
        """Take the mean and std of a configuration; everything else comes with the parameters.

        Args:
            augment: the configuration.
            dtype: of the output: float32, or bfloat16, rounded once, at the end.

        Raises:
            UsageError: another type.
        """
        super().__init__()
        if dtype not in (torch.float32, torch.bfloat16):
            raise UsageError(f"photometric output of type {dtype}", "torch.float32, torch.bfloat16")
        self.dtype = dtype
        self.register_buffer("mean", torch.tensor(augment.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(augment.std).view(1, 3, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, images: torch.Tensor, params: AugmentParams) -> torch.Tensor:
        """Return (n, 3, S, S), normalised, in the chosen type, from (n, 3, S, S) uint8 and the parameters of the n samples.

        On a CPU the memory of a result is used again once neither a tensor nor autograd refers to it.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        flip = params.flip
        if (params.policy.shape[1] > 0) and (params.policy[..., 0] >= 0).any():
            images = self._operated(images, params)
            import numpy as np

            flip = np.zeros_like(flip)  # RandAugment comes after the flip, so that `_operated` has done it
        if images.device.type == "cpu":
            normalised = self._compiled(images, flip, params)
        else:
            x = operations(images.to(torch.float32).div_(255), flip, params)
            normalised = x.sub_(self.mean).div_(self.std).to(self.dtype)
        return erased(normalised, params)

    def _operated(self, images: torch.Tensor, params: AugmentParams) -> torch.Tensor:
        """Flip and apply RandAugment's operations; pixels from outside an image get the mean colour, as timm's do."""
        from train.data.augment import imageops

        images = flipped(images.clone(memory_format=torch.channels_last), params.flip)
        return imageops.apply(images, params.policy, (255 * self.mean.view(3)).round().clamp(max=255))

    def _compiled(self, images: torch.Tensor, flip: NDArray[np.bool_], params: AugmentParams) -> torch.Tensor:
        """Run the compiled chain on the samples that have operations, the table on the others, in parts for the threads."""
        import numpy as np

        from train.data.augment import photokernel

        n, _, height, width = images.shape
        half = self.dtype == torch.bfloat16
        out = BUFFERS.take((n, height, width, 3), "uint16" if half else "float32")  # numpy has no bfloat16, but its bits
        pixels = images.permute(0, 2, 3, 1).numpy()
        facts = (flip, params.factors, params.order, params.gray, params.sigma, params.solarize)
        scale = (1 / self.std).numpy().ravel()
        bias = (-self.mean / self.std).numpy().ravel()
        changed = _changed(params)
        table = self._table()

        def do(rows: NDArray[np.int64]) -> None:
            if len(simple := rows[~changed[rows]]):
                photokernel.plain(simple, pixels, flip, table, out)
            if len(others := rows[changed[rows]]):
                photokernel.chain(others, pixels, *facts, scale, bias, out)

        threads = min(torch.get_num_threads(), n)
        if threads <= 1:
            do(np.arange(n))
        else:
            parts = np.array_split(np.arange(n), _SHARES * threads)
            list(_pool(threads, os.getpid()).map(do, parts))
        result = torch.from_numpy(out)
        return (result.view(torch.bfloat16) if half else result).permute(0, 3, 1, 2)

    def _table(self) -> NDArray[np.generic]:
        """Return what each level of each channel becomes when nothing but normalising is done, (3, 256); bfloat16 as its bits."""
        levels = (torch.arange(256).view(1, 256) / 255 - self.mean.view(3, 1)) / self.std.view(3, 1)
        if self.dtype == torch.bfloat16:
            return levels.to(torch.bfloat16).view(torch.int16).numpy().view("uint16")
        return levels.numpy()


def _changed(params: AugmentParams) -> NDArray[np.bool_]:
    """Return which samples have more done to them than a flip and normalising."""
    jittered = (params.factors != NEUTRAL).any(1)
    return jittered | params.gray | params.solarize | (params.sigma > 0)


@lru_cache(maxsize=2)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of this process; a forked child has none of its parent's, hence the process in the key."""
    return ThreadPoolExecutor(threads, f"photometric-{process}")


class Buffers:
    """Arrays for results, used again once nobody refers to them.

    A new array of 38 MB (64 samples of 224 pixels) costs 110 µs a sample for the pages that the system must clear, as much
    as normalising. torch holds a reference to the array as long as a tensor or autograd uses the storage, so the array's
    count of references says whether it is free.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._arrays: list[NDArray[np.generic]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: str) -> NDArray[np.generic]:
        """Return an array that nobody else refers to; what it holds is arbitrary."""
        import numpy as np

        with self._lock:
            free = [at for at in range(len(self._arrays)) if sys.getrefcount(self._arrays[at]) == 2]  # the list and the call
            for at in free:
                if self._arrays[at].shape == shape and self._arrays[at].dtype == dtype:
                    return self._arrays[at]
            if len(free) >= _MAX_FREE:
                del self._arrays[free[0]]
            self._arrays.append(np.empty(shape, dtype))
            return self._arrays[-1]


BUFFERS = Buffers()


def operations(x: torch.Tensor, flip: NDArray[np.bool_], params: AugmentParams) -> torch.Tensor:
    """Apply all operations but RandAugment and the normalising to (n, 3, H, W) floats in [0, 1], in place.

    This is the definition that the compiled chain equals within 1e-5.
    """
    jitter(flipped(x, flip), params)
    if (rows := _rows(params.gray, x)) is not None:
        x.index_copy_(0, rows, luma(x[rows]).expand(-1, 3, -1, -1))
    if (rows := _rows(params.sigma > 0, x)) is not None:
        x.index_copy_(0, rows, blur(x[rows], _on(params.sigma[params.sigma > 0], x)))
    if (rows := _rows(params.solarize, x)) is not None:
        chosen = x[rows]
        x.index_copy_(0, rows, torch.where(chosen >= 0.5, 1 - chosen, chosen))
    return x


def erased(x: torch.Tensor, params: AugmentParams) -> torch.Tensor:
    """Set a rectangle of the chosen samples of (n, 3, H, W) to 0, the mean colour, in place.

    timm's RandomErasing draws up to ten times until the rectangle is smaller than the image; here one that is not (0.4% of those
    drawn) erases nothing.
    """
    height, width = x.shape[-2:]
    for row in params.erased[:, 0].nonzero()[0].tolist():
        area, ratio, y, x_share = params.erased[row].tolist()
        tall = round((area * height * width * ratio) ** 0.5)
        wide = round((area * height * width / ratio) ** 0.5)
        if tall >= height or wide >= width:
            continue
        top = int(y * (height - tall + 1))
        left = int(x_share * (width - wide + 1))
        x[row, :, top : top + tall, left : left + wide] = 0
    return x


def flipped(x: torch.Tensor, flip: NDArray[np.bool_]) -> torch.Tensor:
    """Mirror the chosen samples of (n, 3, H, W) left to right, in place."""
    if (rows := _rows(flip, x)) is not None:
        x.index_copy_(0, rows, x[rows].flip(-1))
    return x


def _on(values: NDArray[np.generic], x: torch.Tensor) -> torch.Tensor:
    """Return host values on x's device; the copy is queued, so a GPU is not waited for."""
    return torch.from_numpy(values).to(x.device, non_blocking=True)


def _rows(mask: NDArray[np.bool_], x: torch.Tensor) -> torch.Tensor | None:
    """Return the indices where a mask is set, on x's device; None where nowhere. The parameters stay on the host, so a GPU never waits."""
    rows = mask.nonzero()[0]
    return _on(rows, x) if len(rows) else None


def jitter(x: torch.Tensor, params: AugmentParams) -> torch.Tensor:
    """Apply each sample's four colour factors in its own order to (n, 3, H, W) in [0, 1], in place; neutral factors are passed over."""
    for turn in range(4):
        for which, operation in enumerate((brightness, contrast, saturation, hue)):
            chosen = (params.order[:, turn] == which) & (params.factors[:, which] != NEUTRAL[which])
            if (rows := _rows(chosen, x)) is not None:
                factor = _on(params.factors[chosen, which], x).view(-1, 1, 1, 1)
                x.index_copy_(0, rows, operation(x[rows], factor))
    return x


def luma(x: torch.Tensor) -> torch.Tensor:
    """Return ITU-R 601 luma, (n, 1, H, W), with torchvision's coefficients."""
    red, green, blue = x.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def brightness(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with black."""
    return (factor * x).clamp(0, 1)


def contrast(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the mean gray of each image."""
    mean = luma(x).mean((1, 2, 3), keepdim=True)
    return (factor * x + (1 - factor) * mean).clamp(0, 1)


def saturation(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the gray image."""
    return (factor * x + (1 - factor) * luma(x)).clamp(0, 1)


def hue(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Turn the hue by a factor in turns, through HSV.

    RGB is rebuilt by the closed form f(n) = v − v·s·max(0, min(k, 4 − k, 1)), k = (n + 6h) mod 6, n = 5, 3, 1.
    """
    value, _ = x.max(1, keepdim=True)
    chroma = value - x.min(1, keepdim=True).values
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    red, green, blue = x.split(1, dim=1)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sextant + 6 * factor
    offsets = torch.tensor([5.0, 3.0, 1.0], device=x.device).view(1, 3, 1, 1)
    k = (offsets + turned) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each of (n, 3, H, W) with its own sigma: an odd kernel of about a tenth of the side, reflected borders."""
    n, channels, height, width = x.shape
    side = max(int(0.1 * width) | 1, 3)
    grid = torch.arange(side, device=x.device, dtype=x.dtype) - side // 2
    kernel = torch.exp(-0.5 * (grid / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(x.reshape(1, n * channels, height, width), [side // 2] * 4, mode="reflect")
    flat = F.conv2d(flat, kernel.view(-1, 1, side, 1), groups=n * channels)
    return F.conv2d(flat, kernel.view(-1, 1, 1, side), groups=n * channels).view(n, channels, height, width)
