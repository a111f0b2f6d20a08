"""All pairs of 64-bit hashes within a Hamming radius: the compiled loops. Imports numba: import it where there is work.

A block-permutation join (Manku, Jain, Das Sarma, WWW 2007). The 64 bits are cut into radius + k blocks (or more); two
hashes within the radius agree on at least k of the first radius + k. For every choice of k blocks (k is 1 or 2, by how many
hashes there are) the hashes are bucketed by those bits, and a bucket's members are compared with one another. A pair is
told only under the k lowest blocks it agrees on, so none is told twice.

The first block of a choice parts the hashes in memory, once; a partition fits a core's cache, and the second blocks bucket
it there. Comparing is one vector instruction per eight hashes where the processor counts bits that way: the inner loop
only counts, and a hash with hits is looked at again.
"""

from __future__ import annotations

import itertools
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from curate.dedup import MOST_PAIRS

HASH_BITS = 64
TASKS_PER_THREAD = 8
ROOM = 1 << 16
FEWEST = 4
# What bucketing costs, in comparisons: a hash by its first block, a hash by its second, a bucket.
FIRST, SECOND, BUCKET = 100.0, 130.0, 15.0
# How much likelier than chance two photos agree on a choice of blocks of their pHashes (docs/LOG.md).
SKEW = 2.0

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]


class TooManyPairsError(Exception):
    """There are more pairs than may be held."""


@dataclass(frozen=True)
class Column:
    """Hashes and the ids that stand for them in pairs, both of shape (n,)."""

    hashes: U64
    ids: U32

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, chosen: Any) -> Column:
        """Return the rows of a slice or a mask."""
        return Column(self.hashes[chosen], self.ids[chosen])


