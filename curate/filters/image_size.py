"""Drop images that are too small or too large.

What it does: compares the sides and the area, in pixels, and the file's bytes, all of the image as it was found, before any resizing.
Why: thumbnails and icons teach blur, and huge scans are mostly text; DataComp asks for a shorter side of 200 px, LAION for 5 kB.
Example: `filters: [{name: image_size, min_side: 200, min_bytes: 5000}]`.
Options: min_side (of the shorter), max_side (of the longer), min_pixels, max_pixels (width × height), min_bytes, max_bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.filters.base import Facts, check_limits, outside
from shards.core.config import option

VERSION = 2
MEASURE: tuple[str, ...] = ()
COLUMNS = (("bytes", "int64"),)


@dataclass(frozen=True)
class Options:
    """Limits, each included in what is kept; without any, nothing is dropped."""

    min_side: int | None = option(None, "fewest pixels of the shorter side", least=0)
    max_side: int | None = option(None, "most pixels of the longer side", least=0)
    min_pixels: int | None = option(None, "fewest pixels in all", least=0)
    max_pixels: int | None = option(None, "most pixels in all", least=0)
    min_bytes: int | None = option(None, "smallest file, in bytes", least=0)
    max_bytes: int | None = option(None, "largest file, in bytes", least=0)


def measurer(options: Options) -> Callable[[Facts], tuple[int | None]]:
    """Return the function that measures the original file's bytes; the sides stand in the table."""
    return lambda facts: (len(facts.content) or None,)


def refuse(options: Options) -> str:
    """Return SQL that is true for an image outside the limits."""
    shorter, longer = "least(original_width, original_height)", "greatest(original_width, original_height)"
    check_limits(options.min_side, options.max_side, "min_side", "max_side")
    tests = [
        outside(shorter, options.min_side, None, "min_side", ""),
        outside(longer, None, options.max_side, "", "max_side"),
        outside("original_width::BIGINT * original_height", options.min_pixels, options.max_pixels, "min_pixels", "max_pixels"),
        outside('"image_size.bytes"', options.min_bytes, options.max_bytes, "min_bytes", "max_bytes"),
    ]
    return " OR ".join(tests)


def detail(options: Options) -> str:
    """Return SQL for such as `120 × 90 px`, with `, 2048 bytes` where those are limited."""
    size = "original_width, ' × ', original_height, ' px'"
    limited = options.min_bytes is not None or options.max_bytes is not None
    return f"""concat({size}, ', ', "image_size.bytes", ' bytes')""" if limited else f"concat({size})"
