"""Near duplicates: an exact join of 64-bit hashes within a Hamming radius, then a greedy choice by preference.

The join is a pigeonhole: two hashes within r bits agree on at least one of r+1 bands, so only hashes that share a
band are compared. It finds all pairs (the tests hold it against brute force). The choice keeps a sample unless a
*kept*, preferred one lies within the radius: no chains, nothing depends on arrival.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    U64 = NDArray[np.uint64]
    I64 = NDArray[np.int64]

HASH_BITS = 64


def bands(radius: int) -> list[tuple[int, int]]:
    """Return r+1 bands as (shift, width); their widths differ by one bit at most and add up to 64."""
    count = radius + 1
    edges = [HASH_BITS * i // count for i in range(count + 1)]
    return [(low, high - low) for low, high in itertools.pairwise(edges)]


@cache
def _kernels() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compile the inner loops once a process; numba is imported only where there is something to join."""
    import numba
    import numpy as np

    @numba.njit(cache=True, nogil=True)
    def distance(a: Any, b: Any) -> Any:
        x = a ^ b
        x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)

    @numba.njit(cache=True, nogil=True)
    def join_band(hashes: Any, order: Any, shifts: Any, masks: Any, band: int, radius: int) -> Any:
        """Compare all hashes that agree on one band; a pair is told only by the first band it agrees on."""
        left, right = [], []
        start = 0
        while start < len(order):
            stop = start + 1
            key = (hashes[order[start]] >> shifts[band]) & masks[band]
            while stop < len(order) and (hashes[order[stop]] >> shifts[band]) & masks[band] == key:
                stop += 1
            for i in range(start, stop):
                for j in range(i + 1, stop):
                    a, b = hashes[order[i]], hashes[order[j]]
                    if distance(a, b) > radius:
                        continue
                    first = True
                    for earlier in range(band):
                        if ((a ^ b) >> shifts[earlier]) & masks[earlier] == 0:
                            first = False
                            break
                    if first:
                        left.append(min(order[i], order[j]))
                        right.append(max(order[i], order[j]))
            start = stop
        return np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)

    @numba.njit(cache=True, nogil=True)
    def greedy(count: int, left: Any, right: Any) -> Any:
        """For pairs sorted by their later member, give each sample the kept one that replaces it, or -1."""
        kept_by = np.full(count, -1, dtype=np.int64)
        for i in range(len(left)):
            if kept_by[left[i]] == -1 and kept_by[right[i]] == -1:
                kept_by[right[i]] = left[i]
        return kept_by

    return join_band, greedy


def pairs_within(hashes: U64, radius: int) -> tuple[I64, I64]:
    """Return all pairs (i < j) of distinct hashes at most `radius` bits apart, sorted by (j, i).

    Args:
        hashes: shape (n,), all different.
        radius: bits of 64.
    """
    import numpy as np

    if len(hashes) < 2 or radius < 1:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    layout = bands(radius)
    shifts = np.array([shift for shift, _ in layout], np.uint64)
    masks = np.array([(1 << width) - 1 for _, width in layout], np.uint64)
    join_band, _ = _kernels()
    found = []
    for band in range(len(layout)):
        order = np.argsort((hashes >> shifts[band]) & masks[band], kind="stable")
        found.append(join_band(hashes, order, shifts, masks, band, radius))
    left, right = (np.concatenate(side) for side in zip(*found, strict=True))
    order = np.lexsort((left, right))
    return left[order], right[order]


def near_duplicates(hashes: U64, radius: int) -> I64:
    """Return for each sample the index of the kept one that it duplicates, or -1 if it is kept.

    Args:
        hashes: shape (n,), in order of preference: the first of a pair is the one to keep.
        radius: bits of 64; 0 finds equal hashes only.
    """
    import numpy as np

    if len(hashes) == 0:
        return np.empty(0, np.int64)
    # Equal hashes collapse onto their most preferred sample first: no huge buckets, and the same result.
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    preference = np.argsort(first, kind="stable")
    by_preference = distinct[preference]
    left, right = pairs_within(by_preference, radius)
    _, greedy = _kernels() if len(left) else (None, _nothing)
    kept_by = greedy(len(by_preference), left, right)
    # From collapsed, preference-ordered groups back to samples.
    place = np.empty(len(distinct), np.int64)
    place[preference] = np.arange(len(distinct))
    group = place[inverse]
    representative = first[preference]
    winner = np.where(kept_by[group] >= 0, representative[kept_by[group]], representative[group])
    return np.where(winner == np.arange(len(hashes)), -1, winner)


def _nothing(count: int, left: I64, right: I64) -> I64:
    import numpy as np

    return np.full(count, -1, dtype=np.int64)
