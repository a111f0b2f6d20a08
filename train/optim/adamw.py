"""AdamW, fused, with open_clip's choice of what is not decayed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from train.optim.groups import decays, set_lr

__all__ = ["adamw", "decays", "make_adamw", "set_lr"]


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
    return make_adamw(groups, lr=lr, betas=betas, eps=eps)


def make_adamw(groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) over parameter groups, in one fused kernel on a CPU as on a GPU.

    Args:
        groups: of `make_groups`.
        lr: for groups that have none of their own.
        betas: (0.9, 0.999) for ResNets, (0.9, 0.98) for ViTs in open_clip.
        eps: 1e-8 for ResNets, 1e-6 for ViTs in open_clip.
    """
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=0.0, fused=True)
