"""The learning rate against open_clip's own schedule and its closed form."""

from __future__ import annotations

import pytest

from shards.core.errors import UsageError
from train.schedule import check_warmup, warmup_cosine


class Optimizer:
    """What open_clip's schedule writes to."""

    def __init__(self) -> None:
        self.param_groups = [{"lr": 0.0}]


@pytest.mark.parametrize(("base", "warmup", "steps"), [(1e-3, 0, 10), (5e-4, 3, 17), (1.0, 500, 2000), (0.1, 1, 2)])
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


@pytest.mark.parametrize(("warmup", "steps"), [(10, 10), (11, 10), (1, 1), (5, 0)])
def test_warmup_longer_than_training_is_refused(warmup: int, steps: int) -> None:
    with pytest.raises(UsageError, match=f"warm-up of {warmup}"):
        check_warmup(warmup, steps)
    check_warmup(9, 10)
