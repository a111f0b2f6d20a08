"""SGD with momentum, fused."""

from __future__ import annotations

from typing import Any

import torch


def make_sgd(groups: list[dict[str, Any]], *, lr: float, momentum: float = 0.9, nesterov: bool = False) -> torch.optim.SGD:
    """Return SGD over parameter groups: `v ← momentum·v + g + weight_decay·p`, `p ← p − lr·v` (torch's form).

    Args:
        groups: of `make_groups`.
        lr: for groups that have none of their own.
        momentum: 0.9 in torchvision's reference for ResNet-50.
        nesterov: step along `g + momentum·v` instead of v.
    """
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=0.0, fused=True)
