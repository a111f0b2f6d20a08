"""All parts of one training: built, resumed, saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from shards import layers
from shards.core import fs, registry
from shards.core.console import say, warn
from shards.core.engines.local import default_workers, threads_of
from shards.core.errors import RunError, UsageError
from shards.manifest import Manifest, read_manifest
from shards.preflight import Findings, preflight
from train import checkpoint, distributed
from train.config import TrainConfig, in_todays_words
from train.data.blocks import CLASS
from train.data.feed import Child
from train.data.loader import Loader
from train.memory import check_memory
from train.models import norm
from train.models.ema import Ema
from train.models.towers import checkpoint_blocks
from train.optim.build import build as build_optimizer
from train.optim.groups import Grouping, layers_of, make_groups
from train.plan import Plan, make_plan
from train.record import write_back
from train.record.by_sample import SampleLosses
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
        losses: the last loss of each sample, for `--write-layer`.
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
    losses: SampleLosses | None = None

    def module(self) -> nn.Module:
        """Return what a step calls: the trained modules, compiled and wrapped for several processes as asked."""
        module: Any = torch.compile(self.trained) if self.config.compile else self.trained  # in parts, each part calls it
        return distributed.wrap(module, self.device) if self.config.accum == 1 else module

    def check_bad(self) -> None:
        """Stop a training on data of which too much cannot be used. Every process calls it, and all decide alike.

        Raises:
            RunError: more than the allowed share, of all processes together.
        """
        samples = self.loader.epoch_samples
        most = max(FEWEST_BAD, self.config.max_bad_share * samples)
        if sum(distributed.gather_objects(len(self.loader.bad))) <= most:
            return
        # Two processes may have met the same sample, in different epochs or in the part before a resumption.
        bad = {place: sample for part in distributed.gather_objects(self.loader.bad) for place, sample in part.items()}
        if len(bad) <= most:
            return
        shown = [f"  {sample.uid}: {sample.why}" for sample in list(bad.values())[:8]]
        raise RunError(
            f"{len(bad):,} of {samples:,} samples cannot be used, more than --max-bad-share {self.config.max_bad_share:g}:\n"
            + "\n".join(shown),
            advice="shards verify, train check",
        )


def build(config: TrainConfig, device: torch.device, child: Child | None = None) -> Run:
    """Open the data, build the model and the optimiser; nothing is read of the images yet.

    Args:
        child: the loader's process, if it has been started already.

    Raises:
        UsageError: data, model or settings that do not fit.
    """
    if config.precision == "amp" and device.type == "cpu":
        raise UsageError("precision amp: float16 on a CPU", "fp32, bf16")
    sources = [(read_manifest(path), weight) for path, weight in config.sources()]
    facts = [_facts(manifest, weight, config) for manifest, weight in sources]
    if config.write_layer and distributed.rank() == 0:
        write_back.check(config.write_layer, [manifest for manifest, _ in sources], write_back.identity(config, facts))
    module: Any = registry.get("train.tasks", config.TASK)
    torch.manual_seed(config.seed)
    if config.image_size is not None:  # before the model is built: its table of positions grows with the image, too
        _check_memory(config, config.image_size, 1, device)
    task: Task = module.build(config, _data_of(sources, config))
    _check_memory(config, task.image_size, len(task.needs.views), device)
    _check_columns(task, config)
    findings = [_looked_at(manifest, task, config) for manifest, _ in sources]
    loader = _loader(sources, task, config, device, child)
    _check_batches(task, config)
    if config.bn_group is not None:
        norm.group_batch_norm(task.model, config.bn_group)
        norm.group_batch_norm(task.heads, config.bn_group)
    parent = _start_from(task, config) if config.from_ else None
    task.started()
    if config.bn_group is None and config.sync_bn and distributed.world_size() > 1 and device.type == "cuda":
        task.model = norm.sync_batch_norm(task.model)
        task.heads = norm.sync_batch_norm(task.heads)  # type: ignore[assignment]
    if config.grad_checkpointing:
        checkpoint_blocks(task.model.visual, config.model)
        task.model.set_grad_checkpointing(True)  # type: ignore[operator]  # a CLIP's text tower, too
    trained = Trained(task, config, device)
    return Run(
        config=config,
        plan=make_plan(config, loader.epoch_samples),
        task=task,
        trained=trained,
        loader=loader,
        optimizer=_optimizer(trained, config),
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "amp"),
        manifests=facts,
        findings=findings,
        device=device,
        ema=None if config.ema is None else Ema(task.model, config.ema, warmup=True),
        parent=parent,
        losses=SampleLosses([source.samples for source in loader.sources]) if config.write_layer else None,
    )


def _check_memory(config: TrainConfig, image_size: int, views: int, device: torch.device) -> None:
    batch = config.batch_size // distributed.world_size()
    here = distributed.local_world_size()
    check_memory(batch, image_size, device, views=views, accum=config.accum, precision=config.precision, processes=here)


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


def _check_columns(task: Task, config: TrainConfig) -> None:
    """Refuse options of captions or labels where the task reads none.

    Raises:
        UsageError: naming the option.
    """
    of_captions = {
        f"--layer {' '.join(config.layer)}": bool(config.layer),
        f"--captions {config.captions}": config.captions != "first",
        f"noise.captions {config.noise.captions:g}": config.noise.captions > 0,
    }
    of_labels = {
        f"--labels {config.labels}": config.labels != CLASS,
        f"noise.labels {config.noise.labels:g}": config.noise.labels > 0,
    }
    for option, is_stated in of_captions.items():
        if is_stated and not task.needs.captions:
            raise UsageError(f"{option} with train {config.TASK}, which reads no captions", "train clip, train slip")
    for option, is_stated in of_labels.items():
        if is_stated and not task.needs.classes:
            raise UsageError(f"{option} with train {config.TASK}, which reads no labels", "train supervised")


def _looked_at(manifest: Manifest, task: Task, config: TrainConfig) -> Findings:
    needs = task.needs
    labels = config.labels if needs.classes else ""
    names = [layer.name for layer in config.layers()]
    found = preflight(
        manifest,
        captions=needs.captions,
        labels=labels,
        classes=needs.classes,
        layers=names,
        weights=config.weights,
        samples=config.samples,
    )
    for line in found.lines():
        if distributed.rank() == 0:
            warn(f"{manifest.folder}: {line}")
    return found


def _loader(
    sources: list[tuple[Manifest, float | None]], task: Task, config: TrainConfig, device: torch.device, child: Child | None = None
) -> Loader:
    return Loader(
        sources,
        process=config.loader == "process",
        child=child,
        batch_size=config.batch_size,
        image_size=task.image_size,
        seed=config.seed,
        needs=task.needs,
        engine=config.engine,
        workers=threads_of(config.workers or max(default_workers() // distributed.local_world_size(), 1)),
        fast=config.decode == "fast",
        captions=config.captions,
        layers=config.layers(),
        tokens=config.tokens,
        labels=config.labels,
        weights=config.weights,
        noise=config.noise,
        samples=config.samples,
        keep_decoded=int(config.keep_decoded * 2**30),
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
    known = {"file": facts.path.rpartition("/")[2], "sha256": facts.digest, "kind": facts.kind, "provenance": facts.provenance}
    return {**known, **facts.lineage}


def _optimizer(trained: Trained, config: TrainConfig) -> torch.optim.Optimizer:
    named = [(name, p) for name, p in trained.named_parameters() if p.requires_grad]
    has_heads = any(name.startswith("heads.") for name, _ in named)
    grouping = Grouping(
        lr=config.lr,
        weight_decay=config.weight_decay,
        rule=config.decay_rule,
        heads=("heads.",) if has_heads else (),
        head_lr=config.head_lr,
        head_weight_decay=config.head_weight_decay,
        temperature_lr=getattr(config, "temperature_lr", None),
        layer_decay=config.layer_decay,
        layers=None if config.layer_decay == 1 else layers_of(trained.model, "model."),
    )
    betas = (config.beta1, config.beta2)
    return build_optimizer(config.optimizer, make_groups(named, grouping), config.lr, betas=betas, eps=config.eps, momentum=config.momentum)


def _facts(manifest: Manifest, weight: float | None, config: TrainConfig) -> dict[str, Any]:
    """Return what a checkpoint remembers of a build."""
    samples = manifest.samples if config.samples is None else min(config.samples, manifest.samples)
    facts = {"digest": manifest.digest, "weight": weight, "samples": samples}
    names = {layer.name for layer in config.layers()}
    known = layers.read_layers(manifest.folder_of(manifest.shards[0]))
    for column in (config.weights, config.labels):
        layer = column.partition(".")[0]
        if layer in known:
            names.add(layer)
    return facts | ({"layers": {name: layers.digest_of(manifest, name) for name in sorted(names)}} if names else {})


def _in_todays_words(state: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's content as it would be written today: older ones name one layer, and its digest alone."""
    older, config = state["config"].get("layer"), in_todays_words(state["config"])
    manifests = []
    for facts in state["manifests"]:
        others = {key: value for key, value in facts.items() if key != "layer"}
        manifests.append(others | {"layers": {older: facts["layer"]}} if "layer" in facts else others)
    return state | {"config": config, "manifests": manifests}


