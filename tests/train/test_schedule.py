"""Learning rates against open_clip's own schedules, SLIP's array, torch's StepLR and closed forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from shards.core.errors import UsageError
from train.optim.schedules import (
    check_warmup,
    constant,
    constant_cooldown,
    learning_rate,
    slip_cosine,
    stepped,
    warmup_cosine,
)

PLANS = [(1e-3, 0, 10), (5e-4, 3, 17), (1.0, 500, 2000), (0.1, 1, 2)]


class Optimizer:
    """What open_clip's schedule writes to."""

    def __init__(self) -> None:
        self.param_groups = [{"lr": 0.0}]


@pytest.mark.parametrize(("base", "warmup", "steps"), PLANS)
def test_every_step_equals_open_clips(base: float, warmup: int, steps: int) -> None:
    from open_clip_train.scheduler import cosine_lr

    theirs = cosine_lr(Optimizer(), base, warmup, steps)
    assert [warmup_cosine(s, base, warmup, steps) for s in range(steps)] == [theirs(s) for s in range(steps)]


def test_landmarks() -> None:
    at = [warmup_cosine(s, 2.0, 4, 12) for s in range(12)]
    assert at[:4] == [0.5, 1.0, 1.5, 2.0]
    assert at[4] == 2.0
    assert at[8] == pytest.approx(1.0)
    assert 0 < at[11] < 0.1


def test_a_cosine_with_a_floor_is_torchs() -> None:
    warmup, steps, base, floor = 5, 40, 2e-4, 4e-5
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=base)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup, eta_min=floor)
    for step in range(warmup, steps):
        assert warmup_cosine(step, base, warmup, steps, floor) == pytest.approx(torchs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        torchs.step()


@pytest.mark.parametrize(("base", "warmup", "steps"), PLANS)
def test_a_constant_rate_equals_open_clips(base: float, warmup: int, steps: int) -> None:
    from open_clip_train.scheduler import const_lr

    theirs = const_lr(Optimizer(), base, warmup, steps)
    assert [constant(s, base, warmup) for s in range(steps)] == [theirs(s) for s in range(steps)]


@pytest.mark.parametrize(("warmup", "cooldown", "power", "floor"), [(0, 20, 1.0, 0.0), (5, 7, 1.0, 1e-5), (3, 10, 2.0, 1e-6)])
def test_a_cooldown_equals_open_clips(warmup: int, cooldown: int, power: float, floor: float) -> None:
    from open_clip_train.scheduler import const_lr_cooldown

    steps, base = 20, 3e-4
    theirs = const_lr_cooldown(Optimizer(), base, warmup, steps, cooldown, power, floor)
    ours = [constant_cooldown(s, base, warmup, steps, cooldown, power=power, floor=floor) for s in range(steps)]
    assert ours == pytest.approx([theirs(s) for s in range(steps)], rel=1e-12)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 12), (1, 12), (2, 12), (25, 400)])
def test_slips_rate_equals_its_array(warmup: int, steps: int) -> None:
    base, floor, start = 3e-3, 1e-5, 1e-6
    warm = np.linspace(start, base, warmup)
    after = np.arange(steps - warmup)
    array = np.concatenate([warm, floor + 0.5 * (base - floor) * (1 + np.cos(np.pi * after / len(after)))])
    assert [slip_cosine(s, base, warmup, steps) for s in range(steps)] == pytest.approx(array.tolist(), rel=1e-12)


def test_steps_equal_torchs() -> None:
    base, warmup, steps, every = 0.1, 4, 40, 9
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=base)
    torchs = torch.optim.lr_scheduler.StepLR(optimizer, every, gamma=0.1)
    assert [stepped(s, base, warmup, every) for s in range(warmup)] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    for step in range(warmup, steps):
        assert stepped(step, base, warmup, every) == pytest.approx(torchs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        torchs.step()


BY_NAME: dict[str, Callable[[int], float]] = {
    "cosine": lambda s: warmup_cosine(s, 2.0, 4, 30),
    "slip_cosine": lambda s: slip_cosine(s, 2.0, 4, 30, 1e-5),
    "constant": lambda s: constant(s, 2.0, 4),
    "constant_cooldown": lambda s: constant_cooldown(s, 2.0, 4, 30, 8),
    "step": lambda s: stepped(s, 2.0, 4, 8, 0.5),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_name_finds_its_schedule(name: str) -> None:
    rates = [learning_rate(name, s, 2.0, 4, 30, cooldown=8, every=8, factor=0.5) for s in range(30)]
    assert rates == [BY_NAME[name](s) for s in range(30)]
    others = [[BY_NAME[other](s) for s in range(30)] for other in BY_NAME if other != name]
    assert rates not in others


def test_a_floor_reaches_the_schedule() -> None:
    assert learning_rate("cosine", 30, 2.0, 4, 30, floor=0.5) == 0.5
    assert learning_rate("slip_cosine", 30, 2.0, 4, 30, floor=0.0) == 0.0
    assert learning_rate("constant_cooldown", 30, 2.0, 4, 30, floor=0.5, cooldown=8) == 0.5


@pytest.mark.parametrize(("warmup", "steps"), [(10, 10), (11, 10), (1, 1), (5, 0)])
def test_warmup_longer_than_training_is_refused(warmup: int, steps: int) -> None:
    with pytest.raises(UsageError, match=f"warm-up of {warmup}"):
        check_warmup(warmup, steps)
    check_warmup(9, 10)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown schedule 'cosin'") as error:
        learning_rate("cosin", 0, 1.0, 0, 10)
    assert "did you mean 'cosine'?" in str(error.value)
    with pytest.raises(UsageError, match="a cooldown of 0 steps"):
        learning_rate("constant_cooldown", 0, 1.0, 0, 10)
    with pytest.raises(UsageError, match="a cooldown of 8 steps"):
        constant_cooldown(0, 1.0, 3, 10, 8)
    with pytest.raises(UsageError, match="falls every 0 steps"):
        learning_rate("step", 0, 1.0, 0, 10)
