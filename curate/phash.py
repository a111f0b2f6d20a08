"""The 64-bit pHash of a JPEG: an 8×8 corner of the DCT of a 32×32 gray image, each coefficient against their median.

    reference   imagededup's, bit for bit: all pixels, Lanczos in colour, then gray
    scaled      luma alone, decoded at 1/2, 1/4 or 1/8 while the shorter side keeps 128 px
    fast        the same while it keeps 32 px

All three decode the whole entropy-coded data, so each is the proof that the file is whole. Hashes of one build are of
one kind; those of two kinds are a few bits apart, and must not be compared at a small radius (docs/LOG.md).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from shards.proof import jpeg_pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What a kind's hash is called in keys and manifests; raised whenever its bits change.
VERSIONS = {"reference": "phash-reference-1", "scaled": "phash-scaled-1", "fast": "phash-fast-1"}
SHORTEST = {"scaled": 128, "fast": 32}
_LONGEST = 2048  # longer sides, of strips mostly, go through Pillow's Lanczos first: their matrices would be huge
_MEDIAN = 31  # of the 63 coefficients without the mean


def phash(content: bytes, size: tuple[int, int], gray: bool, kind: str) -> tuple[int, float]:
    """Return a JPEG's hash and its information.

    Information is the standard deviation of what the 8×8 coefficients describe, in gray levels: near zero for flat
    images, whose hash bits are numerical noise.

    Args:
        size: (width, height) of the JPEG.
        gray: whether it has one component.
        kind: reference, scaled or fast.

    Raises:
        ValueError: the JPEG does not decode to its last row.
    """
    if kind == "reference":
        return phash_of_pixels(jpeg_pixels(content, "GRAY" if gray else "RGB"))
    return _linear(jpeg_pixels(content, "GRAY", scale(size, SHORTEST[kind])))


def scale(size: tuple[int, int], shortest: int) -> int:
    """Return the largest of 1, 2, 4, 8 that leaves the shorter side `shortest` pixels; 1 for small images."""
    return max(f for f in (1, 2, 4, 8) if f == 1 or min(size) >= f * shortest)


def phash_of_pixels(pixels: NDArray[np.uint8]) -> tuple[int, float]:
    """Hash (rows, columns[, 3]) pixels as imagededup does: even the order of its sums counts, for ties."""
    import numpy as np
    from PIL import Image
    from scipy.fftpack import dct

    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.LANCZOS).convert("L"))
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
