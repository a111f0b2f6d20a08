"""One step's gradient: pixels to views, features, loss, backward; whole, or in parts with the same result.

The parts are GradCache's (Gao et al. 2021): a first pass without gradient gives the features of the whole batch, the loss's
gradient with respect to them is computed once, and a second pass carries it through the network part by part. So every
sample is compared with the whole batch, and a parameter of the loss itself, such as the logit scale, gets its gradient
once. (open_clip sums it over the parts: with `--accum-freq 4` it is 4 times too large.)

A task gives the loss of each sample. Their mean over the global batch is taken here, with the weights of the batch, and the
losses themselves are handed on to the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from shards.core.errors import RunError, UsageError
from train import distributed
from train.config import TrainConfig
from train.data.augment import mixup
from train.data.augment.photometric import Photometric
from train.data.batch import Batch
from train.data.text import LENGTH_STEP, is_trimmable, trim
from train.losses.base import global_mean
from train.models.norm import running_stats_collected, running_stats_frozen
from train.tasks.base import Losses, Step, Task, Terms


class Outcome(NamedTuple):
    """What the loss of a step came to.

    Attributes:
        terms: scalars by name: each term's mean, `loss`, which is their sum, and the other numbers of the task.
        by_sample: the loss of each of this rank's n samples, weights left out, (n,) without gradient; NaN where a sample has
            none (no label). Images that Mixup made count as the sample in their own row.
    """

    terms: Terms
    by_sample: torch.Tensor


class Trained(nn.Module):
    """All that a task trains, as one module: DDP and torch.compile wrap it, and the optimiser asks it for parameters."""

    def __init__(self, task: Task, config: TrainConfig, device: torch.device) -> None:
        """Move the task's model and heads to the device.

        Raises:
            UsageError: views that are normalised differently.
        """
        super().__init__()
        _check_one_normalisation(task)
        self.config, self.device = config, device
        self.layout: torch.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self._task = [task]  # in a list: a task is no part of the state dict, its modules are
        self.model = task.model.to(device).to(memory_format=self.layout)
        self.heads = task.heads.to(device)
        self.photometric = Photometric(task.needs.views[0], dtype=torch.float32).to(device)
        self.half_dtype = torch.float16 if config.precision == "amp" else torch.bfloat16

    @property
    def task(self) -> Task:
        """The task."""
        return self._task[0]

    def forward(self, views: list[torch.Tensor], batch: Batch, at: Step | None) -> Losses | Terms:
        """Return the losses of the samples; without a step, the features alone."""
        with torch.autocast(self.device.type, self.half_dtype, enabled=self.config.precision != "fp32"):
            features = self.task.features(views, batch)
        features = {name: tensor.float() for name, tensor in features.items()}
        return features if at is None else self.task.loss(features, batch, at)

    def views(self, batch: Batch) -> list[torch.Tensor]:
        """Return the batch's views on the device, augmented and normalised, (n, 3, S, S) each."""
        with torch.no_grad():
            made = []
            for view in batch.views:
                images = self.photometric(view.images.to(self.device, non_blocking=True), view.params)
                made.append(images.contiguous(memory_format=self.layout))
            return made

    def on_host(self, batch: Batch) -> Batch:
        """Return the batch with its ids cut behind the longest text of all, where nothing behind can reach a feature.

        On the host, where nothing waits for a device, and outside what is compiled, whose graph a length read from ids would
        break. Compiled, ids are cut to multiples of 8: each new length may be compiled anew, and a context of 77 has 10 of them.
        """
        if batch.tokens is None or getattr(self.config, "text_groups", 1) > 1 or not is_trimmable(self.model):
            return batch
        return dataclasses.replace(batch, tokens=trim(batch.tokens, LENGTH_STEP if self.config.compile else 1))


def _check_one_normalisation(task: Task) -> None:
    """Refuse views of unequal mean or std: one tower sees all of them, and what is exported is normalised one way.

    The published SLIP, SimCLR and BYOL each have one normalisation (SLIP's main.py: ImageNet's, for both kinds of views).
    """
    stated = [(tuple(view.mean), tuple(view.std)) for view in task.needs.views]
    for mean, std in stated[1:]:
        if (mean, std) != stated[0]:
            raise UsageError(
                f"views of one tower normalised by mean {stated[0][0]} std {stated[0][1]} and by mean {mean} std {std}",
                "equal values in all augmentations",
                "in YAML, mean and std beside the preset: augment_ssl: {preset: simclr, mean: […], std: […]}",
            )


def gradient(module: nn.Module, trained: Trained, batch: Batch, at: Step, scaler: torch.amp.GradScaler) -> Outcome:
    """Add the gradient of a step to the parameters and return what its loss came to.

    Args:
        module: `trained`, or what wraps it.
        scaler: scales the loss before the backward pass; disabled unless the precision is `amp`.
    """
    views = trained.views(batch)
    batch = trained.on_host(batch)
    if trained.task.mix is not None:
        views, batch = mixed(trained, views, batch)
    if trained.config.accum == 1:
        seed_models(trained.config.seed, at.step)
        # Grouped BatchNorms then take one step for all views, as they do in parts.
        with running_stats_collected(trained, plain=collects_plain(trained.config)):
            outcome = outcome_of(module(views, batch, at), batch)
            scaler.scale(outcome.terms["loss"]).backward()
    else:
        outcome = _in_parts(module, trained, views, batch, at, scaler)
        distributed.average_gradients(trained)
    return Outcome({name: term.detach() for name, term in outcome.terms.items()}, outcome.by_sample)


