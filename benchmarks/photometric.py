"""From uint8 crops to normalised batches on a CPU: ours, what it was before, torchvision image by image, and kornia.

A batch of 64 crops of 224 pixels, synthetic photos, with the parameters of one preset. `openclip` only normalises; `simclr` has
flip, jitter, gray and blur. Ours gives float32 and bfloat16. torchvision applies the same parameters with its v2 functionals,
to floats, an image at a time; kornia draws its own. All run in turns in one process, with 1 and with 2 threads of torch;
ratios are medians over the rounds. What ours gives must equal torchvision's within 1e-4. kornia is fetched into a folder of
its own, without its dependencies; without it the rest is measured.

    python benchmarks/photometric.py [--rounds 7] [--batch 64] [--side 224]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torchvision.transforms.v2.functional as tv
from _record import record

from train.data.augment import photometric, presets
from train.data.augment.params import Augment, AugmentParams, parameters, uniforms_of_batch

PRESETS = ("openclip", "simclr")
THREADS = (1, 2)
NEUTRAL = (1, 1, 1, 0)
Work = Callable[[], torch.Tensor]


def main() -> None:
    """Time all, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=224)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "kornia", "kornia_rs"]
        with_kornia = subprocess.run(install, check=False, capture_output=True).returncode == 0
        sys.path.append(folder)
        values: dict[str, Any] = {"batch": arguments.batch, "side": arguments.side, "rounds": arguments.rounds, "kornia": with_kornia}
        for name in PRESETS:
            images = photos(arguments.batch, arguments.side)
            contestants = works(presets.preset(name), images, with_kornia)
            check(contestants)
            for threads in THREADS:
                torch.set_num_threads(threads)
                # Others on the machine slow threads that wait for each other most: above `threads`, ratios are flattered.
                values[f"load before {name}, {threads} threads"] = os.getloadavg()[0]
                values[f"{name}, {threads} threads"] = timed(contestants, arguments.rounds, arguments.batch)
    record("photometric", values, line(values))


def photos(n: int, side: int) -> torch.Tensor:
    """Return smooth images with a little noise, channels-last as the loader gives them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((n, 3, 14, 14), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    noisy = smooth + 0.03 * torch.randn(smooth.shape, generator=generator)
    return noisy.mul(255).clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def works(augment: Augment, images: torch.Tensor, with_kornia: bool) -> dict[str, Work]:
    """Return what is timed: functions without arguments that make one batch."""
    n = len(images)
    params = parameters(augment, uniforms_of_batch(0, [0] * n, [f"sample {i}" for i in range(n)]))
    ours, half = photometric.Photometric(augment), photometric.Photometric(augment, torch.bfloat16)
    known: dict[str, Work] = {
        "ours": lambda: ours(images, params),
        "ours, bfloat16": lambda: half(images, params),
        "before": lambda: before(augment, images, params),
        "torchvision": lambda: by_torchvision(augment, images, params),
    }
    return known | ({"kornia": by_kornia(augment, images)} if with_kornia else {})


def before(augment: Augment, images: torch.Tensor, params: AugmentParams) -> torch.Tensor:
    """Make a batch as it was made until 2026-11: the same operations in torch, each on new memory."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (augment.mean, augment.std))
    x = images.to(torch.float32) / 255

    def put(mask: Any, operation: Callable[..., torch.Tensor], *facts: Any) -> torch.Tensor:
        rows = torch.from_numpy(mask.nonzero()[0])
        return x.index_copy(0, rows, operation(x[rows], *(torch.from_numpy(fact[mask]) for fact in facts))) if len(rows) else x

    x = put(params.flip, lambda some: some.flip(-1))
    operations = (photometric.brightness, photometric.contrast, photometric.saturation, photometric.hue)
    for turn in range(4):
        for which, operation in enumerate(operations):
            chosen = (params.order[:, turn] == which) & (params.factors[:, which] != NEUTRAL[which])
            x = put(chosen, lambda some, factor, operation=operation: operation(some, factor.view(-1, 1, 1, 1)), params.factors[:, which])
    x = put(params.gray, lambda some: photometric.luma(some).expand(-1, 3, -1, -1))
    x = put(params.sigma > 0, photometric.blur, params.sigma)
    return (x - mean) / std


