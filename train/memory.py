"""Whether a batch can be held at all: what it needs at the least against what the machine has, before anything is allocated.

A training that needs more is not told so by the system: Linux hands out pages that it does not have, and kills the process
once they are written to.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shards.core.errors import UsageError
from train.data.feed import HELD, SLOTS
from train.plan import in_bytes

if TYPE_CHECKING:
    import torch

# Limits of a control group, as containers have them: version 2, then version 1.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Needed:
    """The bytes of one process that nothing can spare.

    Attributes:
        ring: of the loader's batches, as bytes of pixels; in the host's memory.
        images: of one batch (of one part, with --accum) as floating-point numbers, which is the least that activations take.
    """

    ring: int
    images: int


def needed(batch: int, image_size: int, *, views: int = 1, accum: int = 1, on_gpu: bool = False, number_bytes: int = 4) -> Needed:
    """Return what a process needs at the least.

    Args:
        batch: n, its samples of a step.
        image_size: S, the side of the crops, in pixels.
        views: crops of each sample.
        accum: parts in which a step's gradient is made.
        on_gpu: the loader then holds one batch more.
        number_bytes: of one number of an image: 4, or 2 with bf16 and amp.

    `ring` is slots · n · views · 3 · S² bytes, `images` is n / accum · views · 3 · S² · number_bytes.
    """
    pixels = batch * views * 3 * image_size**2
    return Needed((SLOTS + (HELD if on_gpu else 0)) * pixels, pixels // accum * number_bytes)


def memory_of_machine() -> int:
    """Return the bytes of memory that processes here may have in all: the machine's, or fewer where a control group sets a limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such group, or `max`: no limit
            total = min(total, int(Path(path).read_text()))
    return total


def check_memory(
    batch: int, image_size: int, device: torch.device, *, views: int = 1, accum: int = 1, precision: str = "fp32", processes: int = 1
) -> None:
    """Refuse a batch that neither the machine nor its GPU can hold.

    Args:
        batch, image_size, views, accum: as in `needed`.
        processes: of this training on this machine; each has a loader of its own.

    Raises:
        UsageError: naming what is needed at the least, and what there is.
    """
    on_gpu = device.type == "cuda"
    least = needed(batch, image_size, views=views, accum=accum, on_gpu=on_gpu, number_bytes=4 if precision == "fp32" else 2)
    what = f"{batch:,} samples of {image_size:,} px" + (f" in {views} views" if views > 1 else "")
    each = f" in each of {processes} processes" if processes > 1 else ""
    advice = "a smaller --batch-size or --image-size"
    on_host = processes * (least.ring + (0 if on_gpu else least.images))
    there = memory_of_machine()
    if on_host > there:
        parts = f"{in_bytes(processes * least.ring)} for the batches that the loader holds"
        parts += "" if on_gpu else f", {in_bytes(processes * least.images)} for the images as numbers"
        found = f"batches of {what}{each}: at least {in_bytes(on_host)} of memory ({parts})"
        raise UsageError(found, f"{in_bytes(there)}: what this machine has", advice)
    if on_gpu:
        import torch

        on_device = torch.cuda.get_device_properties(device).total_memory
        if least.images > on_device:
            found = f"batches of {what}{each}: at least {in_bytes(least.images)} of the GPU's memory for the images as numbers"
            raise UsageError(found, f"{in_bytes(on_device)}: what the GPU has", f"{advice}, or a larger --accum")
