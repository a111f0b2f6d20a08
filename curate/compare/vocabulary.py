"""How the words of sets of captions differ, at equal size, and how much of that is chance.

Unigram frequencies; Jensen–Shannon divergence in bits (0: equal, 1: no word shared). What a sample shows of it is more than
what there is between the sources, the more so the smaller the sample: even two draws of one source differ. So all sets are cut
to one number of captions, and beside the divergence stands what chance alone would give at that size: captions that one set has
and the other has not are dealt out anew, at random, many times; those that both have stay with both. The interval of the
divergence comes of the bootstrap (Efron 1979): captions drawn with replacement, one that both sets have counting in both.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.compare.load import DRAWN
from shards.core.engines.local import default_workers

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    I64 = NDArray[np.int64]
    F64 = NDArray[np.float64]

SEED, REPLICATES = 0, 400
TOP, LEAST = 20, 2  # words of a list, and occurrences of each
LISTED = 1000  # words of the table of all sets
POINTS = 60  # of a growth curve


@dataclass(frozen=True)
class Words:
    """The captions of one set as numbers of words: `stream`, caption after caption; `lengths`: how many words each has."""

    uids: list[str]
    stream: NDArray[np.int32]
    lengths: I64

    def first(self, n: int) -> Words:
        """Return the first n captions."""
        return Words(self.uids[:n], self.stream[: self.lengths[:n].sum()], self.lengths[:n])


def vocabulary(drawn: dict[str, pa.Table]) -> dict[str, Any]:
    """Compare captions; `drawn`: by set, uid and caption in random order.

    Returns:
        `captions`: how many of each set are compared, the size of the smallest; by set its `words`, its `distinct` ones, and
        how these grow with captions; for each pair what `compared` gives; `listed`: the words that differ most, counted in all sets.
    """
    import numpy as np

    from curate.report import wordcount

    words, sets = numbered(drawn)
    n = min(one.num_rows for one in drawn.values())
    equal = {name: one.first(n) for name, one in sets.items()}
    counts = {name: np.bincount(one.stream, minlength=len(words)).astype(np.float64) for name, one in equal.items()}
    names = list(drawn)

    def pair(places: tuple[int, int]) -> dict[str, Any]:
        (i, a), (j, b) = ((place, names[place]) for place in places)
        found = compared(equal[a], equal[b], key=(SEED, i << 32 | j))
        return {"a": a, "b": b, **found, **_shifted(words, counts[a], counts[b])}

    with ThreadPoolExecutor(default_workers()) as pool:  # the compiled loops run side by side
        pairs = list(pool.map(pair, itertools.combinations(range(len(names)), 2)))
    return {
        "captions": n,
        "most": DRAWN,
        "tokeniser": wordcount.VERSION,
        "seed": SEED,
        "replicates": REPLICATES,
        "sets": [
            {"name": name, "words": int(c.sum()), "distinct": int((c > 0).sum()), "growth": growth(sets[name])}
            for name, c in counts.items()
        ],
        "pairs": pairs,
        "listed": {"columns": [{"name": "word"}, *({"name": name, "number": True} for name in names)], "rows": _listed(words, counts)},
    }


def numbered(drawn: dict[str, pa.Table]) -> tuple[list[str], dict[str, Words]]:
    """Count the captions of all sets together; returns the spelling of the words, and each set's captions as their numbers."""
    import pyarrow as pa

    from curate.report import wordcount

    found = wordcount.count(pa.chunked_array([chunk for one in drawn.values() for chunk in one["caption"].chunks], pa.string()))
    sets, caption, word = {}, 0, 0
    for name, one in drawn.items():
        lengths = found.lengths[caption : caption + one.num_rows]
        sets[name] = Words(one["uid"].to_pylist(), found.stream[word : word + lengths.sum()], lengths)
        caption, word = caption + one.num_rows, word + int(lengths.sum())
    return found.words, sets


def compared(a: Words, b: Words, key: tuple[int, int]) -> dict[str, Any]:
    """Return how far the words of two equally large sets of captions diverge.

    Args:
        key: of the counter-based generator (Philox, Salmon et al. 2011).

    Returns:
        `divergence` of the captions as they are, and the 95% `interval` for what so many captions of the two sources give;
        `by_chance`: its mean where captions are dealt out at random, and `by_chance_high`, below which 97.5% of these lie;
        `beyond_chance`: the difference, an estimate of the divergence between the sources that is rather low than high;
        all in bits. `alone_by_chance`: how many words only one of the sets would have. None where a set has no words.
    """
    import numpy as np

    from curate.compare.loops import counted, divergence

    names = ("divergence", "interval", "by_chance", "by_chance_high", "beyond_chance", "alone_by_chance")
    if not len(a.stream) or not len(b.stream):
        return dict.fromkeys(names)
    rng = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    different, places = np.unique(np.concatenate([a.stream, b.stream]), return_inverse=True)
    stream = places.astype(np.int32)
    lengths = np.concatenate([a.lengths, b.lengths])

    def count(weights: F64) -> F64:
        return counted(stream, lengths, weights, len(different))

    dealt = _Dealt.of(a, b)
    side = dealt.side()
    seen, total = divergence(count(side), count(1 - side)), count(np.ones_like(side))
    again = np.array([divergence(*map(count, dealt.resampled(rng))) for _ in range(REPLICATES)])
    chance, alone = np.empty(REPLICATES), np.empty(REPLICATES)
    for i in range(REPLICATES):
        x = count(dealt.shuffled(rng))
        chance[i], alone[i] = divergence(x, total - x), ((x == 0) | (x == total)).sum() / 2
    floor = float(chance.mean())
    # Drawing again adds the bias of a sample once more: the replicates' spread is taken about their mean, and laid about what is seen.
    high, low = seen + again.mean() - np.quantile(again, [0.025, 0.975])
    interval = [max(0.0, float(low)), float(high)]
    return dict(zip(names, (seen, interval, floor, float(np.quantile(chance, 0.975)), seen - floor, float(alone.mean())), strict=True))


