"""How much of the hardware's arithmetic a training uses (model FLOPs utilisation, MFU)."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from train.data.augment.params import AugmentParams
from train.data.batch import Batch, View
from train.models.ema import Ema
from train.step import Trained, evaluation


class Peak(NamedTuple):
    """FLOP/s of a GPU: dense products of 16-bit numbers (bfloat16; float16 for V100), and float32 outside tensor cores."""

    half: float
    single: float


# As the makers' data sheets state them, without sparsity. A key's words have to stand in the device's name one after the other;
# of several such keys the longest counts. In fp32 torch leaves TF32 off for matrix products, and V100 has none.
PEAKS = {
    "B200": Peak(2250e12, 75e12), "H200": Peak(989e12, 67e12), "H200 NVL": Peak(835e12, 60e12), "GH200": Peak(989e12, 67e12),
    "H100": Peak(989e12, 67e12), "H100 NVL": Peak(835e12, 60e12), "H100 PCIe": Peak(756e12, 51e12), "A100": Peak(312e12, 19.5e12),
    "L40S": Peak(362e12, 91.6e12), "L40": Peak(181e12, 90.5e12), "L4": Peak(121e12, 30.3e12), "A10": Peak(125e12, 31.2e12),
    "A10G": Peak(70e12, 31.5e12), "RTX 4090": Peak(165e12, 82.6e12), "RTX 3090": Peak(71e12, 35.6e12),
    "V100": Peak(125e12, 15.7e12),
}  # fmt: skip
OTHER_CARDS = ("Laptop", "Max", "MIG", "D", "Ti")  # words that make another, or a part, of the card that is listed
_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product measures a device; a GPU is idle half the time with 1,024
_TRIES = 5
_COUNTED = 2  # samples whose forward pass is counted


def flops_per_sample(trained: Trained, batch: Batch) -> float:
    """Return the FLOPs of training on one sample: three times those of its forward pass (the backward pass costs two).

    A teacher that is an average of the weights has no backward pass and counts once. Texts count at the length that the batch's
    longest one has them padded to. Recomputation for gradient checkpointing or accumulation is not counted, as is usual for MFU.
    """
    ready = trained.on_host(batch)
    # Groups of texts of like length are those of the whole batch.
    counted = len(ready) if getattr(trained.config, "text_groups", 1) > 1 else _COUNTED
    few = _first_rows(ready, counted)
    views = trained.views(few)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), evaluation(trained), _counted_attention(), counter, _teachers_counted(trained, counter) as teachers:
        trained(views, few, None)
    total = counter.get_total_flops()
    return (3.0 * (total - sum(teachers)) + sum(teachers)) / len(few)


@contextlib.contextmanager
def _teachers_counted(trained: Trained, counter: FlopCounterMode) -> Iterator[list[int]]:
    """Yield a list that gets the FLOPs of each forward pass of an average of weights."""
    passes: list[int] = []
    starts: list[int] = []

    def begin(module: nn.Module, inputs: Any) -> None:
        starts.append(counter.get_total_flops())

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        passes.append(counter.get_total_flops() - starts.pop())

    with contextlib.ExitStack() as hooks:
        for teacher in trained.modules():
            if isinstance(teacher, Ema):
                hooks.callback(teacher.register_forward_pre_hook(begin).remove)
                hooks.callback(teacher.register_forward_hook(end).remove)
        yield passes


def _first_rows(batch: Batch, n: int) -> Batch:
    """Return the batch of its first n samples, pixels included."""
    rows = slice(0, n)
    views = tuple(View(view.images[rows], _of_rows(view.params, rows), view.windows[rows]) for view in batch.views)
    return dataclasses.replace(batch.part(rows), views=views)


def _of_rows(params: AugmentParams, rows: slice) -> AugmentParams:
    arrays = {field.name: getattr(params, field.name)[rows] for field in dataclasses.fields(params)}
    return AugmentParams(**arrays)


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
    """Return the FLOP/s that a device can reach: the maker's figure where it is known, else that of a matrix product.

    With fp32 on a GPU from Ampere on, cuDNN's convolutions use TF32 unless torch is told otherwise, and may exceed it.
    """
    if device.type == "cuda":
        peak = stated_peak(torch.cuda.get_device_name(device))
        if peak is not None:
            return peak.single if precision == "fp32" else peak.half
    types = [torch.float32] if precision == "fp32" else [torch.float32, torch.bfloat16]
    # Of both types, since a processor without instructions for bfloat16 multiplies it more slowly than float32.
    return max(_measured(device, dtype) for dtype in types)


def stated_peak(name: str) -> Peak | None:
    """Return the peaks of a GPU by its name, such as `NVIDIA H100 80GB HBM3`; None where it is not listed."""
    words = re.findall(r"\w+", name)
    if any(word in words for word in OTHER_CARDS):
        return None
    text = f" {' '.join(words)} "
    keys = [key for key in PEAKS if f" {key} " in text]
    return PEAKS[max(keys, key=len)] if keys else None


def _measured(device: torch.device, dtype: Any) -> float:
    side = _SIDE.get(device.type, _SIDE["cpu"])
    matrix = torch.ones((side, side), device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_TRIES):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        product = matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        del product
    return 2.0 * side**3 / best
