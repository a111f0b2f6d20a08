"""The loss on the straight line between two models' weights, and the barrier on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

Weights = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Line:
    """Loss (nats, mean over images) and accuracy at points α of a line, α = 0 being the first end."""

    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """How far the loss rises above the straight line between the ends' losses, at most; 0 where it never does."""
        return barrier(self.alphas, self.losses)

    @property
    def error_barrier(self) -> float:
        """The same of the error, 1 − accuracy."""
        return barrier(self.alphas, [1 - accuracy for accuracy in self.accuracies])


def barrier(alphas: Sequence[float], losses: Sequence[float]) -> float:
    """Return max over α of L(α) − ((1 − α)·L(0) + α·L(1)).

    Frankle et al. 2020 (arXiv:1912.05671) take the mean of the ends in place of their line, which counts a slope as a barrier where the
    ends differ; Neyshabur et al. 2020 (arXiv:2008.11687) take the line.
    """
    first, last = losses[0], losses[-1]
    return max(loss - ((1 - alpha) * first + alpha * last) for alpha, loss in zip(alphas, losses, strict=True))


def points(between: int) -> tuple[float, ...]:
    """Return α of both ends and of so many points between them, equally far apart."""
    return tuple(step / (between + 1) for step in range(between + 2))


def walk(
    first: Weights,
    second: Weights,
    alphas: Sequence[float],
    logits: Callable[[Weights], Sequence[np.ndarray]],
    labels: Sequence[np.ndarray],
) -> list[Line]:
    """Return the line on each of several sets of images; each model on it is made once.

    Args:
        logits: weights → (n, classes) on each set.
        labels: of each set, (n,).
    """
    from eval import metrics
    from train.models.average import interpolate

    measured: list[list[tuple[float, float]]] = [[] for _ in labels]
    for alpha in alphas:
        for at, answers in enumerate(logits(interpolate(first, second, alpha))):
            right = metrics.ranks(answers, labels[at]) == 0
            measured[at].append((metrics.nll(answers, labels[at]).value, float(right.mean())))
    return [Line(tuple(alphas), tuple(loss for loss, _ in side), tuple(acc for _, acc in side)) for side in measured]