@dataclass(frozen=True)
class _Dealt:
    """Who has which caption: `alone_a`, `alone_b`: places of those that one set has; `twin_a`, `twin_b`: of those that both have.

    Places count the captions of a and then those of b; weights are per place.
    """

    n: int
    alone_a: I64
    alone_b: I64
    twin_a: I64
    twin_b: I64

    @classmethod
    def of(cls, a: Words, b: Words) -> _Dealt:
        """Pair the captions of equal uids."""
        import numpy as np

        _, twin_a, twin_b = np.intersect1d(np.array(a.uids, object), np.array(b.uids, object), return_indices=True)
        alone = [np.setdiff1d(np.arange(len(one.uids)), twins) for one, twins in ((a, twin_a), (b, twin_b))]
        return cls(len(a.uids), alone[0], alone[1] + len(a.uids), twin_a, twin_b + len(a.uids))

    def side(self) -> F64:
        """Return 1 for the captions of a and 0 for those of b."""
        import numpy as np

        a = np.zeros(self._places)
        a[: self.n] = 1
        return a

    def shuffled(self, rng: np.random.Generator) -> F64:
        """Deal the captions out at random, as many to each set as it has; returns 1 for those that went to a."""
        import numpy as np

        a, alone = np.zeros(self._places), rng.permutation(np.concatenate([self.alone_a, self.alone_b]))
        a[alone[: len(self.alone_a)]] = 1
        swapped = rng.random(len(self.twin_a)) < 0.5
        a[self.twin_a], a[self.twin_b] = ~swapped, swapped
        return a

    def resampled(self, rng: np.random.Generator) -> tuple[F64, F64]:
        """Draw captions with replacement, of each kind as many as there are; returns how often each counts for a, and for b."""
        import numpy as np

        a, b = np.zeros(self._places), np.zeros(self._places)
        a[self.alone_a] = _times(len(self.alone_a), rng)
        b[self.alone_b] = _times(len(self.alone_b), rng)
        a[self.twin_a] = b[self.twin_b] = _times(len(self.twin_a), rng)
        return a, b

    @property
    def _places(self) -> int:
        return self.n + len(self.alone_b) + len(self.twin_b)


def _times(n: int, rng: np.random.Generator) -> I64:
    """Return how often each of n things is drawn in n draws with replacement."""
    import numpy as np

    return np.bincount(rng.integers(0, n, n), minlength=n) if n else np.zeros(0, np.int64)


def terms(a: F64, b: F64) -> F64:
    """Return what each word adds to the divergence, in bits; negative where b has the larger share of it."""
    import numpy as np

    p, q = a / max(1, a.sum()), b / max(1, b.sum())
    middle = (p + q) / 2

    def part(x: F64) -> F64:
        return x * np.log2(np.divide(x, middle, out=np.ones_like(x), where=x > 0))

    return np.sign(p - q) * (part(p) + part(q)) / 2


def _shifted(words: list[str], a: F64, b: F64) -> dict[str, Any]:
    """Return the words that shift most, each way, and those that one set alone has, most frequent first; once is no word's habit."""
    import numpy as np

    term = terms(a, b)
    found: dict[str, Any] = {"shared": int(((a > 0) & (b > 0)).sum())}
    for side, sign, mine, theirs in (("a", 1, a, b), ("b", -1, b, a)):
        found[f"distinct_only_{side}"] = int(((mine > 0) & (theirs == 0)).sum())
        alone = _top(np.where((mine >= LEAST) & (theirs == 0), mine, 0), words, TOP)
        found[f"only_{side}"] = [{"word": words[i], "count": int(mine[i])} for i in alone]
        more = _top(np.where(mine >= LEAST, sign * term, 0), words, TOP)
        found[f"more_{side}"] = [{"word": words[i], "a": int(a[i]), "b": int(b[i]), "bits": abs(float(term[i]))} for i in more]
    return found


def _top(weights: F64, words: list[str], most: int) -> list[int]:
    """Return the places of the largest weights above 0, equal ones by their word."""
    import numpy as np

    positive = np.flatnonzero(weights > 0)
    if len(positive) > most:
        least = np.partition(weights[positive], -most)[-most]
        positive = positive[weights[positive] >= least]
    return sorted(positive.tolist(), key=lambda i: (-weights[i], words[i]))[:most]


def _listed(words: list[str], counts: dict[str, F64]) -> list[list[Any]]:
    """Return [word, its count in each set] of the words whose share differs most between any two sets."""
    import numpy as np

    sets = list(counts.values())
    most = np.max([np.abs(terms(a, b)) for i, a in enumerate(sets) for b in sets[i + 1 :]], axis=0)
    return [[words[i], *(int(c[i]) for c in sets)] for i in _top(most, words, LISTED)]


def growth(words: Words) -> dict[str, list[int]]:
    """Return how many distinct words the first so many captions have, at up to POINTS numbers of captions."""
    import numpy as np

    ends = np.cumsum(words.lengths)
    first = np.searchsorted(ends, np.unique(words.stream, return_index=True)[1], side="right")  # the caption that brings each word
    new = np.bincount(first, minlength=len(ends)).cumsum()
    at = np.unique(np.geomspace(1, max(1, len(ends)), POINTS).astype(np.int64)) if len(ends) else np.zeros(0, np.int64)
    return {"captions": at.tolist(), "distinct": new[at - 1].tolist()}
