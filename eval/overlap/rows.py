"""The same numbers over the test images that no training data hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval import metrics
from eval.metrics import Score

if TYPE_CHECKING:
    import numpy as np

    from eval.answers import Answers


class Without:
    """Gives metrics over the images that are left. The metrics of one set of answers come one after the other: they are made together."""

    def __init__(self, contents: np.ndarray) -> None:
        """Take the sha256 (hex, ASCII bytes) of the images that are left out."""
        self._contents = contents
        self._last: tuple[tuple[Answers, ...], list[dict[str, Score]] | None] = ((), None)

    def score(self, metric: str, score: Score) -> Score | None:
        """Return a metric from the answers that its score was made of; None where it has none, or where no image is left."""
        if score.answers is not self._last[0]:
            self._last = score.answers, self._all(score.answers)
        scored = self._last[1]
        if not scored or any(metric not in of_run for of_run in scored):
            return None
        values = [of_run[metric] for of_run in scored]
        left = metrics.over_runs(values, metric) if score.runs else values[0]
        return left.having(chance=score.chance, k=score.k, settings=score.settings, protocol=score.protocol)

    def _all(self, answers: tuple[Answers, ...]) -> list[dict[str, Score]] | None:
        """Return all metrics of each run over the images that are left; None where a run has none."""
        import numpy as np

        scored = []
        for run in answers:
            kept = ~np.isin(run.examples.hashes, self._contents)
            if not kept.any():
                return None
            scored.append(metrics.classification(run.scores[kept], run.examples.labels[kept], probabilistic=True))
        return scored
