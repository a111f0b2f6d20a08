"""Near duplicates: an exact join of 64-bit hashes within a Hamming radius, then a greedy choice by preference.

The join (`curate/join.py`) finds all pairs: the tests hold it against brute force. The choice keeps a sample unless a *kept*,
preferred one lies within the radius: no chains, nothing depends on arrival. A few thousand hashes are compared by numpy
alone, so that a small build does not wait for a compiler.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

from shards.core.engines.local import threads_of
from shards.core.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from curate.join import Column

    U64 = NDArray[np.uint64]
    I64 = NDArray[np.int64]

FEW = 1 << 24  # comparisons that numpy does in a tenth of a second
_AT_ONCE = 1 << 20  # pairs whose colours are compared at once: 250 MB
MOST = 2**32  # ids are 32 bits wide
MOST_PAIRS = 1 << 28  # 2 GiB
# Mean Cb and Cr of one part of a picture may lie so far apart, in levels. Of 396 copies of 66 photos (a half, a third, a fifth
# of the side; JPEG quality 10 to 85) none went beyond 5.0; with all hues turned by 60 degrees, 65 of the 66 went beyond 6.
COLOURS_APART = 6.0


def near_duplicates(
    hashes: U64, radius: int, threads: int = 0, most_pairs: int = MOST_PAIRS, colours: NDArray[np.uint8] | None = None
) -> I64:
    """Return for each sample the index of the kept one that it duplicates, or -1 if it is kept.

    Args:
        hashes: shape (n,), in order of preference: the first of a pair is the one to keep.
        radius: bits of 64; 0 finds equal hashes only.
        threads: at most one per core; 0 means one per core.
        most_pairs: how many pairs to hold at once; where crowds make more, the preferred half chooses first.
        colours: shape (n, 2, parts), mean Cb and Cr of each part of the picture: two that are further apart than COLOURS_APART
            in any part are no duplicates. None looks at no colours.
    """
    import numpy as np

    n = len(hashes)
    if n * n <= FEW:
        return _choose_among_few(hashes, radius, colours)
    from curate.join import Column, collapse, sorted_by_hash, spread

    _check(n)
    threads = threads_of(threads)
    stands_for = np.empty(n, np.uint32)
    kept_by = np.full(n, -1, np.int64)
    with ThreadPoolExecutor(threads) as pool:
        column = Column(np.ascontiguousarray(hashes, np.uint64), np.arange(n, dtype=np.uint32))
        if colours is None:
            # Equal hashes collapse onto their most preferred sample first: no huge buckets, and the same result.
            column = sorted_by_hash(column, pool, threads)
            column = column[: collapse(column.hashes, column.ids, stands_for)]
        else:
            column = column[_collapse_coloured(hashes, colours, stands_for)]
        if radius or colours is not None:
            _choose_among_many(column, radius, pool, threads, most_pairs, kept_by, colours)
    spread(kept_by, stands_for)
    return kept_by


def _collapse_coloured(hashes: U64, colours: NDArray[np.uint8], stands_for: NDArray[np.uint32]) -> I64:
    """Return the ids of the first sample of each hash and colours, and note for every sample which one that is.

    Equal hashes alone do not collapse here: they may be pictures of several colours.
    """
    import numpy as np

    whole = np.concatenate([hashes.astype(">u8").view(np.uint8).reshape(len(hashes), -1), colours.reshape(len(hashes), -1)], axis=1)
    rows = np.ascontiguousarray(whole).view(np.dtype((np.void, whole.shape[1]))).ravel()
    _, first, where = np.unique(rows, return_index=True, return_inverse=True)
    stands_for[:] = first[where]
    return np.sort(first)


def _alike(pairs: U64, colours: NDArray[np.uint8] | None) -> U64:
    """Return the pairs (later id << 32 | earlier id) whose colours are no further apart than COLOURS_APART."""
    import numpy as np

    if colours is None:
        return pairs
    kept = []
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        earlier, later = (some & np.uint64(0xFFFFFFFF)).astype(np.int64), (some >> np.uint64(32)).astype(np.int64)
        kept.append(some[_colours_apart(colours[earlier], colours[later]) <= COLOURS_APART])
    return np.concatenate(kept) if kept else pairs


def _colours_apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the largest distance of two pictures' colours in any part, in levels; shapes (…, 2, parts) give (…)."""
    import numpy as np

    difference = a.astype(np.float32) - b.astype(np.float32)
    return np.sqrt(np.square(difference).sum(axis=-2).max(axis=-1))


