"""Averages of weights: uniform and weighted soups (Wortsman et al. 2022a), and the line between two models (WiSE-FT, 2022b).

All keys of the state dicts are averaged, the running statistics of BatchNorm too. Sums are taken in double precision; a whole
number, such as BatchNorm's count of batches, is cut off to one again, as torch does when it loads a fraction into its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from shards.core.errors import UsageError

StateDict = Mapping[str, torch.Tensor]
SHOWN = 3
FISHER_FLOOR = 1e-8  # as in wise-ft: below it a weight counts as one on which nothing depends


def average(states: Sequence[StateDict], weights: Sequence[float] | None = None) -> dict[str, torch.Tensor]:
    """Return Σ w_i·θ_i / Σ w_i over state dicts with the same names and shapes.

    Args:
        weights: w_i, at least 0; all 1 where it is None.

    Raises:
        UsageError: no state dict, other names or shapes in one of them, or weights that do not fit.
    """
    if not states:
        raise UsageError("an average of no models", "at least one state dict")
    chosen = [1.0] * len(states) if weights is None else [float(weight) for weight in weights]
    total = sum(chosen)
    if len(chosen) != len(states) or min(chosen) < 0 or not 0 < total < float("inf"):
        raise UsageError(f"weights {chosen} for {len(states)} models", "one weight each, at least 0, not all 0")
    for number, state in enumerate(states[1:], start=2):
        _check_same(states[0], state, number)
    shares = [weight / total for weight in chosen]
    return {name: _mean([state[name] for state in states], shares) for name in states[0]}


def interpolate(first: StateDict, second: StateDict, alpha: float) -> dict[str, torch.Tensor]:
    """Return (1 − α)·first + α·second over all keys (WiSE-FT: `first` is zero-shot, `second` fine-tuned; α = 0.5 is advised).

    Raises:
        UsageError: α is not in [0, 1], or the state dicts differ in names or shapes.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha {alpha}", "0 ≤ alpha ≤ 1")
    return average([first, second], [1 - alpha, alpha])


def interpolate_by_fisher(
    first: StateDict, second: StateDict, alpha: float, fisher_first: StateDict, fisher_second: StateDict, floor: float = FISHER_FLOOR
) -> dict[str, torch.Tensor]:
    """Return ((1 − α)·F₁·θ₁ + α·F₂·θ₂) / ((1 − α)·F₁ + α·F₂), element by element (Matena and Raffel 2021, arXiv:2111.09832; wise-ft).

    Args:
        first, second: θ₁ and θ₂.
        fisher_first, fisher_second: F₁ and F₂, diagonals of the Fisher information, at least `floor`. What has none, such as the running
            statistics of BatchNorm, is interpolated as by `interpolate`.

    Raises:
        UsageError: α is not in [0, 1], or the state dicts differ in names or shapes.
    """
    merged = interpolate(first, second, alpha)
    for name in fisher_first.keys() & fisher_second.keys():
        share = (1 - alpha) * fisher_first[name].double().clamp_min(floor)
        other = alpha * fisher_second[name].double().clamp_min(floor)
        merged[name] = ((share * first[name] + other * second[name]) / (share + other)).to(first[name].dtype)
    return merged


def _mean(tensors: list[torch.Tensor], shares: list[float]) -> torch.Tensor:
    total = torch.zeros(tensors[0].shape, dtype=torch.float64, device=tensors[0].device)
    for tensor, share in zip(tensors, shares, strict=True):
        if share > 0:  # a model with weight 0 adds nothing, even where it holds NaN
            total.add_(tensor.to(total), alpha=share)
    if not tensors[0].is_floating_point():
        # 0.1 + 0.2 shares of equal counts may end a hair below the count, which would be cut off to one less.
        total = (total + 1e-9).trunc()
    return total.to(tensors[0].dtype)


def _check_same(first: StateDict, other: StateDict, number: int) -> None:
    missing = [name for name in first if name not in other]
    added = [name for name in other if name not in first]
    reshaped = [name for name in first if name in other and first[name].shape != other[name].shape]
    for words, names in (("lacks", missing), ("has besides", added), ("has in another shape", reshaped)):
        if names:
            shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            raise UsageError(f"model {number} of an average {words} {shown}", "models of one architecture")
