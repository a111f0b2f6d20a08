"""Drop animations: GIF, PNG, WebP and AVIF files with more than one frame.

What it does: compares the number of frames. (Without this filter the first frame is kept, as a JPEG.)
Why: first frames are often blank, a title, or a loading wheel. The pages of a TIFF and the previews in a phone's MPO are no animation.
Example: `filters: [{name: animated}]`.
Options: max_frames.
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
    """How many frames are a still picture yet. In files above 16 MiB frames are not counted: 2 stands for any number."""

    max_frames: int = option(1, "most frames that are kept", least=1)


def measurer(options: Options) -> Callable[[Facts], tuple[()]]:
    """Return a function that measures nothing: the frames stand in the table."""
    return lambda facts: ()


def refuse(options: Options) -> str:
    """Return SQL that is true for an animation."""
    return f"frames > {options.max_frames} AND original_format IN ('GIF', 'PNG', 'WEBP', 'AVIF')"


def detail(options: Options) -> str:
    """Return SQL for such as `24 frames (GIF)`."""
    return "concat(frames, ' frames (', original_format, ')')"
