"""What a training will do, worked out and printed before the first batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards.core.console import table
from shards.core.errors import UsageError
from train import distributed
from train.config import TrainConfig
from train.optim.schedules import check_warmup

if TYPE_CHECKING:
    import torch
    from torch import nn


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
    if not getattr(config, "warmup_beyond", False):
        check_warmup(warmup, steps)
    if config.schedule == "constant_cooldown" and not 0 < config.cooldown <= steps - warmup:
        raise UsageError(f"a cool-down of {config.cooldown:,} steps", f"1 to {steps - warmup:,}: what follows the warm-up", "--cooldown N")
    if config.schedule == "step" and not config.fall_steps(epoch_samples):
        raise UsageError("the schedule `step` without the steps between two falls", "--lr-every N or --lr-every-epochs N")
    return Plan(epoch_samples, config.batch_size, steps, warmup, distributed.world_size())


@dataclass(frozen=True)
class Source:
    """A build in a training: its share of the samples seen, and how often that goes through it."""

    path: str
    digest: str
    samples: int
    share: float
    passes: float


@dataclass(frozen=True)
class Preflight:
    """What is known of a training before its first batch.

    Attributes:
        parameters: weights, those that are not trained included.
        state_bytes: of weights, gradients, optimiser, average and tables; not of activations.
        device: where it computes, such as `cpu`.
    """

    plan: Plan
    config: TrainConfig
    sources: tuple[Source, ...]
    parameters: int
    state_bytes: int
    image_size: int
    device: str
    warnings: tuple[str, ...]

    @property
    def batch_per_process(self) -> int:
        """Samples of a step in each process."""
        return self.plan.batch_size // self.plan.ranks

    def text(self) -> str:
        """Return it as lines for a terminal."""
        plan, config = self.plan, self.config
        rows = [(s.path, s.digest[:12], s.samples, f"{s.share:.1%}", f"{s.passes:.2f}") for s in self.sources]
        each = f" ({self.batch_per_process:,} on each of {plan.ranks})" if plan.ranks > 1 else ""
        parts = f", each in {config.accum} parts" if config.accum > 1 else ""
        lines = [
            table(("data", "digest", "samples", "share", "passes"), rows),
            f"task       {config.TASK}",
            f"model      {config.model}, {self.parameters / 1e6:.1f} M parameters, {self.image_size} px",
            f"samples    {plan.epoch_samples:,} to an epoch",
            f"batch      {plan.batch_size:,}{each}{parts}; {plan.epoch_samples / plan.batch_size:,.2f} batches to an epoch",
            f"steps      {plan.steps:,}, of which {plan.warmup:,} warm-up ({plan.warmup / plan.steps:.1%})",
            f"epochs     {plan.epochs:.2f} ({plan.samples_seen:,} samples seen)",
            f"optimiser  {_optimiser(config)}",
            f"memory     {in_bytes(self.state_bytes)} for weights, gradients and optimiser, beside activations",
            f"compute    {self.device}, {config.precision}; images by {config.engine}",
        ]
        if config.noise.captions or config.noise.labels:
            noise = config.noise
            lines.append(f"noise      {noise.captions:.1%} of captions and {noise.labels:.1%} of labels are made wrong (seed {noise.seed})")
        return "\n".join(lines)

    def numbers(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        plan = self.plan
        return {
            "sources": [dataclasses.asdict(source) for source in self.sources],
            "epoch_samples": plan.epoch_samples,
            "batch_size": plan.batch_size,
            "batch_per_process": self.batch_per_process,
            "processes": plan.ranks,
            "batches_per_epoch": plan.epoch_samples / plan.batch_size,
            "steps": plan.steps,
            "warmup": plan.warmup,
            "warmup_share": plan.warmup / plan.steps,
            "samples_seen": plan.samples_seen,
            "epochs": plan.epochs,
            "parameters": self.parameters,
            "image_size": self.image_size,
            "state_bytes": self.state_bytes,
            "device": self.device,
            "warnings": list(self.warnings),
        }


def sources_of(plan: Plan, config: TrainConfig, manifests: list[dict[str, Any]]) -> tuple[Source, ...]:
    """Return the builds of a training.

    Args:
        manifests: what a checkpoint remembers of each build: `digest`, `samples`, `weight`.
    """
    sources = []
    for (path, _), manifest, share in zip(config.sources(), manifests, _shares(manifests), strict=True):
        passes = share * plan.samples_seen / manifest["samples"]
        sources.append(Source(path, manifest["digest"], manifest["samples"], share, passes))
    return tuple(sources)


def _shares(manifests: list[dict[str, Any]]) -> list[float]:
    """Return the share of the samples seen that each source has."""
    weights = [manifest["samples"] if manifest["weight"] is None else manifest["weight"] for manifest in manifests]
    return [weight / sum(weights) for weight in weights]


MOMENTS = {"adamw": 2, "sgd": 1, "lars": 1}  # numbers that an optimiser keeps of each weight


def state_bytes(module: nn.Module, optimizer: str, averaged: nn.Module | None) -> int:
    """Return the bytes of what a training keeps on its device from step to step: weights, gradients, moments, tables.

    Args:
        module: all that is trained, and what lies beside it: teachers, running statistics, FastCLIP's tables.
        optimizer: its name.
        averaged: the module whose moving average is kept, if one is.
    """
    trained = sum(_bytes_of(p) for p in module.parameters() if p.requires_grad)
    kept = sum(_bytes_of(tensor) for tensor in (*module.parameters(), *module.buffers()))
    average = 0 if averaged is None else sum(_bytes_of(tensor) for tensor in (*averaged.parameters(), *averaged.buffers()))
    return kept + trained * (1 + MOMENTS[optimizer]) + average


def _bytes_of(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _optimiser(config: TrainConfig) -> str:
    if config.optimizer == "adamw":
        name = f"AdamW, betas {config.beta1:g} {config.beta2:g}"
    else:
        name = f"{config.optimizer.upper()}, momentum {config.momentum:g}"
    return f"{name}, lr {config.lr:g} ({config.schedule}), weight decay {config.weight_decay:g}"


def in_bytes(count: float) -> str:
    """Return bytes as `340 MiB` or `1.25 GiB`."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def warnings(plan: Plan, config: TrainConfig, sources: tuple[Source, ...], smallest_norm: int | None) -> tuple[str, ...]:
    """Return what is allowed, and may still not be what was meant.

    Args:
        smallest_norm: over how many samples BatchNorm takes its statistics; None without BatchNorm.
    """
    lines = []
    lines += _about_trial(plan, config)
    if plan.batch_size > plan.epoch_samples:
        lines.append(f"a batch of {plan.batch_size:,} holds samples more than once: there are {plan.epoch_samples:,}")
    else:
        for source in sources:
            taken = source.share * plan.batch_size
            if taken > source.samples:
                lines.append(f"{source.path}: a batch takes {taken:,.0f} of its {source.samples:,} samples, some more than once")
    if len({source.digest for source in sources}) < len(sources):
        lines.append("a build is named twice: a batch may hold a sample more than once")
    if smallest_norm is not None and smallest_norm < 16 and not config.bn_group:
        lines.append(f"BatchNorm's statistics are over {smallest_norm} samples: 16 or more per process are usual")
    if smallest_norm is not None and config.compile and not config.bn_group and (config.accum > 1 or config.grad_checkpointing):
        lines.append(
            "--compile: BatchNorm's running statistics take an update for each part and each recomputation: --bn-group N takes one"
        )
    lines += _without_effect(config)
    return tuple(lines)


