"""Drop images that are much longer than wide, or wider than long.

What it does: divides the longer side of the image, as it was found, by the shorter.
Why: banners and film strips lose most of their content to a square crop; CC12M allows 2.5, DataComp 3.
Example: `filters: [{name: aspect_ratio, max: 3}]`.
Options: max.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.filters.base import Facts
from shards.core.config import option

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS: tuple[tuple[str, str], ...] = ()
_LONGER, _SHORTER = "greatest(original_width, original_height)", "least(original_width, original_height)"


@dataclass(frozen=True)
class Options:
    """The largest ratio that is kept."""

    max: float = option(3.0, "largest ratio of the longer side to the shorter", least=1)


def measurer(options: Options) -> Callable[[Facts], tuple[()]]:
    """Return a function that measures nothing: the sizes stand in the table."""
    return lambda facts: ()


def refuse(options: Options) -> str:
    """Return SQL that is true for an image beyond the ratio."""
    return f"{_LONGER} > {options.max!r}::DOUBLE * {_SHORTER}"


def detail(options: Options) -> str:
    """Return SQL for such as `4.50 : 1`."""
    return f"format('{{:.2f}} : 1', {_LONGER}::DOUBLE / {_SHORTER})"
