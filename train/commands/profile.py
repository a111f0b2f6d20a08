"""`--profile`: the loader alone, the model alone, both together, and what limits."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import torch

from shards.core.console import emit, table
from train import distributed
from train.record import flops
from train.step import gradient
from train.tasks.base import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from train.run import Run

WARM, MEASURED = 3, 12  # steps before the clock starts, and under it


def profile(made: Run) -> int:
    """Measure and print samples a second; nothing is saved."""
    batch_size = made.config.batch_size
    rates = {"loader alone": _loader_alone(made), "model alone": _model_alone(made), "both": _both(made)}
    rates = {name: batch_size / seconds for name, seconds in rates.items()}
    limiting = min(("loader alone", "model alone"), key=lambda name: rates[name])
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        cost = flops.flops_per_sample(made.trained, next(batches))
    used = rates["both"] * cost / (flops.peak_flops(made.device, made.config.precision) * distributed.world_size())
    if distributed.rank() == 0:
        text = table(("what", "samples a second"), [(name, f"{rate:,.0f}") for name, rate in rates.items()])
        numbers = {"samples_per_s": rates, "limited_by": limiting, "mfu": used}
        emit(numbers if made.config.json else f"{text}\n\nlimited by: {limiting}; MFU {used:.1%}")
    return 0


def _seconds(do: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that one call takes, after some to warm up."""
    for _ in range(WARM):
        do()
    _wait(device)
    start = time.perf_counter()
    for _ in range(MEASURED):
        do()
    _wait(device)
    return (time.perf_counter() - start) / MEASURED


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _loader_alone(made: Run) -> float:
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        return _seconds(lambda: next(batches), torch.device("cpu"))


def _model_alone(made: Run) -> float:
    module = made.module().train()
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        batch = next(batches)
        return _seconds(lambda: _step(made, module, batch), made.device)


def _both(made: Run) -> float:
    module = made.module().train()
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        return _seconds(lambda: _step(made, module, next(batches)), made.device)


def _step(made: Run, module: torch.nn.Module, batch: object) -> None:
    gradient(module, made.trained, batch, Step(0, made.plan.steps, 0.0), made.scaler)  # type: ignore[arg-type]
    made.scaler.step(made.optimizer)
    made.scaler.update()
    made.optimizer.zero_grad()
