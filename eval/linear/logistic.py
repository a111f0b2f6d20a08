"""Multinomial logistic regression: many fits that share images, in one L-BFGS.

A fit minimises C · Σ w_i · CE_i + ½ · ||W||² with an intercept that is not penalised: scikit-learn's `LogisticRegression`. Draws of
as many images are a batch, and so are the fits of one draw, which differ in the weights of its images (folds) and in C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MEMORY = 10  # pairs of steps and changes of the gradient that L-BFGS keeps (Nocedal & Wright, Numerical Optimization, alg. 7.4)
TOLERANCE = 1e-5  # largest entry of the gradient of the mean loss at which a fit is done; scikit-learn's is 1e-4
MOST_STEPS = 500
_ENOUGH = 1e-4  # Armijo's constant: the share of the decrease that the slope promises
_HALVINGS = 25


@dataclass(frozen=True)
class Fitted:
    """What fits give: `weights`, (S, V, d + 1, classes), the intercepts last; `open` counts those that did not converge."""

    weights: torch.Tensor
    steps: int
    open: int


def fit(
    x: torch.Tensor,
    y: torch.Tensor,
    classes: int,
    weights: torch.Tensor,
    c: torch.Tensor,
    start: torch.Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Fitted:
    """Fit S × V classifiers.

    Args:
        x: features (S, n, d), double precision.
        y: labels (S, n).
        weights: of the images in each fit, (S, V, n); 0 leaves an image out.
        c: C of each fit, (S, V).
        start: where to begin, as `Fitted.weights`; zeros where None.
        tolerance: largest entry of the gradient of the mean loss at which a fit is done.
    """
    import torch

    problem = _Problem(x, y, classes, weights, c)
    at = problem.zeros() if start is None else start.clone()
    value, slope = problem.loss(at)
    steps: list[torch.Tensor] = []
    changes: list[torch.Tensor] = []
    step = 0
    while step < MOST_STEPS and bool((slope.abs().amax((2, 3)) > tolerance).any()):
        direction = _direction(slope, steps, changes)
        at_next, value_next, slope_next = _search(problem, at, value, slope, direction, tolerance, first=not steps)
        steps.append(at_next - at)
        changes.append(slope_next - slope)
        del steps[:-MEMORY], changes[:-MEMORY]
        step += 1
        stuck = bool(torch.equal(at_next, at))
        at, value, slope = at_next, value_next, slope_next
        if stuck:
            break
    left = int((slope.abs().amax((2, 3)) > tolerance).sum())
    return Fitted(at, step, left)


def scores(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the logits (S, V, n, classes) of features (S, n, d), or (n, d) for all draws alike."""
    return x.unsqueeze(-3) @ weights[..., :-1, :] + weights[..., -1:, :]


class _Problem:
    """The loss of all fits, divided by C · Σ w, so that one tolerance serves all."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, classes: int, weights: torch.Tensor, c: torch.Tensor) -> None:
        import torch

        self.x, self.classes = x, classes
        total = weights.sum(-1)
        self.share = weights / total[..., None]
        self.penalty = 1 / (c * total)
        self.wanted = torch.nn.functional.one_hot(y, classes).to(x.dtype)

    def zeros(self) -> torch.Tensor:
        draws, fits, _ = self.share.shape
        return self.x.new_zeros((draws, fits, self.x.shape[-1] + 1, self.classes))

    def loss(self, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses (S, V) and their gradients (S, V, d + 1, classes)."""
        import torch

        logits = scores(at, self.x)
        log_chances = torch.log_softmax(logits, -1)
        wanted = self.wanted[:, None]
        inner = at[..., :-1, :]
        value = -((wanted * log_chances).sum(-1) * self.share).sum(-1) + 0.5 * self.penalty * inner.square().sum((-1, -2))
        excess = (log_chances.exp() - wanted) * self.share[..., None]
        slope = torch.empty_like(at)
        slope[..., :-1, :] = self.x.mT[:, None] @ excess + self.penalty[..., None, None] * inner
        slope[..., -1, :] = excess.sum(-2)
        return value, slope


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum((-1, -2), keepdim=True)


def _direction(slope: torch.Tensor, steps: list[torch.Tensor], changes: list[torch.Tensor]) -> torch.Tensor:
    """Return the descent direction of each fit by the two-loop recursion; pairs without curvature count for nothing."""
    import torch

    direction = -slope
    curvatures = [_dot(s, y) for s, y in zip(steps, changes, strict=True)]
    inverses = [torch.where(c > 1e-300, 1 / c.clamp_min(1e-300), torch.zeros_like(c)) for c in curvatures]
    parts = []
    for s, y, inverse in zip(reversed(steps), reversed(changes), reversed(inverses), strict=True):
        part = inverse * _dot(s, direction)
        direction = direction - part * y
        parts.append(part)
    if steps:
        scale = curvatures[-1] / _dot(changes[-1], changes[-1]).clamp_min(1e-300)
        direction = direction * torch.where(scale > 0, scale, torch.ones_like(scale))
    for s, y, inverse, part in zip(steps, changes, inverses, reversed(parts), strict=True):
        direction = direction + (part - inverse * _dot(y, direction)) * s
    return torch.where(_dot(direction, slope) < 0, direction, -slope)


def _search(
    problem: _Problem,
    at: torch.Tensor,
    value: torch.Tensor,
    slope: torch.Tensor,
    direction: torch.Tensor,
    tolerance: float,
    *,
    first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the next point of each fit, with its loss and gradient: the step is halved until the loss falls enough.

    A fit that is done stays where it is, and so does one whose loss falls nowhere.
    """
    import torch

    promised = _dot(direction, slope)
    length = torch.ones_like(promised)
    if first:
        length = (1 / slope.abs().sum((-1, -2), keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
    length = torch.where(slope.abs().amax((-1, -2), keepdim=True) > tolerance, length, torch.zeros_like(length))
    for _ in range(_HALVINGS):
        there = at + length * direction
        value_there, slope_there = problem.loss(there)
        bad = (value_there[..., None, None] > value[..., None, None] + _ENOUGH * length * promised) & (length > 0)
        if not bool(bad.any()):
            return there, value_there, slope_there
        length = torch.where(bad, length / 2, length)
    length = torch.where(bad, torch.zeros_like(length), length)
    there = at + length * direction
    return there, *problem.loss(there)
