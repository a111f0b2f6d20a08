"""The published linear probes: a linear layer on kept features, trained in steps; many draws and folds together.

`adamw` is wise-ft's (AdamW, gradients clipped at norm 1, cosine to 0 after a linear warm-up), `sgd` is SLIP's (momentum 0.9, no
clipping). The layer begins at zero. Per epoch each draw has one order of its images, a function of its seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shards.core.errors import UsageError
from train.optim.schedules import warmup_cosine

if TYPE_CHECKING:
    import numpy as np
    import torch

Solver = Literal["adamw", "sgd"]
MOMENTUM = 0.9
CLIP = 1.0
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # torch's


@dataclass(frozen=True)
class Recipe:
    """How the layer is trained. `warmup` is a share of the steps below 1, or a number of steps."""

    solver: Solver
    epochs: int = 128
    batch: int = 128
    weight_decay: float = 0.1
    warmup: float = 0.05

    def steps(self, n: int) -> int:
        """Return the steps over n images; the last batch of an epoch may be smaller."""
        return self.epochs * math.ceil(n / self.batch)

    def warmup_steps(self, n: int) -> int:
        """Return the steps of the warm-up.

        Raises:
            UsageError: it takes all steps, so that the learning rate would never be reached.
        """
        steps = self.steps(n)
        warmup = int(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        if warmup >= steps:
            found = f"--warmup {self.warmup:g}: {warmup} steps of warm-up, and {n} images × {self.epochs} epochs are {steps} steps"
            raise UsageError(found, f"fewer than {steps} steps, or a share below 1", "--warmup 0.05")
        return warmup


def order_of(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order of n images in an epoch of a draw."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=seed, counter=epoch)).permutation(n)


def train(
    x: torch.Tensor, y: torch.Tensor, classes: int, weights: torch.Tensor, rate: torch.Tensor, recipe: Recipe, seeds: list[int]
) -> torch.Tensor:
    """Return the layers of S × V fits, (S, V, d + 1, classes), the biases last.

    Args:
        x: features (S, n, d).
        y: labels (S, n).
        weights: 1 or 0 for each image in each fit, (S, V, n); a batch's loss is the mean over its images of weight 1.
        rate: learning rate of each fit, (S, V).
        seeds: of the draws' orders, S.
    """
    import numpy as np
    import torch

    draws, fits, n = weights.shape
    at = x.new_zeros((draws, fits, x.shape[-1] + 1, classes))
    state = _State(torch.zeros_like(at), torch.zeros_like(at))
    steps, warmup, step = recipe.steps(n), recipe.warmup_steps(n), 0
    rows = torch.arange(draws, device=x.device)[:, None]
    for epoch in range(recipe.epochs):
        orders = torch.from_numpy(np.stack([order_of(seed, epoch, n) for seed in seeds])).to(x.device)
        for first in range(0, n, recipe.batch):
            chosen = orders[:, first : first + recipe.batch]
            slope = _slope(at, x[rows, chosen], y[rows, chosen], weights.gather(2, chosen[:, None].expand(-1, fits, -1)))
            at = _step(at, slope, state, rate[..., None, None] * warmup_cosine(step, 1.0, warmup, steps), recipe, step)
            step += 1
    return at


@dataclass
class _State:
    """The optimiser's moments."""

    first: torch.Tensor
    second: torch.Tensor


def _slope(at: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean cross-entropy over a batch, (S, V, d + 1, classes)."""
    import torch

    share = weights / weights.sum(-1, keepdim=True).clamp_min(1)
    logits = x[:, None] @ at[..., :-1, :] + at[..., -1:, :]
    wanted = torch.nn.functional.one_hot(y, at.shape[-1]).to(x.dtype)[:, None]
    excess = (torch.softmax(logits, -1) - wanted) * share[..., None]
    return torch.cat([x.mT[:, None] @ excess, excess.sum(-2, keepdim=True)], dim=-2)


def _step(at: torch.Tensor, slope: torch.Tensor, state: _State, rate: torch.Tensor, recipe: Recipe, step: int) -> torch.Tensor:
    """Return the layers after a step of torch's AdamW or SGD."""
    if recipe.solver == "sgd":
        slope = slope + recipe.weight_decay * at
        state.first = slope.clone() if step == 0 else MOMENTUM * state.first + slope
        return at - rate * state.first
    norm = slope.square().sum((-1, -2), keepdim=True).sqrt()
    slope = slope * (CLIP / (norm + 1e-6)).clamp_max(1.0)  # as torch's clip_grad_norm_
    at = at * (1 - rate * recipe.weight_decay)
    state.first = _BETAS[0] * state.first + (1 - _BETAS[0]) * slope
    state.second = _BETAS[1] * state.second + (1 - _BETAS[1]) * slope.square()
    root = (state.second / (1 - _BETAS[1] ** (step + 1))).sqrt() + _EPSILON
    return at - rate * (state.first / (1 - _BETAS[0] ** (step + 1))) / root
