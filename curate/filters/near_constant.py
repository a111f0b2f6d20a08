"""Drop images that show next to nothing: one colour, a faint gradient.

What it does: compares the standard deviation, in gray levels of 255, of the image's coarse structure (the 8×8 low frequencies that its
    pHash reads). Fine texture does not count: even stripes and satellite tiles of sea or forest lie below 3, too.
Why: blank tiles and failed renders carry no content for any caption. Near-duplicate search leaves images below 12 alone, so that such
    copies stay in a build unless their bytes are equal.
Example: `filters: [{name: near_constant, min_information: 3}]`. Flat fills have 0, a line of text on white 10, photos 15 and more.
Options: min_information.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.filters.base import Facts
from shards.core.config import option

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Options:
    """The least information that is kept."""

    min_information: float = option(1.0, "least standard deviation of the coarse structure, in gray levels", least=0, most=128)


def measurer(options: Options) -> Callable[[Facts], tuple[()]]:
    """Return a function that measures nothing: the information stands in the table."""
    return lambda facts: ()


def refuse(options: Options) -> str:
    """Return SQL that is true for an image with less."""
    return f"information < {options.min_information!r}::DOUBLE"


def detail(options: Options) -> str:
    """Return SQL for such as `1.2 gray levels`."""
    return "format('{:.1f} gray levels', information)"
