"""Drop samples whose caption has few letters: numbers, file names, rows of symbols.

What it does: measures which share of the caption's characters, white space aside, are letters of any script.
Why: `IMG_20190412_1130.jpg`, prices and rows of emoji say nothing about what is seen.
Example: `filters: [{name: alphabetic, min: 0.6}]`.
Options: min.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from curate.filters.base import Facts, outside
from shards.core.config import option

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS = (("share", "double"),)


@dataclass(frozen=True)
class Options:
    """The smallest share that is kept."""

    min: float = option(0.5, "smallest share of letters among the characters", least=0, most=1)


def measurer(options: Options) -> Callable[[Facts], tuple[float]]:
    """Return the function that measures the share of letters; 0 where there are no characters."""
    return lambda facts: (letters("".join(facts.caption.split())),)


def letters(text: str) -> float:
    """Return the share of letters, with the marks that scripts put on them, among a text's characters."""
    if text.isascii():
        count = sum(map(str.isalpha, text))
    else:
        count = sum(unicodedata.category(c)[0] in "LM" for c in text)
    return count / len(text) if text else 0.0


def refuse(options: Options) -> str:
    """Return SQL that is true for a caption below the share."""
    return outside('"alphabetic.share"', options.min, None, "min", "")


def detail(options: Options) -> str:
    """Return SQL for such as `0.25 letters`."""
    return """format('{:.2f} letters', "alphabetic.share")"""