def by_torchvision(augment: Augment, images: torch.Tensor, params: AugmentParams) -> torch.Tensor:
    """Make a batch image by image with torchvision's functionals."""
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    side = max(int(0.1 * images.shape[-1]) | 1, 3)
    made = []
    for i in range(len(images)):
        x = tv.to_dtype(images[i], torch.float32, scale=True)
        x = tv.horizontal_flip(x) if params.flip[i] else x
        for which in params.order[i]:
            factor = float(params.factors[i, which])
            x = x if factor == NEUTRAL[which] else adjust[which](x, factor)
        x = tv.rgb_to_grayscale(x, 3) if params.gray[i] else x
        sigma = float(params.sigma[i])
        x = tv.gaussian_blur(x, [side, side], [sigma, sigma]) if sigma > 0 else x
        made.append(tv.normalize(x, list(augment.mean), list(augment.std)))
    return torch.stack(made)


def by_kornia(augment: Augment, images: torch.Tensor) -> Work:
    """Return the function that makes a batch with kornia's batched augmentations, which draw anew each time."""
    import kornia.augmentation as K  # type: ignore[import-not-found]

    steps: list[torch.nn.Module] = []
    if augment.flip:
        steps.append(K.RandomHorizontalFlip(p=augment.flip))
    if augment.color_jitter:
        steps.append(K.ColorJitter(*augment.color_jitter, p=augment.color_jitter_p))
        steps.append(K.RandomGrayscale(p=augment.gray))
        side = max(int(0.1 * images.shape[-1]) | 1, 3)
        steps.append(K.RandomGaussianBlur((side, side), augment.blur_sigma, p=augment.blur))
    steps.append(K.Normalize(torch.tensor(augment.mean), torch.tensor(augment.std)))
    chain = torch.nn.Sequential(*steps)
    return lambda: chain(images.to(torch.float32) / 255)


def check(contestants: dict[str, Work]) -> None:
    """Compile, and stop unless all that apply the same parameters give the same batch."""
    expected = contestants["torchvision"]()
    for name in ("ours", "before"):
        apart = (contestants[name]() - expected).abs().max()
        assert apart < 1e-4, (name, apart)
    assert torch.equal(contestants["ours, bfloat16"](), contestants["ours"]().to(torch.bfloat16))


def timed(contestants: dict[str, Work], rounds: int, batch: int) -> dict[str, Any]:
    """Run all in turns; return microseconds a sample, by the wall and of processors, and how many times faster ours is."""
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, work in contestants.items():
            started, started_cpu = time.perf_counter(), time.process_time()
            work()
            if number:  # the first round warms up
                wall[name].append((time.perf_counter() - started) / batch * 1e6)
                cpu[name].append((time.process_time() - started_cpu) / batch * 1e6)
    ratios = {name: [theirs / mine for theirs, mine in zip(wall[name], wall["ours"], strict=True)] for name in contestants}
    return {
        "us": {name: round(statistics.median(times)) for name, times in wall.items()},
        "cpu_us": {name: round(statistics.median(times)) for name, times in cpu.items()},
        "ratio": {name: round(statistics.median(values), 2) for name, values in ratios.items()},
    }


def line(values: dict[str, Any]) -> str:
    """Return the line of RESULTS.md."""
    parts = []
    for name in PRESETS:
        for threads in THREADS:
            one = values[f"{name}, {threads} threads"]
            peers = [f"{one['ratio'][peer]:.1f}× {peer}" for peer in ("before", "torchvision", "kornia") if peer in one["us"]]
            parts.append(
                f"{name}, {threads} thread{'s' * (threads > 1)}: {one['us']['ours']} µs a sample to float32, "
                f"{one['us']['ours, bfloat16']} to bfloat16; {', '.join(peers)} ({one['us']['before']:,} µs before)"
            )
    return f"uint8 crops of {values['side']} px to normalised batches of {values['batch']}, on a CPU: {'; '.join(parts)}"


if __name__ == "__main__":
    main()
