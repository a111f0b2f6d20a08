"""The training loop, read from top to bottom: build, resume, then step after step.

A task turns a batch into loss terms; nothing else about training differs from task to task.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shards import layers
from shards.core import fs, registry
from shards.core.console import emit, say
from shards.core.engines.local import default_workers
from shards.core.errors import UsageError
from shards.manifest import Manifest, read_manifest
from train import checkpoint, distributed
from train.config import TrainConfig
from train.loader import Loader, Replaced
from train.log import RunLog
from train.optim import adamw, set_lr
from train.plan import Plan, make_plan, preflight, show
from train.schedule import warmup_cosine


def clip(config: TrainConfig) -> int:
    """Run `train clip`."""
    return train(config, "clip")


def train(config: TrainConfig, task_name: str) -> int:
    """Train a task until its budget is used up and return the exit code."""
    config.check()
    with distributed.session(config.device) as device:
        run = _build(config, task_name, device)
        show(run.preflight())
        if config.dry_run:
            return _dry_run(run)
        start = _resume(run)
        if start >= run.plan.steps:
            say(f"nothing to do: {config.output} has all its {run.plan.steps:,} steps")
            return _finish(run, {})
        return _finish(run, _take_steps(run, start))


@dataclass
class Run:
    """All parts of one training. `task` makes loss terms of a batch and owns `task.model`, which is trained."""

    config: TrainConfig
    plan: Plan
    task: Any
    loader: Loader
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    manifests: list[dict[str, Any]]
    device: torch.device

    def preflight(self) -> str:
        """Return the plan in words."""
        parameters = sum(p.numel() for p in self.task.model.parameters())
        return preflight(self.plan, self.config, self.manifests, parameters, self.task.image_size, str(self.device))


def _take_steps(run: Run, start: int) -> dict[str, float]:
    """Take every step from `start` on; return the last one's numbers."""
    config, plan, task = run.config, run.plan, run.task
    model = distributed.wrap(task, run.device).train()
    log = RunLog(config.output, start, plan.steps, plan.batch_size, config.tensorboard)
    half = torch.float16 if config.precision == "amp" else torch.bfloat16
    with contextlib.closing(log), contextlib.closing(run.loader.batches(start)) as batches:  # type: ignore[type-var]
        for batch in log.timed(batches):
            _seed_step(config.seed, batch.step)
            lr = warmup_cosine(batch.step, config.lr, plan.warmup, plan.steps)
            set_lr(run.optimizer, lr)

            with torch.autocast(run.device.type, half, enabled=config.precision != "fp32"):
                terms = model(batch)
            loss = torch.stack([term for name, term in terms.items() if name.endswith("_loss")]).sum()
            run.scaler.scale(loss).backward()
            if config.grad_clip is not None:
                run.scaler.unscale_(run.optimizer)
                terms["grad_norm"] = nn.utils.clip_grad_norm_(task.model.parameters(), config.grad_clip)
            run.scaler.step(run.optimizer)
            run.scaler.update()
            run.optimizer.zero_grad()
            task.constrain()

            step = batch.step + 1
            save = step % config.checkpoint_every == 0 or step == plan.steps
            log.add(batch.step, batch.uids, {"loss": loss, **terms, **task.gauges()})
            if save or step % config.log_every == 0:
                log.write(lr=lr, epoch=step * plan.batch_size / plan.epoch_samples, repeats=run.loader.repeats(step))
            if save:
                _save(run, step)
            if step == plan.steps:
                break
    return log.last


def _build(config: TrainConfig, task_name: str, device: torch.device) -> Run:
    sources = [(read_manifest(path), weight) for path, weight in config.sources()]
    if config.precision == "amp" and device.type == "cpu":
        raise UsageError("precision amp: float16 on a CPU", "fp32, bf16")
    torch.manual_seed(config.seed)
    task: Any = registry.get("train.tasks", task_name).build(config).to(device)
    loader = Loader(
        sources,
        batch_size=config.batch_size,
        image_size=task.image_size,
        seed=config.seed,
        engine=config.engine,
        workers=config.workers or default_workers(),
        augment=config.augment,
        captions=config.captions,
        layer=config.layer,
        samples=config.samples,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        device=str(device),
    )
    betas = (config.beta1, config.beta2)
    return Run(
        config=config,
        plan=make_plan(config, loader.epoch_samples),
        task=task,
        loader=loader,
        optimizer=adamw(task.model, lr=config.lr, betas=betas, eps=config.eps, weight_decay=config.weight_decay),
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "amp"),
        manifests=[_facts(manifest, weight, config) for manifest, weight in sources],
        device=device,
    )


def _facts(manifest: Manifest, weight: float | None, config: TrainConfig) -> dict[str, Any]:
    """Return what a checkpoint remembers of a build."""
    samples = manifest.samples if config.samples is None else min(config.samples, manifest.samples)
    facts = {"digest": manifest.digest, "weight": weight, "samples": samples}
    return facts | ({"layer": layers.digest_of(manifest, config.layer)} if config.layer else {})


def _seed_step(seed: int, step: int) -> None:
    # A model may draw numbers of its own (dropout): what it draws at a step depends on nothing before it.
    torch.manual_seed((seed * 1_000_003 + step) * 4_099 + distributed.rank())


def _resume(run: Run) -> int:
    """Load the output folder's checkpoint, if it is to be resumed, and return the first step to take."""
    path = fs.join(run.config.output, checkpoint.NAME)
    fs.make_dirs(run.config.output)
    if run.config.resume == "never" or not fs.exists(path):
        return 0
    state = checkpoint.read(path)
    checkpoint.check(path, state, run.config, run.manifests)
    run.task.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    run.loader.replaced.extend(Replaced(*row) for row in state["replaced"])
    show(f"resuming {path} at step {state['step']:,}")
    return int(state["step"])


def _save(run: Run, step: int) -> None:
    """Write the checkpoint that step `step` would start from, and the configuration beside it."""
    replaced = {row for part in distributed.gather_objects(list(run.loader.replaced)) for row in part}
    if distributed.rank() != 0:
        return
    state = {
        "model": run.task.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "seed": run.config.seed,
        "step": step,
        "samples_seen": step * run.plan.batch_size,
        "replaced": [list(row) for row in sorted(replaced)],
        "manifests": run.manifests,
        "config": run.config.essence(),
    }
    fs.write_text(fs.join(run.config.output, "config.yaml"), run.config.to_yaml())
    checkpoint.save(run.config.output, state, run.config.keep)


def _dry_run(run: Run) -> int:
    if run.config.json and distributed.rank() == 0:
        plan = run.plan
        emit({"steps": plan.steps, "warmup": plan.warmup, "samples_seen": plan.samples_seen, "epochs": plan.epochs})
    return 0


def _finish(run: Run, numbers: dict[str, float]) -> int:
    """Print where the checkpoint lies and what training came to."""
    if distributed.rank() == 0:
        path, plan = fs.join(run.config.output, checkpoint.NAME), run.plan
        loss = f", loss {numbers['loss']:.4f}" if numbers else ""
        result = {"checkpoint": path, "steps": plan.steps, "samples_seen": plan.samples_seen, **numbers}
        emit(result if run.config.json else f"{path}: {plan.steps:,} steps, {plan.samples_seen:,} samples seen{loss}")
    return 0
