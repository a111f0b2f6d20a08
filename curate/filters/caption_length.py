"""Drop samples whose caption is too short or too long.

What it does: counts the words (parts between white space) and characters of the cleaned caption.
Why: one-word captions name a thing at best, and very long ones are cut at the text tower's 77 tokens.
Example: `filters: [{name: caption_length, min_words: 3, max_words: 100}]` (LAION asks for 5 characters, CC12M for 3 to 256 words).
Options: min_words, max_words, min_chars, max_chars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.filters.base import Facts, outside
from shards.core.config import option

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS = (("words", "int32"), ("chars", "int32"))


@dataclass(frozen=True)
class Options:
    """Limits, each included in what is kept."""

    min_words: int = option(1, "fewest words", least=0)
    max_words: int | None = option(None, "most words", least=0)
    min_chars: int = option(0, "fewest characters", least=0)
    max_chars: int | None = option(None, "most characters", least=0)


def measurer(options: Options) -> Callable[[Facts], tuple[int, int]]:
    """Return the function that counts words and characters."""
    return lambda facts: (len(facts.caption.split()), len(facts.caption))


def refuse(options: Options) -> str:
    """Return SQL that is true for a caption outside the limits."""
    words = outside('"caption_length.words"', options.min_words, options.max_words, "min_words", "max_words")
    chars = outside('"caption_length.chars"', options.min_chars, options.max_chars, "min_chars", "max_chars")
    return f"{words} OR {chars}"


def detail(options: Options) -> str:
    """Return SQL for such as `2 words, 11 characters`."""
    return """concat("caption_length.words", ' words, ', "caption_length.chars", ' characters')"""
