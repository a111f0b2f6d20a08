"""Several processes, started by torchrun: who am I, gather with gradients, means over ranks.

Without torchrun's environment everything here is that of a world of one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from shards.core.errors import UsageError


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if _several() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if _several() else 1


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextlib.contextmanager
def session(device: str) -> Iterator[torch.device]:
    """Join torchrun's group, if there is one, and yield this process's device.

    Args:
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`. Several processes take one GPU each.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    chosen = _device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if several:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        if several:
            dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name!r}: no CUDA device here", "auto, cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


def wrap(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module with gradients averaged over ranks; itself in a world of one."""
    if world_size() == 1:
        return module
    return nn.parallel.DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        # Every rank's loss looked at these rows, so their gradient is the sum over ranks.
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all ranks, in rank order, differentiably: (n, d) becomes (n·W, d)."""
    return _Gather.apply(rows) if world_size() > 1 else rows


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean over ranks of a tensor of numbers, without gradient."""
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's value, in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
