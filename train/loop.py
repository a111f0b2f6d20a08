"""The training loop, read from top to bottom: build, resume, then step after step.

A task turns a batch into loss terms; nothing else about training differs from task to task.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from shards.core import fs
from shards.core.console import emit, say, warn
from train import checkpoint, distributed, evaluators, plan, run
from train.config import TrainConfig
from train.data.batch import Batch
from train.data.feed import Child
from train.data.loader import may_be_apart
from train.interrupt import Interrupt, Timetable, handled
from train.optim.groups import set_lr
from train.optim.schedules import learning_rate
from train.record import flops, write_back
from train.record.by_sample import source_names
from train.record.log import RunLog, finite
from train.run import Run
from train.step import gradient
from train.tasks.base import Step


def train(config: TrainConfig) -> int:
    """Train a task until its budget is used up and return the exit code."""
    config.check()
    with distributed.session(config.device) as device, contextlib.ExitStack() as held:
        if config.trains and distributed.rank() == 0:
            held.enter_context(fs.locked(config.output))
        made = run.build(config, device, held.enter_context(_loader_process(config, str(device))))
        preflight = _preflight(made)
        evaluate = evaluators.during_training(made)
        if config.dry_run:
            return _dry_run(made, preflight)
        if config.profile:
            from train.commands.profile import profile

            return profile(made)
        start = run.resume(made)
        write_back.check_layer(made)
        if start >= made.plan.steps:
            say(f"nothing to do: {config.output} has all its {made.plan.steps:,} steps")
            write_back.write_layer(made, start, anew=False)
            return _finish(made, {}, len(made.loader.bad))
        return _train(made, start, evaluate)


def fit(config: TrainConfig, begin: Callable[[Run], None] | None = None) -> Run:
    """Train in this process, without a folder, a log or checkpoints, and return the trained parts: for many small trainings.

    Steps are those of `train`, bit for bit. The loader's threads are this process's.

    Args:
        begin: is called before the first step, and may change the first weights.

    Raises:
        UsageError: data, model or settings that do not fit.
        RunError: the weights are no finite numbers at the end, or nothing decodes.
    """
    with distributed.session(config.device) as device:
        made = run.build(dataclasses.replace(config, loader="threads"), device)
        if begin is not None:
            begin(made)
        module = made.module().train()
        with contextlib.closing(made.loader.batches(0)) as batches:  # type: ignore[type-var]
            for batch in batches:
                take_step(made, module, batch)
                if batch.step + 1 >= made.plan.steps:
                    break
        run.check_finite(made, made.plan.steps)
        made.check_bad()
    made.task.model.eval()
    return made


@contextlib.contextmanager
def _loader_process(config: TrainConfig, device: str) -> Iterator[Child | None]:
    """Start the loader's process before the model is built, and end it whatever happens; None where batches are made in this one."""
    if config.loader != "process" or not may_be_apart(config.engine, device):
        yield None
        return
    with contextlib.closing(Child()) as child:
        yield child


def _preflight(made: Run) -> plan.Preflight:
    """Say what will be done, and what may not be meant."""
    sources = plan.sources_of(made.plan, made.config, made.manifests)
    preflight = plan.Preflight(
        plan=made.plan,
        config=made.config,
        sources=sources,
        parameters=sum(p.numel() for p in made.trained.parameters()),
        state_bytes=plan.state_bytes(made.trained, made.config.optimizer, made.ema),
        image_size=made.task.image_size,
        device=str(made.device),
        warnings=plan.warnings(made.plan, made.config, sources, run.bn_samples(made)),
    )
    if distributed.rank() == 0:
        say(preflight.text())
        for line in preflight.warnings:
            warn(line)
    return preflight


def _train(made: Run, start: int, evaluate: evaluators.Evaluate | None = None) -> int:
    names = source_names([path for path, _ in made.config.sources()])
    log = RunLog(made.config, start, made.plan.steps, names, made.losses)
    with contextlib.closing(log), handled() as interrupt:
        step = _take_steps(made, start, log, interrupt, evaluate)
    log.say_counts()
    write_back.write_layer(made, step)
    # A signal may have reached one process of several; all of them stopped for it.
    interrupt.signal = max(distributed.gather_objects(interrupt.signal))
    if interrupt and step < made.plan.steps:
        if distributed.rank() == 0:
            say(f"interrupted at step {step:,}, saved; the same command goes on")
        return interrupt.exit_code
    return _finish(made, log.last, log.unusable)


