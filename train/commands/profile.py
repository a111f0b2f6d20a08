"""Speeds measured on a training's own data and model, before anything is saved.

`--profile`: the loader alone, the model alone, both together, and what limits. `--dry-run`: the loader alone and both
together, within some seconds, and how long the training will take.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from shards.core.console import duration, emit, table
from train import distributed
from train.loop import take_step
from train.plan import in_bytes
from train.record import flops
from train.record.activations import Activations

if TYPE_CHECKING:
    from collections.abc import Callable

    from train.run import Run

WARM, MEASURED = 3, 12  # calls before the clock starts, and under it
LOADER_SECONDS, STEP_SECONDS = 5.0, 15.0  # that `--dry-run` may take to measure


@dataclass(frozen=True)
class Timed:
    """How long a call takes.

    Attributes:
        seconds: of each call, the mean.
        calls: how many were measured.
        warm: how many came before.
    """

    seconds: float
    calls: int
    warm: int


def profile(made: Run) -> int:
    """Measure and print samples a second; nothing is saved."""
    timed = {"loader alone": _loader_alone(made), "model alone": _model_alone(made), "both": _both(made)}
    rates = {name: made.config.batch_size / each.seconds for name, each in timed.items()}
    limiting = min(("loader alone", "model alone"), key=lambda name: rates[name])
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        cost = flops.flops_per_sample(made.trained, next(batches))
    used = rates["both"] * cost / (flops.peak_flops(made.device, made.config.precision) * distributed.world_size())
    if distributed.rank() == 0:
        text = table(("what", "samples a second"), [(name, f"{rate:,.0f}") for name, rate in rates.items()])
        numbers = {"samples_per_s": rates, "limited_by": limiting, "mfu": used}
        emit(numbers if made.config.json else f"{text}\n\nlimited by: {limiting}; MFU {used:.1%}")
    return 0


@dataclass(frozen=True)
class Forecast:
    """What a training will take, by a measurement of seconds.

    Attributes:
        loader, step: the loader alone, and steps on its batches.
        batch_size: samples of a step, of all processes.
        steps: of the whole training.
        activation_bytes: that this process keeps for a backward pass, at the most; on CUDA and for a compiled model None.
        peak_bytes: of this process's CUDA memory, at the most, all included; elsewhere None.
    """

    loader: Timed
    step: Timed
    batch_size: int
    steps: int
    activation_bytes: int | None
    peak_bytes: int | None

    @property
    def seconds(self) -> float:
        """Expected length of the training, without evaluations and checkpoints."""
        return self.steps * self.step.seconds

    def text(self) -> str:
        """Return it as lines for a terminal."""
        loader, step = (self.batch_size / timed.seconds for timed in (self.loader, self.step))
        memory = "no activations, which a compiled model does not show"
        if self.activation_bytes is not None:
            memory = f"{in_bytes(self.activation_bytes)} of activations, kept for the backward pass"
        elif self.peak_bytes is not None:
            memory = f"{in_bytes(self.peak_bytes)} of the GPU at the peak, all included"
        measured = f"{self.step.calls} {'step' if self.step.calls == 1 else 'steps'} after {self.step.warm} to warm up"
        return "\n".join(
            [
                f"measured   {memory}, in each process",
                f"speed      {_rate(loader)} samples/s from the loader alone, {_rate(step)} with the model ({measured})",
                f"time       {duration(self.seconds)} for {self.steps:,} steps, without evaluations and checkpoints",
            ]
        )

    def numbers(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        return {
            "activation_bytes": self.activation_bytes,
            "peak_bytes": self.peak_bytes,
            "loader_samples_per_s": self.batch_size / self.loader.seconds,
            "samples_per_s": self.batch_size / self.step.seconds,
            "measured_steps": self.step.calls,
            "warm_steps": self.step.warm,
            "expected_seconds": self.seconds,
        }


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def forecast(made: Run, loader_seconds: float = LOADER_SECONDS, step_seconds: float = STEP_SECONDS) -> Forecast:
    """Measure a training's speed and memory. Its weights and its optimiser's state are other ones afterwards.

    Args:
        loader_seconds, step_seconds: what the measurements may take; at least one batch and one step are measured, and
            building the loader's first batches comes on top.
    """
    loader = _loader_alone(made, loader_seconds)
    is_cuda = made.device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(made.device)
    # The hooks of the count would stop torch.compile from compiling whole graphs.
    activations = None if is_cuda or made.config.compile else Activations(made.trained)
    step = _both(made, step_seconds, activations)
    return Forecast(
        loader,
        step,
        made.config.batch_size,
        made.plan.steps,
        activation_bytes=None if activations is None else activations.peak,
        peak_bytes=torch.cuda.max_memory_allocated(made.device) if is_cuda else None,
    )


def _loader_alone(made: Run, budget: float = float("inf")) -> Timed:
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        next(batches)  # a process is started for it, which is none of the speed
        return timed(lambda: next(batches), torch.device("cpu"), budget)


def _model_alone(made: Run) -> Timed:
    module = made.module().train()
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        batch = next(batches)
        return timed(lambda: take_step(made, module, batch), made.device)


def _both(made: Run, budget: float = float("inf"), activations: Activations | None = None) -> Timed:
    module = made.module().train()
    with contextlib.closing(made.loader.batches()) as batches:  # type: ignore[type-var]
        next(batches)
        return timed(lambda: take_step(made, module, next(batches)), made.device, budget, activations)


def timed(
    do: Callable[[], object],
    device: torch.device,
    budget: float = float("inf"),
    around_first: contextlib.AbstractContextManager[object] | None = None,
) -> Timed:
    """Measure how long a call takes: MEASURED calls after WARM ones, or as many as the budget allows, one at least.

    Args:
        do: what is measured; with several processes each calls it, and all call it equally often.
        device: is waited for.
        budget: seconds that all calls together may take.
        around_first: is entered for the first call, which counts only if there is no time for another.
    """
    with around_first or contextlib.nullcontext():
        first = _seconds_of(do, 1, device)
    if 2 * first > budget:
        return Timed(first, 1, 0)
    second = _seconds_of(do, 1, device)
    affordable = min(float(MEASURED + WARM - 2), (budget - first - second) / second)
    if affordable < WARM - 1:
        return Timed(second, 1, 1)
    for _ in range(WARM - 2):
        do()
    calls = int(affordable) - (WARM - 2)
    return Timed(_seconds_of(do, calls, device) / calls, calls, WARM)


def _seconds_of(do: Callable[[], object], calls: int, device: torch.device) -> float:
    """Return the seconds that some calls take in the slowest process: all processes decide alike by them."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        do()
    _wait(device)
    return max(distributed.gather_objects(time.perf_counter() - start))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
