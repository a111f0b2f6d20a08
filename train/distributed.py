"""Several processes, started by torchrun: who am I, gather with gradients, means over ranks.

Without torchrun's environment everything here is that of a world of one.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import os
import re
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from shards.core.errors import UsageError

# How long a process waits for the others. They wait while the first one evaluates; NCCL's own limit is 10 minutes.
PATIENCE = datetime.timedelta(hours=12)


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if _several() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if _several() else 1


def local_world_size() -> int:
    """Return how many processes of torchrun share this machine; 1 without torchrun."""
    return max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextlib.contextmanager
def session(device: str) -> Iterator[torch.device]:
    """Join torchrun's group, if there is one and the process is not in it already, and yield this process's device.

    Args:
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`. Several processes take one GPU each.

    Raises:
        UsageError: no such device, or one GPU for several processes.
    """
    joins = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _several()
    chosen = _device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if joins:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield chosen
    finally:
        if joins:
            dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"device {name!r}", "auto, cpu, cuda, cuda:N")
    if ":" in name and local_world_size() > 1:
        raise UsageError(
            f"device {name!r} for each of {local_world_size()} processes", "cuda: one GPU each", "CUDA_VISIBLE_DEVICES says which"
        )
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name!r}: no CUDA device here", "auto, cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


def wrap(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module with gradients averaged over ranks; itself in a world of one.

    Buffers are each rank's own: running statistics are averaged when they are saved, and FastCLIP's table is the same on all.
    """
    if world_size() == 1:
        return module
    devices = [device.index] if device.type == "cuda" else None
    parallel = nn.parallel.DistributedDataParallel
    # torch 2.15 has another name for it, and warns of the old one.
    newer = "forward_sync_buffers" in inspect.signature(parallel).parameters
    own_buffers: dict[str, Any] = {"forward_sync_buffers": False} if newer else {"broadcast_buffers": False}
    return parallel(module, device_ids=devices, **own_buffers)


def average_gradients(module: nn.Module) -> None:
    """Average gradients over ranks, where no DDP has done it."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))


def barrier_any(flag: bool, device: torch.device) -> bool:
    """Return whether any rank raised a flag: all ranks take the same decision."""
    if world_size() == 1:
        return flag
    raised = torch.tensor([float(flag)], device=device)
    dist.all_reduce(raised)
    return bool(raised.item() > 0)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ours = rows.contiguous()  # and so are the parts: `empty_like` keeps the strides of a transposed tensor
        parts = [torch.empty_like(ours) for _ in range(world_size())]
        dist.all_gather(parts, ours)
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
