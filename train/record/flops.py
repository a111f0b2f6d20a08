"""How much of the hardware's arithmetic a training uses (model FLOPs utilisation, MFU)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from train.data.batch import Batch
from train.step import Trained, evaluation

# Dense bfloat16 peaks as the makers state them, in FLOP/s. The first name that occurs in the device's name counts.
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "GH200": 989e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12, "V100": 125e12,
}  # fmt: skip
_SIDE, _TRIES = 1024, 5  # of the matrices whose product measures a device that is not listed
_COUNTED = 2  # samples whose forward pass is counted


def flops_per_sample(trained: Trained, batch: Batch) -> float:
    """Return the FLOPs of training on one sample: three times those of its forward pass (the backward pass costs two).

    Recomputation for gradient checkpointing or accumulation is not counted, as is usual for MFU.
    """
    from torch.utils.flop_counter import FlopCounterMode

    rows = slice(0, min(_COUNTED, len(batch)))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), evaluation(trained), _counted_attention(), counter:
        views = [view[rows] for view in trained.views(batch)]
        trained(views, batch.part(rows), None)
    return 3.0 * counter.get_total_flops() / (rows.stop - rows.start)


@contextlib.contextmanager
def _counted_attention() -> Iterator[None]:
    """Compute attention by plain products: the counter knows neither its fused kernels on a CPU nor that for inference.

    With them 38% of a small ViT's FLOPs would be missing.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def peak_flops(device: torch.device, precision: str) -> float:
    """Return the FLOP/s that a device can reach: the maker's figure where it is known, else that of a matrix product."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peak in PEAKS.items():
            if part in name:
                return peak if precision != "fp32" else peak / 2
    return _measured(device, torch.float32 if precision == "fp32" else torch.bfloat16)


def _measured(device: torch.device, dtype: Any) -> float:
    matrix = torch.ones((_SIDE, _SIDE), device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_TRIES):
        start = time.perf_counter()
        product = matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        del product
    return 2.0 * _SIDE**3 / best
