"""A temperature for each sample of a data set, as FastCLIP v2 learns them (Wei et al. 2024; iSogCLR, Qiu et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from train import distributed

TAU_RANGE = (0.01, 1.0)  # as in the published code
LARGEST_GRADIENT = 5.0  # likewise


@dataclass(frozen=True)
class TemperatureAdam:
    """How v2 learns its temperatures: Adam's constants, as the published code gives them to its own Adam."""

    lr: float = 0.0133
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


PUBLISHED = TemperatureAdam()  # the CC3M script's


class Temperatures(nn.Module):
    """τ of each sample of a data set, learned by Adam from clipped gradients, and kept within [0.01, 1].

    The published code (Optimization-AI/fast_clip, efd89d5) is followed to the letter: a sample's first gradient becomes
    its moments, and the bias correction counts epochs, `m / (1 − β^(epoch + 1))`. It is none of Adam's theory, but
    changes the steps' size: the published learning rates were tuned with it.

    Attributes:
        tau, first_moment, second_moment: (samples,) float32.
    """

    tau: torch.Tensor
    first_moment: torch.Tensor
    second_moment: torch.Tensor

    def __init__(self, samples: int, start: float, adam: TemperatureAdam) -> None:
        """Start every sample at the same temperature."""
        super().__init__()
        self.adam = adam
        self.register_buffer("tau", torch.full((samples,), start))
        self.register_buffer("first_moment", torch.zeros(samples))
        self.register_buffer("second_moment", torch.zeros(samples))

    def learn(self, indices: torch.Tensor, gradients: torch.Tensor, epoch: int) -> None:
        """Take one step for the samples of this rank; all ranks store those of the global batch.

        Args:
            indices: (n,) int64.
            gradients: of the loss with respect to each τ, (n,).
            epoch: whole passes over the data so far.
        """
        adam = self.adam
        beta1, beta2 = (adam.beta1, adam.beta2) if epoch else (0.0, 0.0)
        gradients = gradients.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT)
        first = beta1 * self.first_moment[indices] + (1 - beta1) * gradients
        second = beta2 * self.second_moment[indices] + (1 - beta2) * gradients.square()
        step = first / (1 - beta1 ** (epoch + 1)) / ((second / (1 - beta2 ** (epoch + 1))).sqrt() + adam.eps)
        tau = (self.tau[indices] - adam.lr * step).clamp(*TAU_RANGE)
        all_indices = distributed.gather(indices)
        for state, values in ((self.tau, tau), (self.first_moment, first), (self.second_moment, second)):
            store(state, all_indices, distributed.gather(values), "mean")


def store(state: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, reduce: str) -> None:
    """Write (N,) values; a sample that is there several times gets their largest or mean, whatever the order of writes."""
    state.scatter_reduce_(0, indices, values.to(state.dtype), reduce, include_self=False)
