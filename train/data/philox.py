"""Philox4x64-10 for many samples at once: the words of numpy's bit generator of that name, without one generator per sample.

A numpy generator costs 100 µs to make, of which 78 words are 1 µs; a sample needs one per epoch and view. Imports numba:
import it where there is work. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS = 10
_MULTIPLY_0, _MULTIPLY_1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_LOW, _HALF, _ONE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(1)


def words(key: tuple[int, int], counters: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Return the first n words for each of k counters, (k, n): `np.random.Philox(key=key, counter=(0, *c)).random_raw(n)`.

    Args:
        key: two numbers; the lower 64 bits of each count.
        counters: (k, 3), the upper three words of each counter.
        n: words per counter.
    """
    out = np.empty((len(counters), n), np.uint64)
    mask = 2**64 - 1
    _fill(np.uint64(key[0] & mask), np.uint64(key[1] & mask), np.ascontiguousarray(counters, np.uint64), out)
    return out


@njit(cache=True, nogil=True)
def _high(a: np.uint64, b: np.uint64) -> np.uint64:
    """Return the upper 64 bits of a · b."""
    a0, a1 = a & _LOW, a >> _HALF
    b0, b1 = b & _LOW, b >> _HALF
    low, cross, other = a0 * b0, a1 * b0, a0 * b1
    carry = (low >> _HALF) + (cross & _LOW) + (other & _LOW)
    return a1 * b1 + (cross >> _HALF) + (other >> _HALF) + (carry >> _HALF)


@njit(cache=True, nogil=True)
def _fill(key_0: np.uint64, key_1: np.uint64, counters: NDArray[np.uint64], out: NDArray[np.uint64]) -> None:
    """Write the words of each counter into its row."""
    n = out.shape[1]
    for i in range(len(counters)):
        block = np.uint64(0)
        for start in range(0, n, 4):
            block += _ONE  # numpy counts up before it makes the first block
            a, b, c, d = block, counters[i, 0], counters[i, 1], counters[i, 2]
            k0, k1 = key_0, key_1
            for _ in range(_ROUNDS):
                high_0, low_0 = _high(_MULTIPLY_0, a), _MULTIPLY_0 * a
                high_1, low_1 = _high(_MULTIPLY_1, c), _MULTIPLY_1 * c
                a, b, c, d = high_1 ^ b ^ k0, low_1, high_0 ^ d ^ k1, low_0
                k0 += _WEYL_0
                k1 += _WEYL_1
            four = (a, b, c, d)
            for j in range(min(4, n - start)):
                out[i, start + j] = four[j]
