"""Which samples make up step b: a pure function of (seed, sizes, weights, batch size), never a state.

Definitions. A source has N samples in manifest order, cut into *blocks* of consecutive samples (a shard, or an even
part of one). Each epoch permutes the blocks, joins them and deals the joined sequence to V *streams* as consecutive
ranges; a stream visits its range in *windows* of `WINDOW` blocks, shuffled inside. Streams go round: item g of the
source's endless *global sequence* is the next item of stream `g mod V`, and belongs to epoch `g div N`. The dealt
ranges have exactly the lengths that this needs (they differ by at most one), so epoch e is items eN … (e+1)N − 1 of
the global sequence, each sample once, with no seam, padding or rest.

With one source, global batch b is items bB … (b+1)B − 1: B/V of each stream. With several, each source's items are
taken at its share of the samples seen (see `shares_taken`). A batch lists its items stream by stream, and a rank
takes one contiguous part: whole streams, so its memory is that of its windows, and world size changes nothing.

All randomness is numpy's Philox4x64 bit generator, keyed by (seed, purpose) with the indices in the counter; only raw
64-bit words are used, whose values are fixed for good (numpy may change what its distributions make of them).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from shards.core.errors import UsageError
from shards.sample import UID_RULE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

STREAMS = 64
WINDOW = 4  # blocks that a stream shuffles together
MAX_BLOCK = 2048  # samples; bounds a rank's memory: WINDOW blocks of index and captions for each of its streams
BLOCKS, WINDOWS, CAPTION, AUGMENT, STAND_IN, NOISE = range(6)  # purposes of random words


def words(seed: int, purpose: int, counter: tuple[int, int, int], n: int) -> NDArray[np.uint64]:
    """Return n random 64-bit words: Philox4x64-10 keyed by (seed, purpose), from the counter (0, *counter) on."""
    import numpy as np

    key = np.array([seed & (2**64 - 1), purpose], np.uint64)
    return np.random.Philox(key=key, counter=np.array((0, *counter), np.uint64)).random_raw(n)


def few_words(seed: int, purpose: int, counter: tuple[int, int, int], n: int) -> NDArray[np.uint64]:
    """Return what `words` returns, faster where n is small: a numpy generator takes 100 µs to make, the compiled loop 2."""
    import numpy as np

    from train.data import philox

    return philox.words((seed, purpose), np.array([counter], np.uint64), n)[0]


def identity(name: str) -> tuple[int, int]:
    """Return the two 64-bit numbers that a sample's random words depend on: the halves of its uid.

    A name that is no 32-hex uid is hashed to one.
    """
    digits = name if UID_RULE.fullmatch(name) else hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return int(digits[:16], 16), int(digits[16:], 16)


def identities_of(names: Sequence[str]) -> NDArray[np.uint64]:
    """Return `identity` of n names, (n, 2)."""
    import numpy as np

    if all(map(UID_RULE.fullmatch, names)):
        # All at once: 0.6 µs a name, one by one 3.6.
        return np.frombuffer(bytes.fromhex("".join(names)), ">u8").astype(np.uint64).reshape(-1, 2)
    return np.array([identity(name) for name in names], np.uint64).reshape(-1, 2)


def name_of(first: int, second: int) -> str:
    """Return the uid whose halves these are."""
    return f"{first:016x}{second:016x}"


def sample_words(seed: int, purpose: int, epoch: int, uid: str, n: int, view: int = 0) -> NDArray[np.uint64]:
    """Return a sample's n random words of an epoch: the uid's two halves and the epoch are the counter.

    Args:
        view: the number of the crop, where a sample has several: it stands beside the purpose in the key.
    """
    return words(seed, purpose | view << 8, (epoch, *identity(uid)), n)


def stream_count(batch_size: int, world_size: int = 1) -> int:
    """Return V: 64, or the largest power of two below it that divides the global batch.

    Raises:
        UsageError: the world size does not divide V.
    """
    streams = min(STREAMS, batch_size & -batch_size)
    if batch_size < 1 or streams % world_size:
        allowed = f"a multiple of {world_size} × a power of two" if world_size & (world_size - 1) == 0 else "a power of two of processes"
        raise UsageError(f"a global batch of {batch_size} on {world_size} processes", allowed)
    return streams


def cut_blocks(shards: Sequence[int], streams: int) -> Ints:
    """Return where each block begins in manifest order, and at last N.

    A block is a shard, or an even part of one so that each stream has WINDOW blocks and none is over MAX_BLOCK samples.

    Args:
        shards: samples in use of each shard.
    """
    import numpy as np

    target = min(max(sum(shards) // (streams * WINDOW), 1), MAX_BLOCK)
    starts = [np.zeros(1, np.int64)]
    base = 0
    for samples in shards:
        parts = -(-samples // target)
        if parts:
            starts.append(base + np.arange(1, parts + 1, dtype=np.int64) * samples // parts)
        base += samples
    return np.concatenate(starts)


class SourceOrder:
    """The endless global sequence of one source: item number → epoch and position in manifest order.

    What is kept: the block permutation of the last epochs and the windows in use, never a list of all samples.
    """

    def __init__(self, shards: Sequence[int], streams: int, seed: int) -> None:
        """Take the samples in use of each shard; a sum of zero is refused.

        Raises:
            UsageError: no samples.
        """
        self.samples, self.streams, self.seed = sum(shards), streams, seed
        if not self.samples:
            raise UsageError("a source without samples", "at least one")
        self.starts = cut_blocks(shards, streams)
        self._epochs: OrderedDict[int, tuple[Ints, Ints, Ints]] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int, int], Ints] = OrderedDict()

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.starts) - 1

    def positions(self, items: Ints) -> Ints:
        """Return the positions in manifest order of items of the global sequence."""
        import numpy as np

        result = np.empty_like(items)
        epochs, streams = items // self.samples, items % self.streams
        for epoch, stream in set(zip(epochs.tolist(), streams.tolist(), strict=True)):
            chosen = np.flatnonzero((epochs == epoch) & (streams == stream))
            first = self._dealt(epoch)[stream]
            result[chosen] = self._range(epoch, stream, items[chosen] // self.streams - first)
        return result

    def _dealt(self, epoch: int) -> Ints:
        """Return how many items of each stream lie before an epoch: ceil((eN − v) / V)."""
        import numpy as np

        return -((np.arange(self.streams, dtype=np.int64) - epoch * self.samples) // self.streams)

    def _plan(self, epoch: int) -> tuple[Ints, Ints, Ints]:
        """Return an epoch's block permutation, the permuted blocks' ends joined (from 0), and the streams' bounds in it."""
        import numpy as np

        if epoch not in self._epochs:
            order = np.argsort(words(self.seed, BLOCKS, (0, 0, epoch), self.blocks), kind="stable")
            ends = np.concatenate([[0], np.cumsum(np.diff(self.starts)[order])])
            bounds = np.concatenate([[0], np.cumsum(self._dealt(epoch + 1) - self._dealt(epoch))])
            self._epochs[epoch] = (order, ends, bounds)
            while len(self._epochs) > 3:
                self._epochs.popitem(last=False)
        return self._epochs[epoch]

    def _range(self, epoch: int, stream: int, offsets: Ints) -> Ints:
        """Return the positions at some offsets of a stream's range of an epoch."""
        import numpy as np

        _, ends, bounds = self._plan(epoch)
        low = int(bounds[stream])
        first = np.searchsorted(ends, low, "right") - 1
        piece = np.searchsorted(ends, low + offsets, "right") - 1
        result = np.empty_like(offsets)
        for window in np.unique((piece - first) // WINDOW).tolist():
            begin = max(low, int(ends[first + window * WINDOW]))
            chosen = np.flatnonzero((piece - first) // WINDOW == window)
            result[chosen] = self._window(epoch, stream, window, begin)[low + offsets[chosen] - begin]
        return result

    def _window(self, epoch: int, stream: int, window: int, begin: int) -> Ints:
        """Return the positions of one window in the order of visit; `begin` is where it lies in the joined blocks."""
        import numpy as np

        key = (epoch, stream, window)
        if key in self._windows:
            self._windows.move_to_end(key)
            return self._windows[key]
        order, ends, bounds = self._plan(epoch)
        last = int(np.searchsorted(ends, int(bounds[stream]), "right")) - 1 + (window + 1) * WINDOW
        stop = min(int(bounds[stream + 1]), int(ends[min(last, self.blocks)]))
        joined = np.arange(begin, stop)
        block = np.searchsorted(ends, joined, "right") - 1
        inside = self.starts[order[block]] + joined - ends[block]
        self._windows[key] = inside[np.argsort(words(self.seed, WINDOWS, (window, stream, epoch), len(inside)), kind="stable")]
        while len(self._windows) > 2 * self.streams:
            self._windows.popitem(last=False)
        return self._windows[key]


def shares_taken(shares: Sequence[int], n: int) -> list[int]:
    """Return how many of the first n samples seen come from each source.

    Source s's k-th sample has its turn at time (k − ½) / share, as in a build with quotas; ties go to the earlier
    source. This is Webster's rounding of n · share: the largest remainders get the odd samples, what a batch rounds
    away is carried to the next, and (unlike Hamilton's rule) no count ever falls as n grows.

    Args:
        shares: positive whole numbers, in proportion to the weights.
    """
    total = sum(shares)
    taken = [(2 * share * n + total) // (2 * total) for share in shares]
    while (rest := n - sum(taken)) > 0:
        taken[min(range(len(shares)), key=lambda i: (Fraction(2 * taken[i] + 1, shares[i]), i))] += 1
    for _ in range(-rest):
        taken[max(range(len(shares)), key=lambda i: (Fraction(2 * taken[i] - 1, shares[i]), i))] -= 1
    return taken


def whole_shares(weights: Sequence[float | None], sizes: Sequence[int]) -> list[int]:
    """Return weights as whole numbers in proportion; without weights, the sizes.

    Raises:
        UsageError: some sources have a weight and some none, or a weight is not above 0.
    """
    given = [Fraction(str(w)) for w in weights if w is not None]
    if not given:
        return list(sizes)
    if len(given) < len(weights) or min(given) <= 0:
        raise UsageError(f"weights {list(weights)}", "a weight above 0 for every source, or for none")
    scale = 1
    for weight in given:
        scale *= weight.denominator
    return [int(weight * scale) for weight in given]


@dataclass(frozen=True)
class Items:
    """A rank's part of a global batch: for each sample its source, that source's epoch and its position there."""

    sources: Ints
    epochs: Ints
    positions: Ints

    def __len__(self) -> int:
        return len(self.sources)


class Order:
    """The order of a training: step → items."""

    def __init__(
        self, sources: Sequence[Sequence[int]], weights: Sequence[float | None], *, batch_size: int, seed: int, world_size: int = 1
    ) -> None:
        """Take, for each source, the samples in use of each shard.

        Raises:
            UsageError: a batch or world size that cannot be, an empty source, or half-given weights.
        """
        self.batch_size, self.world_size = batch_size, world_size
        self.streams = stream_count(batch_size, world_size)
        self.sources = [SourceOrder(shards, self.streams, seed) for shards in sources]
        self.shares = whole_shares(weights, [source.samples for source in self.sources])
        # Consecutive items go to streams far apart (bits reversed), so that a mixture's uneven counts, too, spread
        # evenly over the streams and a rank's part of the batch stays within its own.
        bits = self.streams.bit_length() - 1
        self._place = [int(f"{v:0{bits}b}"[::-1], 2) if bits else 0 for v in range(self.streams)]

    def taken(self, step: int) -> list[int]:
        """Return how many samples of each source were seen before a step. Divided by its size: the repeats."""
        return shares_taken(self.shares, step * self.batch_size)

    def items(self, step: int, rank: int = 0) -> Items:
        """Return a rank's items of a step, in batch order; all ranks' joined are the global batch."""
        import numpy as np

        place = np.array(self._place)
        before, after = self.taken(step), self.taken(step + 1)
        number = np.concatenate([np.arange(a, b, dtype=np.int64) for a, b in zip(before, after, strict=True)])
        source = np.repeat(np.arange(len(before)), np.subtract(after, before))
        part = self.batch_size // self.world_size
        mine = np.lexsort((number, source, place[number % self.streams]))[rank * part : (rank + 1) * part]
        source, number = source[mine], number[mine]
        epoch, position = np.empty_like(number), np.empty_like(number)
        for i, order in enumerate(self.sources):
            of_source = np.flatnonzero(source == i)
            epoch[of_source] = number[of_source] // order.samples
            position[of_source] = order.positions(number[of_source])
        return Items(source, epoch, position)
