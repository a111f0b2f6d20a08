"""How unlike the members of an ensemble are: means over pairs of members of what they answer, err and see.

A mean over the pairs of all subsets of m members is the mean over all pairs, whatever m is: diversity has no curve by members.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shards.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

METRICS = ("disagreement", "error_correlation", "kappa")


@dataclass(frozen=True)
class Diversity:
    """A mean over pairs of members: `pairs` holds (i, j) → value; pairs where it is not defined are left out and counted."""

    value: float
    pairs: dict[tuple[int, int], float]
    undefined: int = 0


def between(answers: np.ndarray, labels: np.ndarray) -> dict[str, Diversity]:
    """Return the measures of `METRICS` of members' answers; those that no pair defines are left out.

    disagreement: share of images that two members put into different classes. error_correlation: Pearson's correlation of being wrong
    (φ), undefined where a member is always or never right. kappa: Cohen's κ of the answers (Cohen 1960), undefined where both always
    answer one class.

    Args:
        answers: classes that the members answer, (M, n).
        labels: true classes, (n,).

    Raises:
        UsageError: fewer than two members.
    """
    if len(answers) < 2:
        raise UsageError(f"diversity of {len(answers)} member", "two members or more")
    wrong = answers != labels
    measured = {}
    for metric, measure, of in (
        ("disagreement", disagreement, answers),
        ("error_correlation", correlation, wrong),
        ("kappa", kappa, answers),
    ):
        defined = _over_pairs([measure(of[i], of[j]) for i, j in _pairs(len(of))], len(of))
        if defined is not None:
            measured[metric] = defined
    return measured


def _pairs(members: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(members), 2))


def _over_pairs(values: Sequence[float | None], members: int) -> Diversity | None:
    pairs = {pair: value for pair, value in zip(_pairs(members), values, strict=True) if value is not None}
    if not pairs:
        return None
    return Diversity(sum(pairs.values()) / len(pairs), pairs, len(values) - len(pairs))


def disagreement(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of images with different answers."""
    return float((first != second).mean())


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Pearson's correlation of two vectors of 0 and 1; None where one of them is constant."""
    import numpy as np

    x, y = first.astype(np.float64), second.astype(np.float64)
    spread = x.std() * y.std()
    return float(((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else None


def kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Cohen's κ = (p_o − p_e) / (1 − p_e): p_o the share of equal answers, p_e that of independent ones. None where p_e is 1."""
    import numpy as np

    classes = int(max(first.max(), second.max())) + 1
    shares = [np.bincount(part, minlength=classes) / len(part) for part in (first, second)]
    expected = float(shares[0] @ shares[1])
    if expected >= 1 - 1e-12:
        return None
    return (1 - disagreement(first, second) - expected) / (1 - expected)


def cka(features: Sequence[np.ndarray]) -> Diversity:
    """Return linear CKA (Kornblith et al. 2019, eq. 5) between members' features of the same images, (n, d_i) each; 1 is alike.

    Raises:
        UsageError: fewer than two members, or features that do not vary.
    """
    if len(features) < 2:
        raise UsageError(f"CKA of {len(features)} member", "two members or more")
    defined = _over_pairs([linear_cka(features[i], features[j]) for i, j in _pairs(len(features))], len(features))
    if defined is None:
        raise UsageError("CKA of features that do not vary from image to image", "models that tell images apart")
    return defined


def linear_cka(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return ‖YᵀX‖² / (‖XᵀX‖·‖YᵀY‖) (Frobenius) of centred X (n, p) and Y (n, q); None where one of them does not vary."""
    import numpy as np

    x, y = (part.astype(np.float64) - part.astype(np.float64).mean(axis=0) for part in (first, second))
    scale = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale > 0 else None
