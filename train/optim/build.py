"""An optimiser by its name."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from shards.core.errors import UsageError, closest
from train.optim.adamw import make_adamw
from train.optim.lars import make_lars
from train.optim.sgd import make_sgd

Name = Literal["adamw", "sgd", "lars"]


def build(
    name: str,
    groups: list[dict[str, Any]],
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust: float = 0.001,
) -> torch.optim.Optimizer:
    """Return an optimiser over parameter groups.

    Args:
        name: `adamw`, `sgd` or `lars`.
        groups: of `make_groups`.
        lr: base learning rate, for groups that have none of their own.
        betas: AdamW's.
        eps: AdamW's.
        momentum: SGD's and LARS's.
        nesterov: SGD's and LARS's.
        trust: LARS's.

    Raises:
        UsageError: an unknown name, or groups that LARS cannot take.
    """
    if name == "adamw":
        return make_adamw(groups, lr=lr, betas=betas, eps=eps)
    if name == "sgd":
        return make_sgd(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    if name == "lars":
        return make_lars(groups, lr=lr, momentum=momentum, nesterov=nesterov, trust=trust)
    known = get_args(Name)
    raise UsageError(f"unknown optimizer {name!r}", ", ".join(known), closest(name, known))
