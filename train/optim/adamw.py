"""AdamW, fused."""

from __future__ import annotations

from typing import Any

import torch


def make_adamw(groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) over parameter groups, in one fused kernel on a CPU as on a GPU.

    Args:
        groups: of `make_groups`.
        lr: for groups that have none of their own.
        betas: (0.9, 0.999) for ResNets, (0.9, 0.98) for ViTs in open_clip.
        eps: 1e-8 for ResNets, 1e-6 for ViTs in open_clip.
    """
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=0.0, fused=True)
