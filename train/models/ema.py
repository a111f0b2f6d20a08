"""Exponential moving average of a module's weights: for evaluation, and as the teacher of BYOL and MoCo.

The arithmetic is torch's (`torch.optim.swa_utils.get_ema_multi_avg_fn`): θ_ema ← d·θ_ema + (1 − d)·θ. Its AveragedModel is not
used, because its counter lies on the device and is read in each step, which makes the host wait for a GPU.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from shards.core.errors import UsageError


class Ema(nn.Module):
    """A copy of a module that follows it. `module` is the copy, without gradients; it is in the state dict, and so is the count."""

    def __init__(
        self, model: nn.Module, decay: float = 0.9999, warmup: bool = False, buffers: Literal["average", "copy", "own"] = "average"
    ) -> None:
        """Copy a module.

        Args:
            decay: d, in [0, 1].
            warmup: let d rise with the number of updates, as timm's ModelEmaV3 does.
            buffers: running statistics are averaged like weights (as timm does; integers are copied), copied at each update, or left
                alone, for a teacher that makes its own by forward passes in training mode (BYOL).

        Raises:
            UsageError: the decay is out of range.
        """
        super().__init__()
        check_decay(decay)
        self.decay, self.warmup, self.buffers_are = decay, warmup, buffers
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.updates = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the copy."""
        return self.module(*args, **kwargs)

    def decay_at(self, updates: int) -> float:
        """Return the decay of the update after so many: with warm-up min(d, 1 − (1 + updates)^(−2/3)), else d.

        timm's ModelEmaV3 (warmup_gamma 1, warmup_power 2/3). The very first update of a warm-up therefore copies the weights.
        """
        return min(self.decay, 1 - (1 + updates) ** (-2 / 3)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float | None = None) -> None:
        """Take one step towards a module that has the copy's shape; without waiting for the device.

        Args:
            decay: of this step alone, such as BYOL's momentum; by default `decay_at`.

        Raises:
            UsageError: the decay is out of range.
        """
        d = self.decay_at(self.updates) if decay is None else decay
        check_decay(d)
        self.updates += 1
        ours: list[torch.Tensor] = list(self.module.parameters())
        theirs: list[torch.Tensor] = list(model.parameters())
        if self.buffers_are == "average":
            ours += [buffer for buffer in self.module.buffers() if buffer.is_floating_point()]
            theirs += [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._average(ours, theirs, d)
        if self.buffers_are != "own":
            for copied, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
                if self.buffers_are == "copy" or not buffer.is_floating_point():
                    copied.copy_(buffer)

    @staticmethod
    def _average(ours: list[torch.Tensor], theirs: list[torch.Tensor], decay: float) -> None:
        """Average in place, one call for each precision, since torch's function takes one kind of number at a time."""
        for dtype in {tensor.dtype for tensor in ours}:
            places = [i for i, tensor in enumerate(ours) if tensor.dtype == dtype]
            get_ema_multi_avg_fn(decay)([ours[i] for i in places], [theirs[i] for i in places], None)

    def get_extra_state(self) -> dict[str, int]:
        """Return the number of updates, for the state dict."""
        return {"updates": self.updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take the number of updates from a state dict."""
        self.updates = int(state["updates"])


def check_decay(decay: float) -> None:
    """Refuse a decay that is no weight.

    Raises:
        UsageError: it is not in [0, 1].
    """
    if not 0 <= decay <= 1:
        raise UsageError(f"decay {decay} of an average", "0 ≤ decay ≤ 1")


def byol_momentum(step: int, steps: int, base: float = 0.996) -> float:
    """Return the momentum of BYOL's teacher at a step: 1 − (1 − base)·(cos(π·step/steps) + 1)/2 (Grill et al. 2020, §3.3).

    It rises from `base` at step 0 to 1 at step `steps`.
    """
    return 1 - (1 - base) * (math.cos(math.pi * step / steps) + 1) / 2
