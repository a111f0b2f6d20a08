"""LARS for large batches of SimCLR and BYOL: timm's, with biases and norms left out of adaptation and decay."""

from __future__ import annotations

from typing import Any

import torch

from shards.core.errors import UsageError


def make_lars(
    groups: list[dict[str, Any]], *, lr: float, momentum: float = 0.9, nesterov: bool = False, trust: float = 0.001
) -> torch.optim.Optimizer:
    """Return LARS over parameter groups (You et al. 2017; timm's `Lars`, whose loops are torch's `_foreach` kernels).

    In a group with `adapt`, `g ← trust·‖p‖ / (‖g‖ + weight_decay·‖p‖ + 1e-8) · (g + weight_decay·p)` for each parameter,
    where both norms are above 0; then SGD with momentum. A group without `adapt` (biases and norms, as SimCLR and BYOL
    want it) takes plain SGD steps without decay. The learning rate stands outside the momentum, as in torch and BYOL;
    SimCLR's TensorFlow code has it inside, which differs where the rate changes from step to step.

    Args:
        groups: of `make_groups`.
        lr: for groups that have none of their own. SimCLR: 0.3·batch/256; BYOL: 0.2·batch/256.
        momentum: 0.9.
        nesterov: step along `g + momentum·v` instead of v.
        trust: 0.001 in SimCLR and BYOL.

    Raises:
        UsageError: a group that is to be decayed but not adapted, which LARS's update does not have.
    """
    from timm.optim.lars import Lars

    for group in groups:
        if not group["adapt"] and group["weight_decay"] > 0:
            raise UsageError(f"LARS with weight decay on biases and norms ({group['name']})", "the weight-decay rules open_clip and ndim")
    # timm adapts a group that is decayed or has always_adapt.
    adapted = [group | {"always_adapt": group["adapt"]} for group in groups]
    return Lars(adapted, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=0.0, trust_coeff=trust)
