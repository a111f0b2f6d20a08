"""Evaluation during training, by entry points: train never imports what evaluates.

An entry point of the group `provender.train.evaluators` names a function

    evaluate(loaded, data: list[str], device: str) -> dict[str, float]

whose first number decides which checkpoint is the best one. Its module may have

    check(protocol: str, path: str) -> None

which refuses a set that the protocol cannot evaluate. It is called for each set before the first step.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from shards.core.console import say
from shards.core.errors import UsageError, closest
from train import checkpoint, distributed
from train.models import norm

if TYPE_CHECKING:
    from train.record.log import RunLog
    from train.run import Run

GROUP = "provender.train.evaluators"
Evaluate = Callable[[int, "RunLog"], bool]


def during_training(made: Run) -> Evaluate | None:
    """Open the sets and return what to call after steps at which an evaluation is due: it tells whether the model is the best so far.

    Returns:
        None if no data were named.

    Raises:
        UsageError: no such evaluator, or a set that it cannot use.
    """
    config = made.config
    if not config.eval_data:
        return None
    points = {point.name: point for point in entry_points(group=GROUP)}
    if config.eval_protocol not in points:
        raise UsageError(f"--eval-protocol {config.eval_protocol!r}", ", ".join(points), closest(config.eval_protocol, points))
    evaluate: Any = points[config.eval_protocol].load()
    if distributed.rank() == 0:
        _check_sets(made, getattr(importlib.import_module(points[config.eval_protocol].module), "check", None))

    def run(step: int, log: RunLog) -> bool:
        from train.models.load import loaded_now
        from train.run import save
        from train.step import evaluation

        norm.average_running_stats(made.trained)
        numbers: dict[str, float] = {}
        if distributed.rank() == 0:
            with evaluation(made.trained):
                numbers = evaluate(loaded_now(made), list(config.eval_data), str(made.device))
            log.note(step, numbers)
            say(f"step {step:,}: " + ", ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
        numbers = distributed.gather_objects(numbers)[0]
        value = next(iter(numbers.values()))
        if not is_better(value, made.best):
            return False
        made.best = {"step": step, "value": value, "name": next(iter(numbers))}
        save(made, step, checkpoint.BEST)
        return True

    return run


def _check_sets(made: Run, check: Callable[[str, str], None] | None) -> None:
    """Refuse what the first evaluation would refuse, after steps that took hours.

    Raises:
        UsageError: zero-shot for a task without text, or a set that `check` refuses.
    """
    config = made.config
    if config.eval_protocol == "zeroshot" and not made.task.needs.captions:
        raise UsageError(f"--eval-protocol zeroshot with train {config.TASK}, which reads no text", "--eval-protocol probe")
    if check is not None:
        for path in config.eval_data:
            check(config.eval_protocol, path)


def is_better(value: float, best: dict[str, Any]) -> bool:
    """Return whether a number of an evaluation is above the best one so far; NaN is above none, and every number above NaN."""
    if math.isnan(value):
        return False
    return not best or math.isnan(best["value"]) or value > best["value"]
