"""Drop samples whose image and caption an open_clip model finds unlike each other.

What it does: compares the cosine of the image's and the caption's embedding, by the recipe's `embed` model, with a threshold.
Why: alt-text often has nothing to do with its picture; LAION kept 0.28 and above (ViT-B/32), DataComp's best baseline the top 30 %.
Example: `embed: {model: ViT-B-32, checkpoint: openai}` and `filters: [{name: clip_score, top: 0.3}]`.
Options: min, top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curate.filters.base import Facts
from shards.core.config import option

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS = (("score", "double"),)
_SCORE = '"clip_score.score"'


@dataclass(frozen=True)
class Options:
    """A threshold, a share, or both."""

    min: float | None = option(None, "lowest score that is kept", least=-1, most=1)
    top: float | None = option(
        None, "share of all scored samples that is kept, the highest scores first: 0.3 for the top 30 %", above=0, most=1
    )


def measurer(options: Options) -> Callable[[Facts], tuple[None]]:
    """Return a function that leaves the column empty: the pass `embed` fills it, in batches."""
    return lambda facts: (None,)


def refuse(options: Options) -> str:
    """Return SQL that is true for a score below the threshold or outside the top share."""
    tests = [] if options.min is None else [f"{_SCORE} < {options.min!r}::DOUBLE"]
    if options.top is not None:
        tests.append(f"{_SCORE} < (SELECT -quantile_disc(-{_SCORE}, {options.top!r}) FROM measured)")
    return " OR ".join(tests) or "FALSE"


def detail(options: Options) -> str:
    """Return SQL for such as `score 0.2134`."""
    return f"coalesce(format('score {{:.4f}}', {_SCORE}), 'no score')"
