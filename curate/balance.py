"""Balanced order by concepts: MetaCLIP's keep-probability, turned into a rank.

MetaCLIP (Xu et al., arXiv 2309.16671) counts in how many captions each concept of a list occurs and keeps a caption
with the probability p(t) = 1 - Π_e (1 - min(1, t / c_e)) over the concepts e in it: tail concepts are kept whole, head
concepts are cut down to about t captions each. Its subsets are drawn at random and their size is only expected. Here
each sample has one number: the t at which p(t) reaches its own uniform draw u, a function of seed and uid. Sorted by
it, every prefix is a balanced subset: deterministic, of exact size, and nested in all larger ones. Captions without
any concept come last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from shards.core import fs
from shards.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]
    I64 = NDArray[np.int64]

_WRAPPED = re.compile("([,.;:?!`])")  # the punctuation that MetaCLIP sets apart; the rest belongs to words
_HALVINGS = 60


def read_concepts(path: str) -> list[str]:
    """Return the concepts of a file, one per line, each once.

    Raises:
        UsageError: there is no such file, or nothing in it.
    """
    if not path or not fs.exists(path) or fs.is_dir(path):
        raise UsageError(f"balance: no list of concepts at {path!r}", "a UTF-8 file with one concept per line")
    concepts = list(dict.fromkeys(line for raw in fs.read_text(path).splitlines() if (line := " ".join(words(raw)))))
    if not concepts:
        raise UsageError(f"balance: no concept in {path!r}", "a UTF-8 file with one concept per line")
    return concepts


def words(text: str) -> list[str]:
    """Return a text's words as MetaCLIP compares them: letter case kept, `, . ; : ? ! backtick` set apart."""
    return _WRAPPED.sub(r" \1 ", text).split()


def matcher(concepts: Iterable[str]) -> Callable[[str], set[int]]:
    """Return the function that finds the concepts in a caption, by their place in the list: whole words only."""
    by_words = {tuple(concept.split()): i for i, concept in enumerate(concepts)}
    lengths: dict[str, set[int]] = {}
    for concept in by_words:
        lengths.setdefault(concept[0], set()).add(len(concept))

    def find(caption: str) -> set[int]:
        found = set()
        text = words(caption)
        for at, word in enumerate(text):
            for length in lengths.get(word, ()):
                if (place := by_words.get(tuple(text[at : at + length]))) is not None:
                    found.add(place)
        return found

    return find


def balance_keys(captions: Iterable[str], draws: F64, concepts: list[str]) -> F64:
    """Return each sample's place on the scale of t; sorted by it, every prefix is balanced.

    Args:
        captions: n captions, of samples without duplicates.
        draws: shape (n,), uniform in [0, 1): functions of seed and uid.
        concepts: what is counted.

    Returns:
        shape (n,): the smallest t with p(t) ≥ u; infinity for a caption without any concept.
    """
    import numpy as np

    find = matcher(concepts)
    matched: list[Any] = []
    ends = np.zeros(len(draws) + 1, np.int64)
    for i, caption in enumerate(captions):
        found = sorted(find(caption))
        if found:
            matched.append(np.array(found, np.int32))
        ends[i + 1] = ends[i] + len(found)
    if not matched:
        return np.full(len(draws), np.inf)
    flat = np.concatenate(matched)
    counts = np.bincount(flat, minlength=len(concepts)).astype(np.float64)
    return _solver()(ends, counts[flat], draws)


@cache
def _solver() -> Callable[..., Any]:
    import numba
    import numpy as np

    @numba.njit(cache=True, nogil=True)
    def solve(ends: Any, counts: Any, draws: Any) -> Any:
        """Halve the interval [0, min c_e] for each sample: at its end some concept is kept whole, so p = 1 > u."""
        result = np.full(len(draws), np.inf)
        for i in range(len(draws)):
            own = counts[ends[i] : ends[i + 1]]
            if len(own) == 0:
                continue
            low, high = 0.0, own.min()
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                lost = 1.0
                for count in own:
                    lost *= 1.0 - min(1.0, middle / count)
                if 1.0 - lost >= draws[i]:
                    high = middle
                else:
                    low = middle
            result[i] = high
        return result

    return solve
