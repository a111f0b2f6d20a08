"""AdamW with open_clip's choice of what is not decayed."""

from __future__ import annotations

import torch
from torch import nn

NEVER_DECAYED = ("bn", "ln", "bias", "logit_scale")


def adamw(model: nn.Module, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over a model's parameters: two groups, the first without weight decay.

    As in open_clip 3.3, a parameter is not decayed if it has fewer than two dimensions, or `bn`, `ln`, `bias` or
    `logit_scale` in its name.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if not decays(name, p)], "weight_decay": 0.0},
        {"params": [p for name, p in trained if decays(name, p)], "weight_decay": weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Return whether weight decay applies to a parameter."""
    return parameter.ndim >= 2 and not any(part in name for part in NEVER_DECAYED)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give all groups this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
