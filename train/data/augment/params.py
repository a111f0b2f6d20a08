"""Augmentation as data: what happens to a view of a sample is a function of (seed, epoch, uid, view), wherever it is decoded.

The windows are cut by the decoders; flip, colour, blur and normalising are done from these parameters by
`train.data.augment.photometric.Photometric`, one module for all engines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from shards.core.config import option
from shards.core.errors import UsageError
from train.data.augment import randaugment
from train.data.order import AUGMENT, identity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ATTEMPTS = 10  # torchvision's, for a random window
_FLIP, _JITTER, _ORDER, _GRAY, _BLUR, _SIGMA = 4 * ATTEMPTS, 4 * ATTEMPTS + 1, 46, 50, 51, 52
_SOLARIZE, _POLICY = 53, 54
_ERASE = _POLICY + randaugment.NUMBERS
# Each number keeps its place for good, so that a later version of this program augments as an earlier one did: new
# operations take numbers behind the present ones.
NUMBERS = _ERASE + 5
ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)  # timm's RandomErasing: share of the area, height / width


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
    solarize: float = option(0.0, "probability of inverting values from 0.5 on, after the blur (BYOL's)")
    randaugment: str = option("", "timm's rand-m9-mstd0.5-inc1 or AugReg's randaug(2,15), before the colour jitter")
    erase: float = option(0.0, "probability of erasing a rectangle, after normalising (timm's RandomErasing)")
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
        for name in ("flip", "color_jitter_p", "gray", "blur", "solarize", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"augment.{name}: {getattr(self, name)}", "a probability, 0 to 1")
        jitter = self.color_jitter
        if jitter and (len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5):
            raise UsageError(f"augment.color_jitter: {list(jitter)}", "four numbers from 0 on, the last (hue) up to 0.5")
        if self.randaugment:
            randaugment.parse(self.randaugment)
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

    flip, gray, solarize: (n,) bool. factors: (n, 4) float32, brightness, contrast, saturation (1 = as it is) and hue (0 =
    as it is, in turns). order: (n, 4) int64, which factor is applied first, second, … sigma: (n,) float32, 0 = no blur.
    policy: (n, layers, 4) float32, RandAugment's operations as `randaugment.draw` returns them; no layers without it.
    erased: (n, 4) float32, an erased rectangle's share of the area, its height / width, and where it lies (y, x), as shares of
    the room there is; an area of 0 stands for none.
    """

    flip: NDArray[np.bool_]
    factors: NDArray[np.float32]
    order: NDArray[np.int64]
    gray: NDArray[np.bool_]
    sigma: NDArray[np.float32]
    solarize: NDArray[np.bool_]
    policy: NDArray[np.float32]
    erased: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.flip)


def uniforms(seed: int, epoch: int, uid: str, view: int = 0) -> NDArray[np.float64]:
    """Return the random numbers of a view of a sample in an epoch, (NUMBERS,), in [0, 1): each has one fixed use."""
    return uniforms_of_batch(seed, [epoch], [uid], view)[0]


def uniforms_of_batch(seed: int, epochs: Sequence[int], uids: Sequence[str], view: int = 0) -> NDArray[np.float64]:
    """Return `uniforms` of n samples at once, (n, NUMBERS)."""
    import numpy as np

    counters = [(epoch, *identity(uid)) for epoch, uid in zip(epochs, uids, strict=True)]
    return uniforms_at(seed, np.array(counters, np.uint64).reshape(-1, 3), view)


def uniforms_at(seed: int, counters: NDArray[np.uint64], view: int = 0) -> NDArray[np.float64]:
    """Return `uniforms` of n samples at once, (n, NUMBERS); 0.5 µs a sample, where a generator each would cost 120 µs.

    They are the words of `order.sample_words(seed, AUGMENT, epoch, uid, NUMBERS, view)`.

    Args:
        counters: (n, 3): the epoch and the two halves of the uid (`order.identity`).
    """
    import numpy as np

    from train.data import philox

    raw = philox.words((seed, AUGMENT | view << 8), counters, NUMBERS)
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


def evaluation(augment: Augment) -> Augment:
    """Return what evaluation does to a model trained with an augmentation: the centre crop, resized and normalised alike."""
    return replace(Augment(crop="centre"), interpolation=augment.interpolation, mean=augment.mean, std=augment.std)


def parameters(augment: Augment, numbers: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> AugmentParams:
    """Return the photometric parameters of a batch from its samples' random numbers, n rows of NUMBERS.

    Factors are drawn as torchvision's ColorJitter draws them: uniform in [max(0, 1 − s), 1 + s], hue in [−h, h],
    applied in a random order.
    """
    import numpy as np

    u = np.asarray(numbers) if len(numbers) else np.zeros((0, NUMBERS))
    factors = np.tile(np.array([1, 1, 1, 0], np.float32), (len(u), 1))
    if augment.color_jitter:
        on = u[:, _JITTER] < augment.color_jitter_p
        strength = np.array(augment.color_jitter)
        low = np.append(np.maximum(1 - strength[:3], 0), -strength[3])
        high = np.append(1 + strength[:3], strength[3])
        drawn = low + u[:, _JITTER + 1 : _JITTER + 5] * (high - low)
        factors[on] = drawn[on].astype(np.float32)
    low_area, high_area = ERASED_AREA
    low_ratio, high_ratio = np.log(ERASED_RATIO)
    area = np.where(u[:, _ERASE] < augment.erase, low_area + u[:, _ERASE + 1] * (high_area - low_area), 0)
    ratio = np.exp(low_ratio + u[:, _ERASE + 2] * (high_ratio - low_ratio))
    policy = np.zeros((len(u), 0, 4), np.float32)
    if augment.randaugment:
        policy = randaugment.draw(randaugment.parse(augment.randaugment), u[:, _POLICY:])
    sigma = augment.blur_sigma[0] + u[:, _SIGMA] * (augment.blur_sigma[1] - augment.blur_sigma[0])
    return AugmentParams(
        flip=u[:, _FLIP] < augment.flip,
        factors=factors,
        order=np.argsort(u[:, _ORDER : _ORDER + 4], axis=1, kind="stable"),
        gray=u[:, _GRAY] < augment.gray,
        sigma=np.where(u[:, _BLUR] < augment.blur, sigma, 0).astype(np.float32),
        solarize=u[:, _SOLARIZE] < augment.solarize,
        policy=policy,
        erased=np.stack([area, ratio, u[:, _ERASE + 3], u[:, _ERASE + 4]], 1).astype(np.float32),
    )
