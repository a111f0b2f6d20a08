"""The training loop, read from top to bottom: build, resume, then step after step.

A task turns a batch into loss terms; nothing else about training differs from task to task.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from torch import nn

from shards.core import fs
from shards.core.console import emit, say, warn
from shards.core.errors import UsageError
from train import checkpoint, distributed, evaluators, plan, run
from train.commands.profile import profile
from train.config import TrainConfig
from train.interrupt import Interrupt, handled
from train.models import norm
from train.optim.groups import set_lr
from train.optim.schedules import learning_rate
from train.record import flops
from train.record.log import RunLog
from train.run import Run
from train.step import gradient
from train.tasks.base import Step


def train(config: TrainConfig) -> int:
    """Train a task until its budget is used up and return the exit code."""
    config.check()
    with distributed.session(config.device) as device, contextlib.ExitStack() as held:
        if config.output and not config.dry_run and distributed.rank() == 0:
            held.enter_context(_folder(config.output))
        made = run.build(config, device)
        _preflight(made)
        if config.dry_run:
            return _dry_run(made)
        if config.profile:
            return profile(made)
        start = run.resume(made)
        if start >= made.plan.steps:
            say(f"nothing to do: {config.output} has all its {made.plan.steps:,} steps")
            return _finish(made, {}, len(made.loader.bad))
        return _train(made, start)


@contextlib.contextmanager
def _folder(output: str) -> Iterator[None]:
    """Make the output folder and hold it for this training alone; one that nothing was written to is taken away again."""
    if fs.exists(output) and not fs.is_dir(output):
        raise UsageError(f"output {output!r} is a file", "a folder")
    is_new = not fs.exists(output)
    try:
        fs.make_dirs(output)
    except (FileExistsError, NotADirectoryError) as error:  # a dangling link, or a file among the parents
        raise UsageError(f"output {output!r}: {error.strerror}", "a folder, or a path where one can be made") from error
    try:
        with fs.locked(output):
            yield
    finally:
        if is_new and not fs.names(output):
            fs.remove(output)


def _preflight(made: Run) -> None:
    """Say what will be done, and what may not be meant."""
    parameters = sum(p.numel() for p in made.trained.parameters())
    text = plan.preflight(made.plan, made.config, made.manifests, parameters, made.task.image_size, str(made.device))
    plan.show(text)
    here = made.plan.batch_size // made.plan.ranks // made.config.accum
    if distributed.rank() == 0:
        for line in plan.warnings(made.plan, made.config, norm.smallest_group(made.trained, here)):
            warn(line)


def _train(made: Run, start: int) -> int:
    log = RunLog(made.config, start, made.plan.steps, len(made.loader.sources))
    with contextlib.closing(log), handled() as interrupt:
        step = _take_steps(made, start, log, interrupt)
    log.say_counts()
    # A signal may have reached one process of several; all of them stopped for it.
    interrupt.signal = max(distributed.gather_objects(interrupt.signal))
    if interrupt and step < made.plan.steps:
        if distributed.rank() == 0:
            say(f"interrupted at step {step:,}, saved; the same command goes on")
        return interrupt.exit_code
    return _finish(made, log.last, log.unusable)


def _take_steps(made: Run, start: int, log: RunLog, interrupt: Interrupt) -> int:
    """Take every step from `start` on, save, and return the step that was reached."""
    config, steps = made.config, made.plan.steps
    module = made.module().train()
    evaluate = evaluators.during_training(made)
    saved_at = time.monotonic()
    step = start
    with contextlib.closing(made.loader.batches(start)) as batches:  # type: ignore[type-var]
        for batch in log.timed(batches):
            if step == start:
                log.measure(flops.flops_per_sample(made.trained, batch), flops.peak_flops(made.device, config.precision))
            at = Step(batch.step, steps, batch.step * config.batch_size / made.plan.epoch_samples)
            lr = _learning_rate(made, batch.step)
            set_lr(made.optimizer, lr)

            terms = gradient(module, made.trained, batch, at, made.scaler)
            made.scaler.unscale_(made.optimizer)  # before norms are taken: under amp they would be thousands of times too large
            if config.grad_clip is not None:
                terms["grad_norm"] = nn.utils.clip_grad_norm_(made.trained.parameters(), config.grad_clip)
            log.gradients(made.trained, batch.step)
            made.scaler.step(made.optimizer)
            made.scaler.update()
            made.optimizer.zero_grad()
            made.task.after_step(at)
            if made.ema is not None:
                made.ema.update(made.task.model)

            step = batch.step + 1
            log.add(batch, {**terms, **made.task.gauges()})
            made.check_bad()
            ends = step == steps or (log.is_due(step) and distributed.barrier_any(bool(interrupt), made.device))
            ends = ends or (bool(interrupt) and distributed.world_size() == 1)
            # How long the last save is ago, each process must see alike: only one of several looks at the clock.
            late = config.checkpoint_minutes > 0 and time.monotonic() - saved_at > 60 * config.checkpoint_minutes
            late = late if distributed.world_size() == 1 else log.is_due(step) and distributed.barrier_any(late, made.device)
            save = ends or late or step % config.checkpoint_every == 0
            if save or log.is_due(step):
                log.write(lr=lr, epoch=step * config.batch_size / made.plan.epoch_samples, repeats=made.loader.repeats(step))
            if step % config.eval_every == 0 or step == steps:
                evaluate(step, log)
            if save:
                run.save(made, step)
                saved_at = time.monotonic()
            if ends:
                break
    return step


def _learning_rate(made: Run, step: int) -> float:
    config, schedule = made.config, made.plan
    return learning_rate(
        config.schedule,
        step,
        config.lr,
        schedule.warmup,
        schedule.steps,
        floor=config.lr_floor,
        cooldown=config.cooldown,
        every=config.fall_steps(schedule.epoch_samples),
    )


def _dry_run(made: Run) -> int:
    if made.config.json and distributed.rank() == 0:
        numbers = made.plan
        emit({"steps": numbers.steps, "warmup": numbers.warmup, "samples_seen": numbers.samples_seen, "epochs": numbers.epochs})
    return 0


def _finish(made: Run, numbers: dict[str, float], unusable: int) -> int:
    """Print where the checkpoint lies and what training came to; return the exit code."""
    if distributed.rank() == 0:
        path, done = fs.join(made.config.output, checkpoint.NAME), made.plan
        loss = f", loss {numbers['loss']:.4f}" if numbers else ""
        result: dict[str, Any] = {"checkpoint": path, "steps": done.steps, "samples_seen": done.samples_seen, **numbers}
        emit(result if made.config.json else f"{path}: {done.steps:,} steps, {done.samples_seen:,} samples seen{loss}")
    problems = unusable + sum(findings.problems for findings in made.findings)
    return 1 if made.config.strict and problems else 0