def _take_steps(made: Run, start: int, log: RunLog, interrupt: Interrupt, evaluate: evaluators.Evaluate | None) -> int:
    """Take every step from `start` on, save, and return the step that was reached."""
    module = made.module().train()
    timetable = Timetable(made.config, made.plan.steps, made.device, interrupt)
    step = start
    with contextlib.closing(made.loader.batches(start)) as batches:  # type: ignore[type-var]
        for batch in log.timed(batches):
            if step == start:
                log.measure(flops.flops_per_sample(made.trained, batch), flops.peak_flops(made.device, made.config.precision))
            take_step(made, module, batch, log)
            step = batch.step + 1
            due = timetable.after(step)
            if due.line:
                made.check_bad()
                # Below 1 the loss itself overflows, whatever the scale: then skipping steps helps no more.
                skips = made.scaler.is_enabled() and made.scaler.get_scale() > 1
                facts = {"lr": _learning_rate(made, batch.step), "epoch": _epoch(made, step), "repeats": made.loader.repeats(step)}
                log.write(skips=skips, **facts)
            evaluate_now = evaluate if due.evaluation else None
            with log.paused(made.device):
                if due.checkpoint or evaluate_now is not None:  # first, so that an evaluation that fails costs no step
                    run.save(made, step)
                    timetable.saved()
                if evaluate_now is not None and evaluate_now(step, log):
                    run.save(made, step)  # again: the checkpoint names the best one
            if due.end:
                break
    return step


def take_step(made: Run, module: nn.Module, batch: Batch, log: RunLog | None = None) -> None:
    """Take one step of the optimiser on a batch, and all that follows it: temperatures, teachers, averages.

    Args:
        module: of `made.module()`, in training mode.
        batch: this rank's part of the global batch.
        log: takes note of gradients, losses and gauges.
    """
    at = Step(batch.step, made.plan.steps, _epoch(made, batch.step))
    set_lr(made.optimizer, _learning_rate(made, batch.step))
    terms, by_sample = gradient(module, made.trained, batch, at, made.scaler)
    made.scaler.unscale_(made.optimizer)  # before norms are taken: under amp they would be thousands of times too large
    if log is not None:
        log.gradients(made.trained, batch.step)  # before clipping, which would hide every spike
    if made.config.grad_clip is not None:
        terms["grad_norm"] = nn.utils.clip_grad_norm_(made.trained.parameters(), made.config.grad_clip)
    made.scaler.step(made.optimizer)
    made.scaler.update()
    made.optimizer.zero_grad()
    made.task.after_step(at)
    if made.ema is not None:
        made.ema.update(made.task.model)
    if log is not None:
        log.add(batch, {**terms, **made.task.gauges()}, by_sample)


def _epoch(made: Run, step: int) -> float:
    """Return the passes over the data before a step."""
    return step * made.config.batch_size / made.plan.epoch_samples


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


def _dry_run(made: Run, preflight: plan.Preflight) -> int:
    """Measure speed and memory, and print the resolved recipe: as YAML, or with all numbers as JSON."""
    numbers = preflight.numbers()
    if made.config.measure:
        from train.commands.profile import forecast

        measured = forecast(made)
        numbers |= measured.numbers()
        if distributed.rank() == 0:
            say(measured.text())
    if distributed.rank() == 0:
        emit({**numbers, "recipe": made.config.resolved()} if made.config.json else made.config.to_yaml().rstrip())
    return 0


def _finish(made: Run, numbers: dict[str, float], unusable: int) -> int:
    """Print where the checkpoint lies and what training came to; return the exit code."""
    if distributed.rank() == 0:
        path, done = fs.join(made.config.output, checkpoint.NAME), made.plan
        loss = f", loss {numbers['loss']:.4f}" if numbers else ""
        facts = {"checkpoint": path, "steps": done.steps, "samples_seen": done.samples_seen}
        result: dict[str, Any] = finite({**facts, **numbers})
        emit(result if made.config.json else f"{path}: {done.steps:,} steps, {done.samples_seen:,} samples seen{loss}")
    problems = unusable + sum(findings.problems for findings in made.findings)
    return 1 if made.config.strict and problems else 0
