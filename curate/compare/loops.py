"""The compiled loops of the vocabulary's replicates. Imports numba: import it where there is work."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@njit(cache=True, nogil=True)
def counted(stream: NDArray[np.int32], lengths: NDArray[np.int64], weights: F64, size: int) -> F64:
    """Return how often each of `size` words occurs in captions that count `weights` times.

    Args:
        stream: the number of every word, caption after caption.
        lengths: how many words each caption has.
    """
    counts, at = np.zeros(size), 0
    for caption in range(len(lengths)):
        end = at + lengths[caption]
        if weights[caption] != 0:
            for i in range(at, end):
                counts[stream[i]] += weights[caption]
        at = end
    return counts


@njit(cache=True, nogil=True)
def divergence(a: F64, b: F64) -> float:
    """Return the Jensen–Shannon divergence (Lin 1991), in bits, of two vectors of counts, neither of them all zeros."""
    of_a, of_b, found = a.sum(), b.sum(), 0.0
    for i in range(len(a)):
        p, q = a[i] / of_a, b[i] / of_b
        if p > 0:
            found += p * math.log2(2 * p / (p + q))
        if q > 0:
            found += q * math.log2(2 * q / (p + q))
    return max(0.0, found / 2)