def _check_parent(path: str, parent: dict[str, Any] | None, run: Run) -> None:
    """Refuse a `--from` that the checkpoint did not start from. Digests are compared, so that a moved file is the same parent.

    Raises:
        UsageError: naming both parents.
    """
    if run.parent is None or (parent is not None and parent["sha256"] == run.parent["sha256"]):
        return
    then = "fresh weights" if parent is None else f"{parent['file']} (sha256 {parent['sha256'][:12]})"
    raise UsageError(
        f"--from {run.config.from_} (sha256 {run.parent['sha256'][:12]}): {path} started from {then}",
        "without --from, to go on from the checkpoint",
        "--output NEW starts a new training; --resume never starts anew over this one",
    )


def resume(run: Run) -> int:
    """Load the output folder's checkpoint, if it is to be resumed, and return the first step to take.

    Raises:
        UsageError: the checkpoint is of another training, or started from other weights than `--from` names.
    """
    path = fs.join(run.config.output, checkpoint.NAME)
    if run.config.resume == "never" or not fs.exists(path):
        return 0
    state = _in_todays_words(checkpoint.read(path))
    checkpoint.check(path, state, run.config, run.manifests)
    _check_parent(path, state["parent"], run)
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
    write_back.restore(run, state)
    if distributed.rank() == 0:
        say(f"resuming {path} at step {state['step']:,}")
    return int(state["step"])


def bn_samples(run: Run) -> int | None:
    """Return over how many samples BatchNorm takes its statistics; None without BatchNorm."""
    at_once = run.plan.batch_size // distributed.world_size() // run.config.accum
    return norm.smallest_group(run.trained, at_once)


def check_finite(run: Run, step: int) -> None:
    """Refuse weights that are no numbers: the checkpoint of before is worth more.

    Raises:
        RunError: a loss that was still finite gave a gradient that was not.
    """
    for name, parameter in run.trained.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise RunError(
                f"step {step:,}: the weights of {name} are no finite numbers; they are not kept",
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
    check_finite(run, step)
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
        "classes": list(run.task.classes),
        "unit_features": run.task.unit_features,
        "best": run.best,
        "config": run.config.essence(),
    }
    if run.losses is not None and name == checkpoint.NAME:
        state["losses"] = run.losses.state()
    fs.write_text(fs.join(run.config.output, "config.yaml"), run.config.to_yaml())
    checkpoint.save(run.config.output, state, run.config.keep, name)
