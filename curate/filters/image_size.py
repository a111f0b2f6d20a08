"""Drop images that are too small or too large.

What it does: compares the sides, in pixels, and the area of the image as it was found, before any resizing.
Why: thumbnails and icons teach blur, and huge scans are mostly text; DataComp asks for a shorter side of 200 px.
Example: `filters: [{name: image_size, min_side: 200}]`.
Options: min_side (of the shorter), max_side (of the longer), min_pixels, max_pixels (width × height).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.filters.base import Facts, check_limits, outside
from shards.core.config import option

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Options:
    """Limits, each included in what is kept; without any, nothing is dropped."""

    min_side: int | None = option(None, "fewest pixels of the shorter side")
    max_side: int | None = option(None, "most pixels of the longer side")
    min_pixels: int | None = option(None, "fewest pixels in all")
    max_pixels: int | None = option(None, "most pixels in all")


def measurer(options: Options) -> Callable[[Facts], tuple[()]]:
    """Return a function that measures nothing: the sizes stand in the table."""
    return lambda facts: ()


def refuse(options: Options) -> str:
    """Return SQL that is true for an image outside the limits."""
    shorter, longer = "least(original_width, original_height)", "greatest(original_width, original_height)"
    check_limits(options.min_side, options.max_side, "min_side", "max_side")
    pixels = "original_width::BIGINT * original_height"
    small = outside(shorter, options.min_side, None, "min_side", "")
    large = outside(longer, None, options.max_side, "", "max_side")
    return f"{small} OR {large} OR {outside(pixels, options.min_pixels, options.max_pixels, 'min_pixels', 'max_pixels')}"


def detail(options: Options) -> str:
    """Return SQL for such as `120 × 90 px`."""
    return "concat(original_width, ' × ', original_height, ' px')"
