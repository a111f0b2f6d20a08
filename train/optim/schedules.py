"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math
from typing import Literal, get_args

from shards.core.errors import UsageError, closest

Schedule = Literal["cosine", "slip_cosine", "constant", "constant_cooldown", "step"]
SLIP_FLOOR = 1e-5  # SLIP's --lr-end
SLIP_START = 1e-6  # SLIP's --lr-start


def learning_rate(
    name: str,
    step: int,
    base: float,
    warmup: int,
    steps: int,
    *,
    floor: float | None = None,
    cooldown: int = 0,
    every: int = 0,
    factor: float = 0.1,
) -> float:
    """Return the learning rate of a step by the name of a schedule.

    Args:
        name: `cosine`, `slip_cosine`, `constant`, `constant_cooldown` or `step`.
        step: from 0.
        base: the peak.
        warmup: steps of linear warm-up.
        steps: of the whole training.
        floor: where `cosine`, `slip_cosine` and `constant_cooldown` end; by default 0, and 1e-5 for `slip_cosine`.
        cooldown: the last steps, in which `constant_cooldown` falls.
        every: steps between two falls of `step`.
        factor: of each fall of `step`.

    Raises:
        UsageError: an unknown name, or no cooldown or `every` where it is needed.
    """
    if name == "cosine":
        return warmup_cosine(step, base, warmup, steps, floor or 0.0)
    if name == "slip_cosine":
        return slip_cosine(step, base, warmup, steps, SLIP_FLOOR if floor is None else floor)
    if name == "constant":
        return constant(step, base, warmup)
    if name == "constant_cooldown":
        return constant_cooldown(step, base, warmup, steps, cooldown, floor=floor or 0.0)
    if name == "step":
        return stepped(step, base, warmup, every, factor)
    known = get_args(Schedule)
    raise UsageError(f"unknown schedule {name!r}", ", ".join(known), closest(name, known))


def warmup_cosine(step: int, base: float, warmup: int, steps: int, floor: float = 0.0) -> float:
    """Return the learning rate of a step (open_clip's `cosine_lr`, which wise-ft and CLIP_benchmark share).

    `base·(s+1)/w` for s < w, then `(base − floor)·(1 + cos(π·(s−w)/(T−w)))/2 + floor`. A floor above 0 is FastCLIP's
    `--lr_min`.

    Args:
        step: s, from 0.
        base: the peak.
        warmup: w, in steps.
        steps: T, the steps of the whole training.
        floor: the end.
    """
    if step < warmup:
        return base * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) * (base - floor) + floor


def slip_cosine(step: int, base: float, warmup: int, steps: int, floor: float = SLIP_FLOOR, start: float = SLIP_START) -> float:
    """Return the learning rate of a step in SLIP's `cosine_scheduler`.

    The warm-up is `linspace(start, base, w)`, whose last step has the base already, as the first of the cosine has:
    `floor + (base − floor)·(1 + cos(π·(s−w)/(T−w)))/2`. A warm-up of one step has `start`.

    Args:
        step: s, from 0.
        base: the peak.
        warmup: w, in steps.
        steps: T, the steps of the whole training.
        floor: the end; 1e-5 in SLIP.
        start: the first step's rate; 1e-6 in SLIP.
    """
    if step < warmup:
        return start + (base - start) * step / max(1, warmup - 1)
    return floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def constant(step: int, base: float, warmup: int) -> float:
    """Return `base·(s+1)/w` for s < w, then the base (open_clip's `const_lr`)."""
    return base * (step + 1) / warmup if step < warmup else base


def constant_cooldown(step: int, base: float, warmup: int, steps: int, cooldown: int, *, power: float = 1.0, floor: float = 0.0) -> float:
    """Return the learning rate of a step in open_clip's `const_lr_cooldown`.

    Warm-up and base as in `constant`; in the last C steps `(1 − (s−T+C)/C)^power·(base − floor) + floor`.

    Args:
        step: s, from 0.
        base: the peak.
        warmup: in steps.
        steps: T, the steps of the whole training.
        cooldown: C, in steps.
        power: 1 falls in a line.
        floor: the end.

    Raises:
        UsageError: a cooldown that does not fit between warm-up and end.
    """
    if not 0 < cooldown <= steps - warmup:
        raise UsageError(f"a cooldown of {cooldown:,} steps after a warm-up of {warmup:,} in {steps:,}", f"1 to {steps - warmup:,}")
    begin = steps - cooldown
    if step < max(begin, warmup):
        return constant(step, base, warmup)
    return (1 - (step - begin) / cooldown) ** power * (base - floor) + floor


def stepped(step: int, base: float, warmup: int, every: int, factor: float = 0.1) -> float:
    """Return the base, times a factor each time `every` steps have passed since the warm-up (torch's `StepLR`).

    torchvision's reference for ResNet-50 multiplies by 0.1 every 30 epochs. The warm-up is open_clip's.

    Args:
        step: from 0.
        base: the peak.
        warmup: in steps.
        every: steps between two falls.
        factor: of each fall.

    Raises:
        UsageError: `every` below 1.
    """
    if every < 1:
        raise UsageError(f"a learning rate that falls every {every} steps", "1 or more")
    if step < warmup:
        return constant(step, base, warmup)
    return base * factor ** ((step - warmup) // every)


def check_warmup(warmup: int, steps: int) -> None:
    """Refuse a warm-up that would not end before training does.

    Raises:
        UsageError: it is as long as training or longer.
    """
    if warmup >= steps:
        raise UsageError(f"a warm-up of {warmup:,} steps in a training of {steps:,}", f"warmup < {steps:,}", "--warmup N, or train longer")
