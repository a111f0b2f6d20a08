"""Drop samples whose caption says the same words again and again.

What it does: measures which share of the words stood in the caption before, (words − different words) / words; and the same of
    pairs of neighbouring words. Case and punctuation do not count.
Why: shop and stock pages repeat their keywords. CC12M keeps captions up to 0.2 and does not say how it counts; by this count
    every twentieth hand-written caption is above (`A surfer rides a wave on a large surfboard`: 0.22), of pairs one in 600.
Example: `filters: [{name: repetition, max_words: null, max_pairs: 0.2}]`.
Options: max_words, max_pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from curate.filters._words import fold, tokens
from curate.filters.base import Facts, outside
from shards.core.config import option

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS = (("words", "double"), ("pairs", "double"))


@dataclass(frozen=True)
class Options:
    """The largest shares that are kept."""

    max_words: float | None = option(0.2, "largest share of words that stood before", least=0, most=1)
    max_pairs: float | None = option(None, "largest share of pairs of words that stood before", least=0, most=1)


def measurer(options: Options) -> Callable[[Facts], tuple[float, float]]:
    """Return the function that measures the repeated shares of words and of pairs; 0 where there is none."""

    def measure(facts: Facts) -> tuple[float, float]:
        words = tokens(fold(facts.caption))
        return repeated(words), repeated(list(pairwise(words)))

    return measure


def repeated(things: Sequence[object]) -> float:
    """Return the share of things that are equal to one before."""
    return (len(things) - len(set(things))) / len(things) if things else 0.0


def refuse(options: Options) -> str:
    """Return SQL that is true for a caption above either share."""
    words = outside('"repetition.words"', None, options.max_words, "", "max_words")
    pairs = outside('"repetition.pairs"', None, options.max_pairs, "", "max_pairs")
    return f"{words} OR {pairs}"


def detail(options: Options) -> str:
    """Return SQL for such as `0.50 of words, 0.33 of pairs said before`."""
    return """format('{:.2f} of words, {:.2f} of pairs said before', "repetition.words", "repetition.pairs")"""
