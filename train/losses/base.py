"""What a loss returns, and the mean that makes a number of it.

A loss is a function from tensors to the losses of this rank's n samples, (n,), with gradient. The step takes their mean over
the global batch (`global_mean`), so that weights, curves by source and losses by sample need no second computation. A loss
that cannot use some samples also says how much each one counts (`Counted`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from train import distributed


class Counted(NamedTuple):
    """Losses of n samples of which some count less than others, or not at all.

    Attributes:
        values: (n,), 0 where a sample does not count.
        counts: how much each sample counts in a mean, (n,) of the same type.
    """

    values: torch.Tensor
    counts: torch.Tensor


def global_mean(values: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return this rank's share of `Σ w·loss / Σ w` over the global batch, a scalar.

    The mean over ranks of the results, and of their gradients, is that of one process holding the global batch: each rank
    divides its own sum by the mean over ranks of Σ w. A global batch in which nothing counts has loss and gradient 0. Weights
    of 1 give the bits of no weights.

    Args:
        values: the losses of this rank's n samples, (n,).
        weights: by how much each one counts, at least 0, (n,); None: all alike.
    """
    if weights is None:
        return values.sum() / len(values)
    per_rank = distributed.mean(weights.sum().to(values.dtype))
    return (weights * values).sum() / torch.where(per_rank > 0, per_rank, 1)