def _choose_among_many(
    column: Column, radius: int, pool: Executor, threads: int, most: int, kept_by: I64, colours: NDArray[np.uint8] | None
) -> None:
    """Fill kept_by at the ids of different hashes, by their pairs; or by halves, where the pairs are too many to hold.

    What the preferred half keeps then drops of the other half what it replaces, and the rest of it chooses among itself.
    Few pairs remain: what is kept lies apart, so a hash has few kept ones within the radius.
    """
    import numpy as np

    from curate.join import TooManyPairsError, choose, join

    try:
        pairs = np.concatenate(join(column, None, radius, pool, threads, most=most))
    except TooManyPairsError:
        middle = np.partition(column.ids, len(column) // 2)[len(column) // 2]
        first, second = column[column.ids < middle], column[column.ids >= middle]
        _choose_among_many(first, radius, pool, threads, most, kept_by, colours)
        pairs = _alike(np.concatenate(join(first[kept_by[first.ids] == -1], second, radius, pool, threads)), colours)
        pairs.sort()
        choose(pairs, kept_by)
        _choose_among_many(second[kept_by[second.ids] == -1], radius, pool, threads, most, kept_by, colours)
        return
    pairs = _alike(pairs, colours)
    pairs.sort()
    choose(pairs, kept_by)


def pairs_within(hashes: U64, radius: int, threads: int = 0) -> tuple[I64, I64]:
    """Return all pairs (i < j) of hashes at most `radius` bits apart, sorted by (j, i).

    Args:
        hashes: shape (n,). Equal ones make pairs too: collapse them first where they may be many.
        radius: bits of 64.
        threads: at most one per core; 0 means one per core.
    """
    return _pairs(hashes, None, radius, threads)


def pairs_between(a: U64, b: U64, radius: int, threads: int = 0) -> tuple[I64, I64]:
    """Return all pairs (i of a, j of b) at most `radius` bits apart, sorted by (j, i).

    Args:
        a: shape (n,).
        b: shape (m,). Equal hashes make a pair each: collapse them first where they may be many.
        radius: bits of 64.
        threads: at most one per core; 0 means one per core.
    """
    return _pairs(a, b, radius, threads)


def _pairs(a: U64, b: U64 | None, radius: int, threads: int) -> tuple[I64, I64]:
    import numpy as np

    if len(a) * len(a if b is None else b) <= FEW:
        return _pairs_among_few(a, b, radius)
    from curate.join import Column, TooManyPairsError, join

    _check(max(len(a), 0 if b is None else len(b)))
    threads = threads_of(threads)
    left, right = (None if h is None else Column(np.ascontiguousarray(h, np.uint64), np.arange(len(h), dtype=np.uint32)) for h in (a, b))
    assert left is not None
    with ThreadPoolExecutor(threads) as pool:
        try:
            pairs = np.concatenate(join(left, right, radius, pool, threads))
        except TooManyPairsError:
            raise RunError(
                f"more than {MOST_PAIRS:,} pairs within {radius} bits", advice="a smaller radius, or different hashes only"
            ) from None
    pairs.sort()
    return (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64), (pairs >> np.uint64(32)).astype(np.int64)


def _pairs_among_few(a: U64, b: U64 | None, radius: int) -> tuple[I64, I64]:
    import numpy as np

    near = np.bitwise_count((a if b is None else b)[:, None] ^ a[None, :]) <= radius
    j, i = np.nonzero(np.tril(near, -1) if b is None else near)
    return i, j


def _choose_among_few(hashes: U64, radius: int, colours: NDArray[np.uint8] | None = None) -> I64:
    import numpy as np

    kept_by = np.full(len(hashes), -1, np.int64)
    for i in range(len(hashes)):
        if kept_by[i] != -1:
            continue
        near = i + 1 + np.flatnonzero((kept_by[i + 1 :] == -1) & (np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= radius))
        if colours is not None:
            near = near[_colours_apart(colours[near], colours[i]) <= COLOURS_APART]
        kept_by[near] = i
    return kept_by


def _check(n: int) -> None:
    if n >= MOST:
        raise RunError(f"{n:,} hashes; a join takes fewer than {MOST:,}")
