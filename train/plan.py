"""What a training will do, worked out and printed before the first batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shards.core.console import say, table
from train import distributed
from train.config import TrainConfig
from train.schedule import check_warmup


@dataclass(frozen=True)
class Plan:
    """The numbers that follow from a configuration and its data."""

    epoch_samples: int
    batch_size: int
    steps: int
    warmup: int
    ranks: int

    @property
    def samples_seen(self) -> int:
        """Samples of the whole training."""
        return self.steps * self.batch_size

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return self.samples_seen / self.epoch_samples


def make_plan(config: TrainConfig, epoch_samples: int) -> Plan:
    """Return the plan of a training over data of so many samples.

    Raises:
        UsageError: the warm-up would not end before training does.
    """
    steps = config.steps(epoch_samples)
    warmup = config.warmup_steps(steps)
    check_warmup(warmup, steps)
    return Plan(epoch_samples, config.batch_size, steps, warmup, distributed.world_size())


def preflight(plan: Plan, config: TrainConfig, manifests: list[dict[str, Any]], parameters: int, image_size: int, device: str) -> str:
    """Return the plan as text."""
    rows = [(path, m["digest"][:12], m["samples"], m["weight"] or "") for (path, _), m in zip(config.sources(), manifests, strict=True)]
    each = f" ({plan.batch_size // plan.ranks:,} on each of {plan.ranks})" if plan.ranks > 1 else ""
    lines = [
        table(("data", "digest", "samples", "share"), rows),
        f"model      {config.model}, {parameters / 1e6:.1f} M parameters, {image_size} px",
        f"samples    {plan.epoch_samples:,} to an epoch",
        f"batch      {plan.batch_size:,}{each}",
        f"steps      {plan.steps:,}, of which {plan.warmup:,} warm-up",
        f"epochs     {plan.epochs:.2f} ({plan.samples_seen:,} samples seen)",
        f"optimiser  AdamW, lr {config.lr:g}, betas {config.beta1:g} {config.beta2:g}, weight decay {config.weight_decay:g}",
        f"compute    {device}, {config.precision}; images by {config.engine}",
    ]
    return "\n".join(lines)


def show(text: str) -> None:
    """Print the plan, once for all ranks."""
    if distributed.rank() == 0:
        say(text)
