"""Near-duplicates of a few images among many: perceptual hashes at most four bits apart.

Two hashes that differ in four of 64 bits agree in at least one of five blocks of bits. So the few are sorted by each block once, and
each of the many is compared with those alone that share a block: about one in 8,192 for each block. The outcome is that of comparing
all with all.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from shards.phash import LOW_INFORMATION, phash
from shards.upright import UndecodableError, open_image, upright_rgb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RADIUS = 4  # bits: finds re-encoded and resized copies and hardly any other (docs/LOG.md)
_BLOCKS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # (first bit, bits); one more than RADIUS
_QUALITY = 95


def hash_of(content: bytes, kind: str) -> tuple[int, bool]:
    """Return the hash of an image as a build would hold it, and whether it says enough for a near match.

    Args:
        content: an encoded image of any known format; one that does not decode matches nothing.
        kind: reference, scaled or fast (`shards.phash`).
    """
    jpeg = io.BytesIO()
    try:
        image = upright_rgb(open_image(content))
        image.save(jpeg, "JPEG", quality=_QUALITY)
        hashed = phash(jpeg.getvalue(), image.size, gray=False, kind=kind)
    except UndecodableError:
        return 0, False
    return hashed.phash, hashed.information >= LOW_INFORMATION


class NearIndex:
    """Hashes that others are looked up among."""

    def __init__(self, hashes: NDArray[np.uint64], usable: NDArray[np.bool_]) -> None:
        """Take hashes (n,), of which only the usable ones match anything."""
        import numpy as np

        self._hashes = hashes
        self._places = np.flatnonzero(usable)
        self._sorted = []
        for first, bits in _BLOCKS:
            keys = _block(hashes[self._places], first, bits)
            order = np.argsort(keys, kind="stable")
            self._sorted.append((keys[order], self._places[order]))

    def pairs(self, others: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (places here, places among the others, bits apart) of all pairs within RADIUS, each once, sorted.

        Args:
            others: (m,) hashes.
        """
        import numpy as np

        here, there = [], []
        for (keys, places), (first, bits) in zip(self._sorted, _BLOCKS, strict=True):
            wanted = _block(others, first, bits)
            starts, stops = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
            counts = stops - starts
            offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            here.append(places[np.repeat(starts, counts) + offsets])
            there.append(np.repeat(np.arange(len(others)), counts))
        candidates = np.unique(np.stack([np.concatenate(here), np.concatenate(there)], axis=1), axis=0)
        apart = _bits_apart(self._hashes[candidates[:, 0]], others[candidates[:, 1]])
        close = apart <= RADIUS
        return candidates[close, 0], candidates[close, 1], apart[close]


def _block(hashes: NDArray[np.uint64], first: int, bits: int) -> NDArray[np.uint64]:
    import numpy as np

    return (hashes >> np.uint64(first)) & np.uint64(2**bits - 1)


def _bits_apart(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    import numpy as np

    octets = (a ^ b).view(np.uint8).reshape(len(a), 8)
    return np.unpackbits(octets, axis=1).sum(axis=1).astype(np.int64)
