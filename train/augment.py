"""Augmentation as data: what happens to a sample is a function of (seed, epoch, uid), whatever decodes it and wherever.

The windows are cut by the decoders; flip, colour, blur and normalising are done from these parameters by
`train.photometric.Photometric`, one module for all engines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from shards.core.config import option
from shards.core.errors import UsageError
from train.order import AUGMENT, sample_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ATTEMPTS = 10  # torchvision's, for a random window
_FLIP, _JITTER, _ORDER, _GRAY, _BLUR, _SIGMA = 4 * ATTEMPTS, 4 * ATTEMPTS + 1, 46, 50, 51, 52
_NUMBERS = 53


@dataclass(frozen=True)
class Augment:
    """What is done to each image. The defaults are CLIP's: a mild random crop and nothing else."""

    crop: Literal["random", "centre"] = option("random", "random: RandomResizedCrop; centre: the largest centred square, as in evaluation")
    scale: tuple[float, ...] = option((0.9, 1.0), "the random crop's share of the image's area")
    ratio: tuple[float, ...] = option((3 / 4, 4 / 3), "the random crop's width / height")
    interpolation: Literal["bicubic", "bilinear"] = option("bicubic", "how crops are resized; always antialiased")
    flip: float = option(0.0, "probability of a left-right flip")
    color_jitter: tuple[float, ...] = option((), "strengths of brightness, contrast, saturation and hue, as in ColorJitter")
    color_jitter_p: float = option(0.8, "probability of the colour jitter")
    gray: float = option(0.0, "probability of turning gray")
    blur: float = option(0.0, "probability of a Gaussian blur")
    blur_sigma: tuple[float, ...] = option((0.1, 2.0), "range of its sigma, in pixels of the crop")
    mean: tuple[float, ...] = option((0.48145466, 0.4578275, 0.40821073), "per channel, subtracted (CLIP's)")
    std: tuple[float, ...] = option((0.26862954, 0.26130258, 0.27577711), "per channel, divided by (CLIP's)")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            UsageError: naming the key.
        """
        for name, low, high in (("scale", 0.0, 1.0), ("ratio", 0.0, math.inf), ("blur_sigma", 0.0, math.inf)):
            value = getattr(self, name)
            if len(value) != 2 or not low < value[0] <= value[1] <= high:
                raise UsageError(f"augment.{name}: {list(value)}", f"two numbers, {low:g} < low ≤ high ≤ {high:g}")
        for name in ("flip", "color_jitter_p", "gray", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"augment.{name}: {getattr(self, name)}", "a probability, 0 to 1")
        jitter = self.color_jitter
        if jitter and (len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5):
            raise UsageError(f"augment.color_jitter: {list(jitter)}", "four numbers from 0 on, the last (hue) up to 0.5")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError(f"augment.mean, std: {list(self.mean)}, {list(self.std)}", "three numbers each, std above 0")


class Window(NamedTuple):
    """A rectangle of an image, in pixels of the stored image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class AugmentParams:
    """The photometric parameters of a batch of n samples, as NumPy arrays.

    flip, gray: (n,) bool. factors: (n, 4) float32, brightness, contrast, saturation (1 = as it is) and hue (0 = as
    it is, in turns). order: (n, 4) int64, which factor is applied first, second, … sigma: (n,) float32, 0 = no blur.
    """

    flip: NDArray[np.bool_]
    factors: NDArray[np.float32]
    order: NDArray[np.int64]
    gray: NDArray[np.bool_]
    sigma: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.flip)


def uniforms(seed: int, epoch: int, uid: str) -> NDArray[np.float64]:
    """Return a sample's random numbers of an epoch, in [0, 1): each has one fixed use."""
    import numpy as np

    raw = sample_words(seed, AUGMENT, epoch, uid, _NUMBERS)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def window(augment: Augment, u: NDArray[np.float64], height: int, width: int) -> Window:
    """Return the part of an image of this size that becomes the crop.

    random: torchvision's RandomResizedCrop.get_params (ten attempts at an area and a log-uniform ratio, then the
    largest centred window of an allowed ratio). centre: what Resize and CenterCrop leave of the image.
    """
    if augment.crop == "centre":
        return centre_window(height, width)
    low, high = math.log(augment.ratio[0]), math.log(augment.ratio[1])
    for attempt in range(ATTEMPTS):
        a, b, c, d = (float(x) for x in u[4 * attempt : 4 * attempt + 4])
        area = height * width * (augment.scale[0] + a * (augment.scale[1] - augment.scale[0]))
        ratio = math.exp(low + b * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Window(int(c * (height - h + 1)), int(d * (width - w + 1)), h, w)
    w, h = width, height
    if width / height < augment.ratio[0]:
        h = round(width / augment.ratio[0])
    elif width / height > augment.ratio[1]:
        w = round(height * augment.ratio[1])
    return Window((height - h) // 2, (width - w) // 2, h, w)


def centre_window(height: int, width: int) -> Window:
    """Return the largest centred square: the evaluation's window."""
    side = min(height, width)
    return Window((height - side) // 2, (width - side) // 2, side, side)


def parameters(augment: Augment, numbers: Sequence[NDArray[np.float64]]) -> AugmentParams:
    """Return the photometric parameters of a batch from its samples' random numbers.

    Factors are drawn as torchvision's ColorJitter draws them: uniform in [max(0, 1 − s), 1 + s], hue in [−h, h],
    applied in a random order.
    """
    import numpy as np

    u = np.stack(numbers) if len(numbers) else np.zeros((0, _NUMBERS))
    factors = np.tile(np.array([1, 1, 1, 0], np.float32), (len(u), 1))
    if augment.color_jitter:
        on = u[:, _JITTER] < augment.color_jitter_p
        strength = np.array(augment.color_jitter)
        low = np.append(np.maximum(1 - strength[:3], 0), -strength[3])
        high = np.append(1 + strength[:3], strength[3])
        drawn = low + u[:, _JITTER + 1 : _JITTER + 5] * (high - low)
        factors[on] = drawn[on].astype(np.float32)
    sigma = augment.blur_sigma[0] + u[:, _SIGMA] * (augment.blur_sigma[1] - augment.blur_sigma[0])
    return AugmentParams(
        flip=u[:, _FLIP] < augment.flip,
        factors=factors,
        order=np.argsort(u[:, _ORDER : _ORDER + 4], axis=1, kind="stable"),
        gray=u[:, _GRAY] < augment.gray,
        sigma=np.where(u[:, _BLUR] < augment.blur, sigma, 0).astype(np.float32),
    )
