"""The same numbers over the test images that no training data hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval import metrics
from eval.metrics import Score

if TYPE_CHECKING:
    import numpy as np

    from eval.answers import Answers


def without(metric: str, score: Score, contents: np.ndarray) -> Score | None:
    """Return a metric over the images that are left, from the answers that its score was made of; None where it has none.

    Args:
        contents: sha256 (hex, ASCII bytes) of the images that are left out.
    """
    scored = [_of_run(answers, contents) for answers in score.answers]
    values = [of_run[metric] for of_run in scored if of_run is not None and metric in of_run]
    if not values or len(values) < len(scored):
        return None
    left = _over_runs(metric, values) if score.runs else values[0]
    return left.having(n=values[0].n, chance=score.chance, k=score.k, settings=score.settings, protocol=score.protocol)


def _over_runs(metric: str, values: Sequence[Score]) -> Score:
    """Return the mean over draws; where all give the same, the interval over test images, since one over draws would have no width."""
    runs = tuple(value.value for value in values)
    if len(runs) < 2 or len(set(runs)) > 1:
        return metrics.over_seeds(runs, metric)
    first = values[0]
    interval = f"{first.interval} (all {len(runs)} draws give the same)" if first.interval else ""
    return first.having(interval=interval, runs=runs)


def _of_run(answers: Answers, contents: np.ndarray) -> dict[str, Score] | None:
    """Return all metrics of a run over the images that are left; None where none is."""
    import numpy as np

    kept = ~np.isin(answers.examples.hashes, contents)
    if not kept.any():
        return None
    return metrics.classification(answers.scores[kept], answers.examples.labels[kept], probabilistic=True)