def outcome_of(losses: Losses, batch: Batch) -> Outcome:
    """Return the means of a task's losses over the global batch, weighted as the batch says, and the losses by sample.

    Each rank's terms are its share: their mean over ranks is that of the global batch (see `global_mean`).
    """
    by_sample = torch.stack(list(losses.terms.values())).sum(dim=0)
    weights = losses.counts
    if batch.weights is not None:
        stated = batch.weights.to(by_sample.device, non_blocking=True)
        weights = stated if weights is None else weights * stated
    terms = {name: global_mean(values, weights) for name, values in losses.terms.items()}
    known = by_sample.detach()
    if losses.counts is not None:
        known = torch.where(losses.counts > 0, known, torch.nan)
    return Outcome({"loss": total(terms), **terms, **(losses.numbers or {})}, known)


def total(terms: Terms) -> torch.Tensor:
    """Return the sum of the terms that are minimised."""
    return torch.stack([term for name, term in terms.items() if name.endswith("_loss")]).sum()


def mixed(trained: Trained, views: list[torch.Tensor], batch: Batch) -> tuple[list[torch.Tensor], Batch]:
    """Return images and labels mixed with their neighbours'.

    The weight of a sample goes with its label: of a mixed image each label counts by its share of the image times its weight.

    Raises:
        RunError: a sample has no label.
    """
    task = trained.task
    if task.mix is None or batch.labels is None:
        return views, batch
    if batch.labels.ndim == 1 and bool((batch.labels < 0).any()):
        unlabelled = batch.uids[int((batch.labels < 0).nonzero()[0])]
        raise RunError(f"step {batch.step}: sample {unlabelled} has no label, which Mixup needs", advice="--mix without mixup and cutmix")
    n = len(batch)
    pairs = mixup.draw(task.mix, trained.config.seed, batch.step, first=distributed.rank() * n, n=n, side=task.image_size)
    targets = mixup.soft_targets(batch.labels, task.needs.classes, task.smoothing)
    if batch.weights is not None:
        targets = targets * batch.weights.unsqueeze(1)
    labelled = dataclasses.replace(batch, soft_labels=mixup.mixed_targets(targets, pairs), weights=None)
    return [mixup.mixed_images(view, pairs) for view in views], labelled


def collects_plain(config: TrainConfig) -> bool:
    """Return whether a BatchNorm without groups takes one update of its running statistics in a step, whatever its passes.

    Parts, and passes that are done again for the backward pass, would each make one. The hooks that this takes cannot be compiled.
    """
    return (config.accum > 1 or config.grad_checkpointing) and not config.compile


def _in_parts(
    module: nn.Module, trained: Trained, views: list[torch.Tensor], batch: Batch, at: Step, scaler: torch.amp.GradScaler
) -> Outcome:
    parts = list(parts_of(len(batch), trained.config.accum))
    cached: list[Terms] = []
    with torch.no_grad(), running_stats_frozen(trained):
        for number, rows in enumerate(parts):
            seed_models(trained.config.seed, at.step, number)
            cached.append(module([view[rows] for view in views], batch.part(rows), None))
    features = {name: torch.cat([part[name] for part in cached]).requires_grad_() for name in cached[0]}
    outcome = outcome_of(trained.task.loss(features, batch, at), batch)
    scaler.scale(outcome.terms["loss"]).backward()
    with running_stats_collected(trained, plain=collects_plain(trained.config)):
        _backward(module, trained.config.seed, views, batch, parts, features, at)
    return outcome


def _backward(module: nn.Module, seed: int, views: list[torch.Tensor], batch: Batch, parts: list[slice], features: Terms, at: Step) -> None:
    """Carry the gradient of the features through the network, part by part."""
    for number, rows in enumerate(parts):
        # The same seed as in the first pass: dropout leaves out the same units.
        seed_models(seed, at.step, number)
        again = module([view[rows] for view in views], batch.part(rows), None)
        carried = [name for name, feature in again.items() if feature.requires_grad]
        torch.autograd.backward([again[name] for name in carried], [_gradient_of(features[name], rows) for name in carried])


def _gradient_of(feature: torch.Tensor, rows: slice) -> torch.Tensor:
    if feature.grad is None:  # the loss does not look at it: a teacher's output
        return torch.zeros_like(feature[rows])
    return feature.grad[rows]


def parts_of(n: int, parts: int) -> Iterator[slice]:
    """Yield the rows of each part of n samples."""
    for number in range(parts):
        yield slice(n * number // parts, n * (number + 1) // parts)


def seed_models(seed: int, step: int, part: int = 0) -> None:
    """Seed what a model draws itself (dropout), so that it depends on nothing before this step."""
    number = ((seed * 1_000_003 + step) * 4_099 + distributed.rank()) * 1_009 + part
    torch.manual_seed(number & (2**63 - 1))


@contextlib.contextmanager
def evaluation(trained: Trained) -> Iterator[None]:
    """Put the model into evaluation mode for a while."""
    trained.eval()
    try:
        yield
    finally:
        trained.train()