def _about_trial(plan: Plan, config: TrainConfig) -> list[str]:
    """Return what differs from the recipe because of `--steps`."""
    if config.steps is None:
        return []
    budget = config.budget_steps(plan.epoch_samples)
    if config.steps < budget:
        return [f"a trial of {plan.steps:,} steps: neither its length nor its warm-up of {plan.warmup:,} is the recipe's"]
    lines = []
    if config.steps > budget:
        lines.append(f"--steps {config.steps:,} is more than the budget's {budget:,}: the budget decides")
    untried = dataclasses.replace(config, steps=None)
    stated = untried.warmup_steps(budget, plan.epoch_samples)
    if plan.warmup < stated:
        lines.append(f"--steps cuts the warm-up of {stated:,} steps to {plan.warmup:,}")
    return lines


def _without_effect(config: TrainConfig) -> list[str]:
    """Return a line for each option that is not at its default and that the other options leave without effect."""
    is_fastclip = getattr(config, "loss", "") == "fastclip"
    is_stepwise, is_adamw = config.schedule == "step", config.optimizer == "adamw"
    schedule, optimizer = f"--schedule {config.schedule}", f"--optimizer {config.optimizer}"
    has_floor = config.schedule in ("cosine", "slip_cosine", "constant_cooldown")
    # FastCLIP's temperature has an Adam of its own, which takes the betas whatever the optimiser is.
    has_betas = is_adamw or is_fastclip
    rules = (
        ("cooldown", config.schedule == "constant_cooldown", schedule),
        ("lr_every", is_stepwise, schedule),
        ("lr_every_epochs", is_stepwise, schedule),
        ("lr_floor", has_floor, schedule),
        ("momentum", not is_adamw, optimizer),
        ("beta1", has_betas, optimizer),
        ("beta2", has_betas, optimizer),
        ("eval_every", bool(config.eval_data), "no --eval-data"),
        ("fastclip", is_fastclip, f"--loss {getattr(config, 'loss', '')}"),
    )
    changed = _changed(config)
    lines = []
    for name, has_effect, because in rules:
        if name in changed and not has_effect:
            option = "fastclip (options)" if name == "fastclip" else f"--{name.replace('_', '-')} {getattr(config, name):g}"
            lines.append(f"{option} has no effect with {because}")
    return lines


def _changed(config: TrainConfig) -> set[str]:
    """Return the names of the fields that are not at their defaults."""
    names = set()
    for field in dataclasses.fields(config):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if getattr(config, field.name) != default:
            names.add(field.name)
    return names
