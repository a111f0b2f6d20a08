"""What a training will do, worked out and printed before the first batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shards.core.console import say, table
from shards.core.errors import UsageError
from train import distributed
from train.config import TrainConfig
from train.optim.schedules import check_warmup


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
        UsageError: the warm-up or the cool-down does not fit into the training.
    """
    steps = config.steps_of(epoch_samples)
    warmup = config.warmup_steps(steps, epoch_samples)
    check_warmup(warmup, steps)
    if config.schedule == "constant_cooldown" and not 0 < config.cooldown <= steps - warmup:
        raise UsageError(f"a cool-down of {config.cooldown:,} steps", f"1 to {steps - warmup:,}: what follows the warm-up", "--cooldown N")
    if config.schedule == "step" and not config.fall_steps(epoch_samples):
        raise UsageError("the schedule `step` without the steps between two falls", "--lr-every N or --lr-every-epochs N")
    return Plan(epoch_samples, config.batch_size, steps, warmup, distributed.world_size())


def preflight(plan: Plan, config: TrainConfig, manifests: list[dict[str, Any]], parameters: int, image_size: int, device: str) -> str:
    """Return the plan as text."""
    shares = _shares(manifests)
    rows = []
    for (path, _), manifest, share in zip(config.sources(), manifests, shares, strict=True):
        passes = share * plan.samples_seen / manifest["samples"]
        rows.append((path, manifest["digest"][:12], manifest["samples"], f"{share:.1%}", f"{passes:.2f}"))
    each = f" ({plan.batch_size // plan.ranks:,} on each of {plan.ranks})" if plan.ranks > 1 else ""
    parts = f", each in {config.accum} parts" if config.accum > 1 else ""
    warmup_share = plan.warmup / plan.steps
    lines = [
        table(("data", "digest", "samples", "share", "passes"), rows),
        f"task       {config.TASK}",
        f"model      {config.model}, {parameters / 1e6:.1f} M parameters, {image_size} px",
        f"samples    {plan.epoch_samples:,} to an epoch",
        f"batch      {plan.batch_size:,}{each}{parts}",
        f"steps      {plan.steps:,}, of which {plan.warmup:,} warm-up ({warmup_share:.1%})",
        f"epochs     {plan.epochs:.2f} ({plan.samples_seen:,} samples seen)",
        f"optimiser  {_optimiser(config)}",
        f"memory     {_bytes(parameters * _STATE[config.optimizer])} for weights, gradients and optimiser, beside activations",
        f"compute    {device}, {config.precision}; images by {config.engine}",
    ]
    return "\n".join(lines)


# Bytes per parameter: float32 weights and gradients, and AdamW's two moments or SGD's and LARS's one.
_STATE = {"adamw": 16, "sgd": 12, "lars": 12}


def _shares(manifests: list[dict[str, Any]]) -> list[float]:
    """Return the share of the samples seen that each source has."""
    weights = [manifest["samples"] if manifest["weight"] is None else manifest["weight"] for manifest in manifests]
    return [weight / sum(weights) for weight in weights]


def _optimiser(config: TrainConfig) -> str:
    if config.optimizer == "adamw":
        name = f"AdamW, betas {config.beta1:g} {config.beta2:g}"
    else:
        name = f"{config.optimizer.upper()}, momentum {config.momentum:g}"
    return f"{name}, lr {config.lr:g} ({config.schedule}), weight decay {config.weight_decay:g}"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def warnings(plan: Plan, config: TrainConfig, smallest_norm: int | None) -> list[str]:
    """Return what is allowed, and may still not be what was meant."""
    lines = []
    if config.steps is not None:
        lines.append(f"a trial of {plan.steps:,} steps: neither its length nor its warm-up of {plan.warmup:,} is the recipe's")
    if plan.batch_size > plan.epoch_samples:
        lines.append(f"a batch of {plan.batch_size:,} holds every one of the {plan.epoch_samples:,} samples more than once")
    shares = config.sources()
    if len({path for path, _ in shares}) < len(shares):
        lines.append("a build is named twice: a batch may hold a sample more than once")
    if smallest_norm is not None and smallest_norm < 16 and not config.bn_group:
        lines.append(f"BatchNorm's statistics are over {smallest_norm} samples: 16 or more per process are usual")
    return lines


def show(text: str) -> None:
    """Print the plan, once for all ranks."""
    if distributed.rank() == 0:
        say(text)