def blocks(radius: int, k: int) -> list[tuple[int, int]]:
    """Return blocks as (shift, width), the highest bits first; widths differ by one bit at most and add up to 64.

    There are radius + k, or more where they would be so wide that buckets are too many to count.
    """
    count = max(radius, FEWEST) + k
    edges = [HASH_BITS * i // count for i in range(count, -1, -1)]
    return [(low, high - low) for high, low in itertools.pairwise(edges)]


def choose_k(hashes: int, pairs: float, radius: int) -> int:
    """Return on how many blocks hashes must agree to be compared: what is cheapest for so many hashes and pairs of them."""

    def cost(k: int) -> float:
        choices, buckets = comb(radius + k, k), 2.0 ** (HASH_BITS * k / (max(radius, FEWEST) + k))
        return hashes * ((radius + 1) * FIRST + (k - 1) * choices * SECOND) + choices * (buckets * BUCKET + SKEW * pairs / buckets)

    return min((1, 2), key=cost)


def join(left: Column, right: Column | None, radius: int, pool: Executor, threads: int, k: int = 0, most: int = MOST_PAIRS) -> list[U64]:
    """Return the pairs within the radius, in pieces and in no order.

    A pair is larger id << 32 | smaller id where a column is joined with itself (`right` is None), right id << 32 | left id
    where there are two. k: 1 or 2; by default what is quicker.

    Raises:
        TooManyPairsError: there are more than `most`.
    """
    n, m = len(left), 0 if right is None else len(right)
    k = k or choose_k(n + m, n * n / 2 if right is None else n * m, radius)
    layout = blocks(radius, k)
    left = _interleaved(left, len(layout), pool, threads)
    right = None if right is None else _interleaved(right, len(layout), pool, threads)
    a = _room(n)  # used again for each block: fresh memory costs the system as much as a pass
    b = a if right is None else _room(m)
    found: list[U64] = []
    total = 0
    for first in range(radius + 1):
        edges_a = partition(left, *layout[first], a, pool, threads)
        edges_b = edges_a if right is None else partition(right, *layout[first], b, pool, threads)
        task = partial(_join_span, a, edges_a, b, edges_b, layout, first, k, radius, most)
        for pairs in pool.map(task, _spans(edges_a + edges_b, threads * TASKS_PER_THREAD)):
            found.append(pairs)
            if (total := total + len(pairs)) > most:
                raise TooManyPairsError
    return found


def _interleaved(column: Column, count: int, pool: Executor, threads: int) -> Column:
    """Return the hashes with their bits dealt to `count` blocks in turn: near bits depend on one another, and blocks that
    mix them are less skewed. Distances stay."""
    order = sorted(range(HASH_BITS), key=lambda bit: (bit % count, bit))
    table = np.zeros((8, 256), np.uint64)
    for place, bit in enumerate(order):
        byte, values = bit // 8, np.arange(256, dtype=np.uint64)
        table[byte] |= ((values >> np.uint64(bit % 8)) & np.uint64(1)) << np.uint64(place)
    out = np.empty(len(column), np.uint64)
    list(pool.map(lambda span: _translate(column.hashes, span[0], span[1], table, out), _shares(len(column), threads)))
    return Column(out, column.ids)


def sorted_by_hash(column: Column, pool: Executor, threads: int) -> Column:
    """Return a column in the order of its hashes, and of its ids where those are in order: parted in memory once, the
    parts sorted digit by digit within the cache."""
    width = min(12, (len(column) >> 15).bit_length())
    out = _room(len(column))
    edges = partition(column, min(HASH_BITS - 1, HASH_BITS - width), width, out, pool, threads)
    spans = _spans(edges, threads * TASKS_PER_THREAD)
    list(pool.map(lambda span: _sort_partitions(out.hashes, out.ids, edges, span[0], span[1], HASH_BITS - width), spans))
    return out


def _room(n: int) -> Column:
    return Column(np.empty(n, np.uint64), np.empty(n, np.uint32))


def _shares(n: int, threads: int) -> list[tuple[int, int]]:
    return list(itertools.pairwise(n * i // threads for i in range(threads + 1)))


def _join_span(
    a: Column, edges_a: I64, b: Column, edges_b: I64, layout: list[tuple[int, int]], first: int, k: int, radius: int, most: int,
    span: tuple[int, int],
) -> U64:  # fmt: skip
    """Join the partitions of a span; where pairs are too many for the room, once more with room enough."""
    shifts = np.array([shift for shift, _ in layout], np.uint64)
    masks = np.array([(1 << width) - 1 for _, width in layout], np.uint64)
    room = ROOM
    while True:
        out = np.empty(room, np.uint64)
        count = _join_partitions(
            a.hashes, a.ids, edges_a, b.hashes, b.ids, edges_b, a is b, span[0], span[1], first, k, shifts, masks, radius, out
        )
        if count <= room:
            return out[:count].copy()
        if count > most:
            raise TooManyPairsError
        room = count


def partition(column: Column, shift: int, width: int, out: Column, pool: Executor, threads: int) -> I64:
    """Put the hashes into `out`, bucketed by `width` bits from `shift` on, in stable order; returns the buckets' 2**width + 1 edges."""
    n = len(column)
    ranges = _shares(n, threads)
    counts = np.zeros((threads, 1 << width), np.int64)
    list(pool.map(lambda t: _count(column.hashes, *ranges[t], shift, counts[t]), range(threads)))
    edges = np.zeros((1 << width) + 1, np.int64)
    np.cumsum(counts.sum(0), out=edges[1:])
    cursors = edges[:-1] + np.cumsum(counts, 0) - counts
    list(pool.map(lambda t: _move(column.hashes, column.ids, *ranges[t], shift, cursors[t], out.hashes, out.ids), range(threads)))
    return edges


def _spans(edges: I64, count: int) -> list[tuple[int, int]]:
    """Cut the buckets into spans of about equally many hashes, so that threads end together."""
    cuts = np.searchsorted(edges, edges[-1] * np.arange(count + 1) / count)
    cuts[0], cuts[-1] = 0, len(edges) - 1
    return [(int(a), int(b)) for a, b in itertools.pairwise(np.unique(cuts))]


def _count_bits(typing_context: Any, x: Any) -> Any:
    """Count the bits that are set: one instruction, and one that vectorises."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


_popcount: Any = intrinsic(_count_bits)


@njit(cache=True, nogil=True)
def _count(hashes: U64, start: Any, stop: Any, shift: Any, counts: I64) -> None:
    """Add up how many of hashes[start:stop] fall into each bucket."""
    shift, mask = np.uint64(shift), np.uint64(len(counts) - 1)
    for i in range(start, stop):
        counts[(hashes[i] >> shift) & mask] += 1


@njit(cache=True, nogil=True)
def _move(hashes: U64, ids: U32, start: Any, stop: Any, shift: Any, cursor: I64, out_hashes: U64, out_ids: U32) -> None:
    """Put hashes[start:stop] and their ids where their buckets' cursors stand."""
    shift, mask = np.uint64(shift), np.uint64(len(cursor) - 1)
    for i in range(start, stop):
        bucket = (hashes[i] >> shift) & mask
        place = cursor[bucket]
        cursor[bucket] = place + 1
        out_hashes[place] = hashes[i]
        out_ids[place] = ids[i]


@njit(cache=True, nogil=True)
def _translate(hashes: U64, start: Any, stop: Any, table: U64, out: U64) -> None:
    """Replace each byte by what the table of its place has for it."""
    for i in range(start, stop):
        x, y = hashes[i], np.uint64(0)
        for place in range(8):
            y |= table[place, (x >> np.uint64(8 * place)) & np.uint64(255)]
        out[i] = y


@njit(cache=True, nogil=True)
def _sort_partitions(hashes: U64, ids: U32, edges: I64, start: Any, stop: Any, bits: Any) -> None:
    """Sort the partitions [start, stop) by their lowest `bits` bits, in place: digits of at most 11 bits, passes by twos."""
    passes = 2 * ((bits + 21) // 22)
    digit = (bits + passes - 1) // passes
    room = np.max(np.diff(edges[start : stop + 1]))
    spare, named = np.empty(room, np.uint64), np.empty(room, np.uint32)
    at = np.empty((1 << digit) + 1, np.int64)
    for p in range(start, stop):
        i, j = edges[p], edges[p + 1]
        for shift in range(0, passes * digit, 2 * digit):
            _bucket(hashes, ids, i, j, shift, (1 << digit) - 1, at, spare, named)
            _bucket(spare, named, 0, j - i, shift + digit, (1 << digit) - 1, at, hashes[i:j], ids[i:j])


@njit(cache=True, nogil=True)
def _bucket(hashes: U64, ids: U32, start: Any, stop: Any, shift: Any, mask: Any, edges: I64, out_hashes: U64, out_ids: U32) -> None:
    """Bucket a partition within the cache; bucket `key` then lies in [edges[key], edges[key + 1])."""
    cursor = np.zeros(len(edges), np.int64)
    _count(hashes, start, stop, shift, cursor[: mask + 1])
    total = 0
    for key in range(len(edges)):
        edges[key] = total
        total += cursor[key]
        cursor[key] = edges[key]
    _move(hashes, ids, start, stop, shift, cursor[: mask + 1], out_hashes, out_ids)


@njit(cache=True, nogil=True)
def _told_here(x: Any, first: Any, second: Any, shifts: U64, masks: U64) -> bool:
    """Say whether the lowest blocks in which x = a ^ b is zero are `first` and, unless it is negative, `second`."""
    wanted = first
    for block in range(len(shifts)):
        if (x >> shifts[block]) & masks[block] == 0:
            if block != wanted:
                return False
            if block == second or second < 0:
                return True
            wanted = second
    return False


@njit(cache=True, nogil=True)
def _compare(
    a: U64, ids_a: U32, start_a: Any, stop_a: Any, b: U64, ids_b: U32, start_b: Any, stop_b: Any, same: bool,
    first: Any, second: Any, shifts: U64, masks: U64, radius: Any, out: U64, count: Any,
) -> Any:  # fmt: skip
    """Compare all of one bucket with all of another (or with itself); pairs go to `out` as long as there is room, and are counted."""
    for i in range(start_a, stop_a):
        x = a[i]
        # Unsigned: with an index that might be negative the loop would gather what it can load (docs/LOG.md).
        begin, end = np.uint64(i + 1 if same else start_b), np.uint64(stop_b)
        hits = np.int64(0)
        for j in range(begin, end):
            hits += np.int64(_popcount(x ^ b[j]) <= np.uint64(radius))
        if hits == 0:
            continue
        for j in range(begin, end):
            y = x ^ b[j]
            if _popcount(y) <= np.uint64(radius) and _told_here(y, first, second, shifts, masks):
                if count < len(out):
                    one, other = np.uint64(ids_a[i]), np.uint64(ids_b[j])
                    if same and one > other:
                        one, other = other, one
                    out[count] = (other << np.uint64(32)) | one
                count += 1
    return count


@njit(cache=True, nogil=True)
def _join_partitions(
    a: U64, ids_a: U32, edges_a: I64, b: U64, ids_b: U32, edges_b: I64, same: bool, start: Any, stop: Any,
    first: Any, k: Any, shifts: U64, masks: U64, radius: Any, out: U64,
) -> Any:  # fmt: skip
    """Join the partitions [start, stop), by themselves (k = 1) or under every second block; returns how many pairs there are."""
    room_a, room_b = np.max(np.diff(edges_a[start : stop + 1])), np.max(np.diff(edges_b[start : stop + 1]))
    in_a, named_a = np.empty(room_a, np.uint64), np.empty(room_a, np.uint32)
    in_b, named_b = (in_a, named_a) if same else (np.empty(room_b, np.uint64), np.empty(room_b, np.uint32))
    at_a = np.empty(np.int64(np.max(masks)) + 2, np.int64)
    at_b = at_a if same else np.empty(len(at_a), np.int64)
    count = np.int64(0)
    for p in range(start, stop):
        i, j, v, w = edges_a[p], edges_a[p + 1], edges_b[p], edges_b[p + 1]
        if i == j or v == w:
            continue
        if k == 1:
            count = _compare(a, ids_a, i, j, b, ids_b, v, w, same, first, -1, shifts, masks, radius, out, count)
            continue
        for second in range(first + 1, radius + 2):
            shift, mask = np.int64(shifts[second]), np.int64(masks[second])
            _bucket(a, ids_a, i, j, shift, mask, at_a, in_a, named_a)
            if not same:
                _bucket(b, ids_b, v, w, shift, mask, at_b, in_b, named_b)
            for key in range(mask + 1):
                if at_a[key + 1] - at_a[key] > same and at_b[key + 1] > at_b[key]:
                    count = _compare(
                        in_a, named_a, at_a[key], at_a[key + 1], in_b, named_b, at_b[key], at_b[key + 1], same,
                        first, second, shifts, masks, radius, out, count,
                    )  # fmt: skip
    return count


@njit(cache=True, nogil=True)
def collapse(hashes: U64, ids: U32, stands_for: U32) -> Any:
    """Keep the first of each run of equal hashes, in place, and note for every id which one that is; returns how many are left."""
    count = 0
    for i in range(len(hashes)):
        if count == 0 or hashes[i] != hashes[count - 1]:
            hashes[count], ids[count] = hashes[i], ids[i]
            count += 1
        stands_for[ids[i]] = ids[count - 1]
    return count


@njit(cache=True, nogil=True)
def choose(pairs: U64, kept_by: I64) -> None:
    """Fill kept_by (-1 where nothing is known): for pairs sorted by their later member, the kept one that replaces a sample."""
    for pair in pairs:
        later, earlier = np.int64(pair >> np.uint64(32)), np.int64(pair & np.uint64(0xFFFFFFFF))
        if kept_by[earlier] == -1 and kept_by[later] == -1:
            kept_by[later] = earlier


@njit(cache=True, nogil=True)
def spread(kept_by: I64, stands_for: U32) -> None:
    """Give each sample that another one stands for what that one got."""
    for i in range(len(kept_by)):
        first = np.int64(stands_for[i])
        if first != i:
            kept_by[i] = first if kept_by[first] == -1 else kept_by[first]
