"""The 64-bit pHash of a JPEG: an 8×8 corner of the DCT of a 32×32 gray image, each coefficient against their median.

    reference   imagededup's, bit for bit: all pixels, Lanczos in colour, then gray
    scaled      decoded at 1/2, 1/4 or 1/8 while the shorter side keeps 128 px, then gray
    fast        the same while it keeps 32 px

All three decode the whole entropy-coded data, so each is the proof that the file is whole. Hashes of one build are of
one kind; those of two kinds are a few bits apart, and must not be compared at a small radius (docs/LOG.md).

A hash sees no colour. Beside it stand the mean colours of the picture's sixteen parts, from the same decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import hypot
from typing import TYPE_CHECKING, Any

from shards.proof import jpeg_pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What a kind's hash is called in keys and manifests; raised whenever its bits change.
VERSIONS = {"reference": "phash-reference-1", "scaled": "phash-scaled-2", "fast": "phash-fast-2"}
DEFAULT = "scaled"
# Below this many gray levels the hash says too little for a near match: exact copies are all that dedup looks for.
# None of 390 real photos lies below (their least is 15), flat fills and one-line text banners do (docs/LOG.md).
LOW_INFORMATION = 12.0
SHORTEST = {"scaled": 128, "fast": 32}
_LONGEST = 2048  # longer sides, of strips mostly, go through Pillow's Lanczos first: their matrices would be huge
_MEDIAN = 31  # of the 63 coefficients without the mean
CELLS = 4  # a side is cut into so many, for the colours
_NEUTRAL = 128


@dataclass(frozen=True)
class Hashed:
    """What the pixels of a picture say, for duplicates.

    `information` is the standard deviation of what the 8×8 coefficients describe, in gray levels: near zero for flat
    images, whose hash bits are numerical noise. `colours`: the mean Cb of the 4×4 parts, row by row, then their mean Cr, 2 hex digits each.
    `colour`: the largest distance of one of these from gray, in levels (0 to 180).
    """

    phash: int
    information: float
    colours: str
    colour: float


def phash(content: bytes, size: tuple[int, int], gray: bool, kind: str) -> Hashed:
    """Return what a JPEG's pixels say.

    Args:
        size: (width, height) of the JPEG.
        gray: whether it has one component.
        kind: reference, scaled or fast.

    Raises:
        UndecodableError: the JPEG does not decode to its last row.
    """
    import numpy as np
    from PIL import Image

    factor = 1 if kind == "reference" else scale(size, SHORTEST[kind])
    pixels = jpeg_pixels(content, "GRAY" if gray else "RGB", factor)
    image = Image.fromarray(pixels)
    colours, colour = _colours(image)
    if kind == "reference":
        return Hashed(*phash_of_image(image), colours, colour)
    return Hashed(*_linear(pixels if gray else np.asarray(image.convert("L"))), colours, colour)


def _colours(image: Any) -> tuple[str, float]:
    """Return the mean colours of the parts of an image in gray or RGB, and how far from gray they go.

    In plain Python: sixteen numbers are too few for arrays (10 µs, where NumPy took 60).
    """
    from PIL import Image

    if image.mode == "L":
        return f"{_NEUTRAL:02x}" * (2 * CELLS * CELLS), 0.0
    levels = image.resize((CELLS, CELLS), Image.Resampling.BOX).convert("YCbCr").tobytes()
    blue, red = levels[1::3], levels[2::3]
    furthest = max(hypot(cb - _NEUTRAL, cr - _NEUTRAL) for cb, cr in zip(blue, red, strict=True))
    return (blue + red).hex(), round(furthest, 2)


def scale(size: tuple[int, int], shortest: int) -> int:
    """Return the largest of 1, 2, 4, 8 that leaves the shorter side `shortest` pixels; 1 for small images."""
    return max(f for f in (1, 2, 4, 8) if f == 1 or min(size) >= f * shortest)


def phash_of_image(image: Any) -> tuple[int, float]:
    """Hash an image in gray or RGB as imagededup does: even the order of its sums counts, for ties."""
    import numpy as np
    from PIL import Image
    from scipy.fftpack import dct

    small = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS).convert("L"))
    return _read(dct(dct(small, axis=0), axis=1)[:8, :8], 1.0)


def _linear(pixels: NDArray[np.uint8]) -> tuple[int, float]:
    """Hash (rows, columns) luma. Resizing and DCT are both linear: one matrix for each side does both at once."""
    import numpy as np
    from PIL import Image

    if max(pixels.shape) > _LONGEST:
        pixels = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.LANCZOS))
    (left, a), (right, b) = _side(pixels.shape[0]), _side(pixels.shape[1])
    return _read(left @ pixels.astype(np.float64) @ right.T, a * b)


@lru_cache(512)
def _side(length: int) -> tuple[NDArray[np.float64], float]:
    """Return the (8, length) matrix that resizes a side to 32 by Lanczos and takes its first 8 DCT coefficients, times
    a power of two, and that power.

    Its entries are rounded to integers below 2**13, so that all sums are exact in double precision: the hash does
    not depend on the order in which a machine, or a thread, adds.
    """
    import numpy as np

    ratio = length / 32
    distance = (np.arange(length) + 0.5 - (np.arange(32)[:, None] + 0.5) * ratio) / max(ratio, 1.0)
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    cosines = 2 * np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(32) + 1) / 64)
    both = cosines @ weights
    power = float(2.0 ** np.floor(np.log2(2**13 / np.abs(both).max())))
    return np.rint(both * power), power


def _read(low: Any, unit: float) -> tuple[int, float]:
    """Return the bits of 8×8 coefficients (in 1/unit), and the information in them."""
    import numpy as np

    bits = low >= np.sort(low.ravel()[1:])[_MEDIAN]
    # Parseval for the unnormalised DCT-II: sum(x²) = sum(w·y²)/(4·32)² with w = 1 for index 0 and 2 for the others, per axis.
    square = np.square(low)
    energy = 4 * square[1:, 1:].sum() + 2 * square[0, 1:].sum() + 2 * square[1:, 0].sum()
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), float(energy) ** 0.5 / (4 * 32 * 32 * unit)
