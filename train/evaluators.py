"""Evaluation during training, by entry points: train never imports what evaluates.

An entry point of the group `provender.train.evaluators` names a function

    evaluate(loaded, data: list[str], device: str) -> dict[str, float]

whose first number decides which checkpoint is the best one.
"""

from __future__ import annotations

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


def during_training(made: Run) -> Callable[[int, RunLog], None]:
    """Return what to call after steps at which an evaluation is due; nothing happens there if no data were named.

    Raises:
        UsageError: no such evaluator.
    """
    config = made.config
    if not config.eval_data:
        return lambda step, log: None
    points = {point.name: point for point in entry_points(group=GROUP)}
    if config.eval_protocol not in points:
        raise UsageError(f"--eval-protocol {config.eval_protocol!r}", ", ".join(points), closest(config.eval_protocol, points))
    evaluate: Any = points[config.eval_protocol].load()

    def run(step: int, log: RunLog) -> None:
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
        if not made.best or value > made.best["value"]:
            made.best = {"step": step, "value": value, "name": next(iter(numbers))}
            save(made, step, checkpoint.BEST)

    return run
