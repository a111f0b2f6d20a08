"""An ensemble's answer is the mean of its members' softmax; its metrics by number of members.

The value at m members is the mean over all subsets of m of the M members where these are at most `MOST_SUBSETS`, and else over
`MOST_SUBSETS` different ones, drawn with a fixed seed. So no order of the members decides the curve.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval import metrics
from eval.metrics import Score

if TYPE_CHECKING:
    import numpy as np

MOST_SUBSETS = 256  # a mean over 256 subsets is within a sixteenth of the spread of one
METRICS = ("acc1", "acc5", "mean_per_class", "nll", "ece", "brier")


def mean_softmax(members: Sequence[np.ndarray]) -> np.ndarray:
    """Return log(Σ softmax(z_i) / M), (n, classes) float64, of members' logits z_i, (n, classes) each.

    Its softmax is the ensemble's answer. It is added up in logarithms, so that it is finite where a probability is too small for a number.
    """
    import numpy as np

    total = metrics.log_softmax(members[0])
    for member in members[1:]:
        total = np.logaddexp(total, metrics.log_softmax(member))
    return np.asarray(total - math.log(len(members)))


def subsets(members: int, size: int, most: int = MOST_SUBSETS) -> list[tuple[int, ...]]:
    """Return the subsets of `size` of so many members that a value is the mean over: all, or `most` different ones of a fixed seed."""
    if math.comb(members, size) <= most:
        return list(itertools.combinations(range(members), size))
    generator = random.Random(f"{members}/{size}")
    drawn: set[tuple[int, ...]] = set()
    while len(drawn) < most:
        drawn.add(tuple(sorted(generator.sample(range(members), size))))
    return sorted(drawn)


def scores(members: Sequence[np.ndarray], labels: np.ndarray, size: int, most: int = MOST_SUBSETS) -> dict[str, Score]:
    """Return the metrics of ensembles of `size` of the members, by name: means over `subsets`.

    Of one subset the intervals are those of `metrics.classification`. Of several they cover the test images, by each image's mean over
    subsets (t; of mean_per_class, z by class); the subsets overlap, so the spread between them is no spread of independent ensembles.
    """
    chosen = subsets(len(members), size, most)
    if len(chosen) == 1:
        return metrics.classification(mean_softmax([members[at] for at in chosen[0]]), labels, probabilistic=True)
    by_image: dict[str, np.ndarray] = {}
    calibration = 0.0
    for subset in chosen:
        logits = mean_softmax([members[at] for at in subset])
        for metric, values in _by_image(logits, labels).items():
            by_image[metric] = by_image.get(metric, 0) + values / len(chosen)
        calibration += metrics.ece(logits, labels).value / len(chosen)
    scored = {metric: metrics.over_images(values, metric) for metric, values in by_image.items()}
    scored["mean_per_class"] = _per_class(by_image["acc1"], labels)
    scored["ece"] = Score(calibration, n=len(labels))
    classes = members[0].shape[1]
    return {name: scored[name].having(chance=metrics.chance_of(name, classes)) for name in METRICS if name in scored}


def _by_image(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each image counts in the metrics that are means over images, (n,) each."""
    import numpy as np

    ranked = metrics.ranks(logits, labels)
    log_chances = metrics.log_softmax(logits)
    values = {"acc1": ranked == 0, "acc5": ranked < 5} if logits.shape[1] > 5 else {"acc1": ranked == 0}
    return {
        **{metric: right.astype(np.float64) for metric, right in values.items()},
        "nll": metrics.nll_by_image(log_chances, labels),
        "brier": metrics.brier_by_image(log_chances, labels),
    }


def _per_class(values: np.ndarray, labels: np.ndarray) -> Score:
    """Return the mean over classes of the class means, with a stratified mean's normal interval; a class of one image adds no width."""
    from statistics import NormalDist

    import numpy as np

    parts = [values[labels == label] for label in np.unique(labels)]
    mean = float(np.mean([part.mean() for part in parts]))
    variances = [part.var(ddof=1) / len(part) for part in parts if len(part) > 1]
    half = NormalDist().inv_cdf((1 + metrics.LEVEL) / 2) * math.sqrt(sum(variances)) / len(parts)
    return Score(mean, mean - half, mean + half, "z over test images, by class", n=len(labels))
