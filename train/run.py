"""All parts of one training: built, resumed, saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from shards import layers
from shards.core import fs, registry
from shards.core.console import say, warn
from shards.core.engines.local import default_workers
from shards.core.errors import RunError, UsageError
from shards.manifest import Manifest, read_manifest
from shards.preflight import Findings, preflight
from train import checkpoint, distributed
from train.config import TrainConfig
from train.data.loader import Loader
from train.models import norm
from train.models.ema import Ema
from train.optim.build import build as build_optimizer
from train.optim.groups import Grouping, layers_of, make_groups
from train.plan import Plan, make_plan
from train.step import Trained
from train.tasks.base import Data, Task

FEWEST_BAD = 10  # so many undecodable samples are always let pass, whatever their share


@dataclass
class Run:
    """All parts of one training.

    Attributes:
        manifests: what a checkpoint remembers of each build.
        findings: what the preflight found in each build.
        module: `trained`, as DDP and torch.compile wrap it.
        parent: what the weights started from, if `--from` was given.
    """

    config: TrainConfig
    plan: Plan
    task: Task
    trained: Trained
    loader: Loader
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    manifests: list[dict[str, Any]]
    findings: list[Findings]
    device: torch.device
    ema: Ema | None = None
    parent: dict[str, Any] | None = None
    best: dict[str, Any] = field(default_factory=dict)

    def module(self) -> nn.Module:
        """Return what a step calls: the trained modules, compiled and wrapped for several processes as asked."""
        module: Any = torch.compile(self.trained) if self.config.compile else self.trained
        return distributed.wrap(module, self.device) if self.config.accum == 1 else module

    def check_bad(self) -> None:
        """Stop a training on data of which too much cannot be used.

        Raises:
            RunError: more than the allowed share.
        """
        bad, samples = self.loader.bad, self.loader.epoch_samples
        if len(bad) <= max(FEWEST_BAD, self.config.max_bad_share * samples):
            return
        shown = [f"  {sample.uid}: {sample.why}" for sample in list(bad.values())[:8]]
        raise RunError(
            f"{len(bad):,} of {samples:,} samples cannot be used, more than --max-bad-share {self.config.max_bad_share:g}:\n"
            + "\n".join(shown),
            advice="shards verify, train check",
        )


def build(config: TrainConfig, device: torch.device) -> Run:
    """Open the data, build the model and the optimiser; nothing is read of the images yet.

    Raises:
        UsageError: data, model or settings that do not fit.
    """
    if config.precision == "amp" and device.type == "cpu":
        raise UsageError("precision amp: float16 on a CPU", "fp32, bf16")
    sources = [(read_manifest(path), weight) for path, weight in config.sources()]
    module: Any = registry.get("train.tasks", config.TASK)
    torch.manual_seed(config.seed)
    task: Task = module.build(config, _data_of(sources, config))
    findings = [_looked_at(manifest, task, config) for manifest, _ in sources]
    loader = _loader(sources, task, config, device)
    _check_batches(task, config)
    if config.bn_group is not None:
        norm.group_batch_norm(task.model, config.bn_group)
        norm.group_batch_norm(task.heads, config.bn_group)
    parent = _start_from(task, config) if config.from_ else None
    if config.bn_group is None and config.sync_bn and distributed.world_size() > 1 and device.type == "cuda":
        task.model = norm.sync_batch_norm(task.model)
        task.heads = norm.sync_batch_norm(task.heads)  # type: ignore[assignment]
    if config.grad_checkpointing:
        task.model.set_grad_checkpointing(True)  # type: ignore[operator]
    trained = Trained(task, config, device)
    return Run(
        config=config,
        plan=make_plan(config, loader.epoch_samples),
        task=task,
        trained=trained,
        loader=loader,
        optimizer=_optimizer(trained, config),
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "amp"),
        manifests=[_facts(manifest, weight, config) for manifest, weight in sources],
        findings=findings,
        device=device,
        ema=None if config.ema is None else Ema(task.model, config.ema, warmup=True),
        parent=parent,
    )


def _data_of(sources: list[tuple[Manifest, float | None]], config: TrainConfig) -> Data:
    """Return what a task may know of its data.

    Raises:
        UsageError: two builds name different classes.
    """
    classes = [manifest.classes for manifest, _ in sources if manifest.classes]
    if len(set(classes)) > 1:
        raise UsageError("the builds name different classes, or the same in another order", "builds with one list of classes")
    samples = tuple(min(config.samples or manifest.samples, manifest.samples) for manifest, _ in sources)
    return Data(samples, classes[0] if classes else ())


def _looked_at(manifest: Manifest, task: Task, config: TrainConfig) -> Findings:
    needs = task.needs
    labels = config.labels if needs.classes else ""
    found = preflight(manifest, captions=needs.captions, labels=labels, classes=needs.classes, layer=config.layer)
    for line in found.lines():
        if distributed.rank() == 0:
            warn(f"{manifest.folder}: {line}")
    return found


def _loader(sources: list[tuple[Manifest, float | None]], task: Task, config: TrainConfig, device: torch.device) -> Loader:
    return Loader(
        sources,
        process=config.loader == "process",
        batch_size=config.batch_size,
        image_size=task.image_size,
        seed=config.seed,
        needs=task.needs,
        engine=config.engine,
        workers=config.workers or default_workers(),
        fast=config.decode == "fast",
        captions=config.captions,
        layer=config.layer,
        layer_share=config.layer_share,
        labels=config.labels,
        noise=config.noise,
        samples=config.samples,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        device=str(device),
    )


def _check_batches(task: Task, config: TrainConfig) -> None:
    """Refuse batches that cannot be divided, or over which BatchNorm has nothing to average.

    Raises:
        UsageError: naming the sizes.
    """
    here = config.batch_size // distributed.world_size()
    if here % config.accum:
        raise UsageError(f"{here} samples per process in {config.accum} parts (--accum)", f"a divisor of {here}")
    part = here // config.accum
    modules = nn.ModuleList([task.model, task.heads])
    if config.bn_group is not None and part % config.bn_group:
        raise UsageError(f"--bn-group {config.bn_group} with {part} samples at a time", f"a divisor of {part}")
    smallest = norm.smallest_group(modules, part)
    if (config.bn_group or smallest) == 1 and smallest is not None:
        raise UsageError("BatchNorm over one sample at a time", "2 samples per process and part at least", "a larger --batch-size")


def _start_from(task: Task, config: TrainConfig) -> dict[str, Any]:
    """Load the weights that a training starts from; return what is remembered of them."""
    from train.models.foreign import load_weights

    report = load_weights(task.model, config.from_)
    if distributed.rank() == 0:
        say(f"starting from {report.summary()}")
    facts = report.facts
    return {"file": facts.path.rpartition("/")[2], "sha256": facts.digest, "kind": facts.kind, "provenance": facts.provenance}


def _optimizer(trained: Trained, config: TrainConfig) -> torch.optim.Optimizer:
    named = [(name, p) for name, p in trained.named_parameters() if p.requires_grad]
    has_heads = any(name.startswith("heads.") for name, _ in named)
    depths = None
    if config.layer_decay != 1:
        depths = {f"model.{name}": layer for name, layer in layers_of(trained.model).items()}
    grouping = Grouping(
        lr=config.lr,
        weight_decay=config.weight_decay,
        rule=config.decay_rule,
        heads=("heads.",) if has_heads else (),
        head_lr=config.head_lr,
        head_weight_decay=config.head_weight_decay,
        temperature_lr=getattr(config, "temperature_lr", None),
        layer_decay=config.layer_decay,
        layers=depths,
    )
    betas = (config.beta1, config.beta2)
    return build_optimizer(config.optimizer, make_groups(named, grouping), config.lr, betas=betas, eps=config.eps, momentum=config.momentum)


def _facts(manifest: Manifest, weight: float | None, config: TrainConfig) -> dict[str, Any]:
    """Return what a checkpoint remembers of a build."""
    samples = manifest.samples if config.samples is None else min(config.samples, manifest.samples)
    facts = {"digest": manifest.digest, "weight": weight, "samples": samples}
    return facts | ({"layer": layers.digest_of(manifest, config.layer)} if config.layer else {})


def resume(run: Run) -> int:
    """Load the output folder's checkpoint, if it is to be resumed, and return the first step to take."""
    path = fs.join(run.config.output, checkpoint.NAME)
    if run.config.resume == "never" or not fs.exists(path):
        return 0
    state = checkpoint.read(path)
    checkpoint.check(path, state, run.config, run.manifests)
    if state["bn_samples"] != bn_samples(run):
        then, now = state["bn_samples"], bn_samples(run)
        raise UsageError(
            f"{path}: BatchNorm's statistics were over {then} samples, now they would be over {now}",
            f"processes and --accum that give {then}",
            "--bn-group N in a new training makes it independent of both",
        )
    run.task.model.load_state_dict(state["state_dict"])
    run.task.heads.load_state_dict(state["heads"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    if run.ema is not None:
        run.ema.load_state_dict(state["ema"])
    run.loader.restore(state["bad"])
    run.parent, run.best = state["parent"], state["best"]
    if distributed.rank() == 0:
        say(f"resuming {path} at step {state['step']:,}")
    return int(state["step"])


def bn_samples(run: Run) -> int | None:
    """Return over how many samples BatchNorm takes its statistics; None without BatchNorm."""
    at_once = run.plan.batch_size // distributed.world_size() // run.config.accum
    return norm.smallest_group(run.trained, at_once)


def _check_finite(run: Run, step: int) -> None:
    """Refuse to save weights that are no numbers: the checkpoint of before is worth more.

    Raises:
        RunError: a loss that was still finite gave a gradient that was not.
    """
    for name, parameter in run.trained.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise RunError(
                f"step {step:,}: the weights of {name} are no finite numbers; they are not saved",
                advice="--from an earlier checkpoint into a new --output, with a lower --lr, --grad-clip 1, or --precision fp32",
            )


def save(run: Run, step: int, name: str = checkpoint.NAME) -> None:
    """Write the checkpoint that step `step` would start from, and the configuration beside it."""
    rows = {row for part in distributed.gather_objects(list(run.loader.bad.values())) for row in part}
    norm.average_running_stats(run.trained)
    if run.ema is not None:
        norm.average_running_stats(run.ema)
    if distributed.rank() != 0:
        return
    _check_finite(run, step)
    state = {
        "task": run.config.TASK,
        "state_dict": run.task.model.state_dict(),
        "heads": run.task.heads.state_dict(),
        "ema": None if run.ema is None else run.ema.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "seed": run.config.seed,
        "step": step,
        "samples_seen": step * run.plan.batch_size,
        "bad": [list(row) for row in sorted(rows)],
        "manifests": run.manifests,
        "bn_samples": bn_samples(run),
        "parent": run.parent,
        "best": run.best,
        "config": run.config.essence(),
    }
    fs.write_text(fs.join(run.config.output, "config.yaml"), run.config.to_yaml())
    checkpoint.save(run.config.output, state, run.config.keep, name)
