"""One fine-tuning inside an evaluation: from a trunk and some images of a build to a classifier, by the trainer's own loop."""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eval.transfer.judge import Classifier
from eval.transfer.subset import write_subset
from shards.core.console import muted
from shards.core.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from shards.manifest import Manifest
    from train.run import Run
    from train.tasks.finetune import Config

Begin = Callable[["Run"], None]
_DIVERGED = "no finite numbers"  # of `train.run.check_finite`


@dataclass(frozen=True)
class Trunk:
    """What is fine-tuned: a checkpoint, or an architecture from scratch where `checkpoint` is empty.

    Attributes:
        model: the architecture's name, which a checkpoint of ours says itself.
        mean, std: of another tool's trunk.
    """

    checkpoint: str
    model: str = ""
    image_size: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """How each training goes. `warmup` None stands for a tenth of the steps."""

    epochs: float = 128
    batch_size: int = 128
    weight_decay: float = 0.1
    warmup: int | None = None
    augment: str = "finetune"
    tune: str = "all"
    head: str = "normal"
    device: str = "cpu"
    workers: int = 0


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned model, and the weights it started from, head included.

    `epoch` is the one after which its weights were taken, counted from 1; None stands for the last.
    """

    classifier: Classifier
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    epoch: int | None = None

    @property
    def end(self) -> dict[str, torch.Tensor]:
        """The weights of tower and head."""
        return dict(self.classifier.model.state_dict())

    def at(self, weights: dict[str, torch.Tensor]) -> Classifier:
        """Return the same architecture with other weights."""
        other = copy.deepcopy(self.classifier.model)
        other.load_state_dict(weights)
        old = self.classifier
        return Classifier(other, old.unit_features, old.image_size, old.mean, old.std)


def config_of(trunk: Trunk, schedule: Schedule, build: str, n: int, lr: float, seed: int) -> Config:
    """Return the trainer's configuration for n images.

    Raises:
        UsageError: a trunk, an augmentation or a schedule that cannot be.
    """
    from train.tasks.finetune import Config

    flags: dict[str, Any] = {
        "manifest": (build,),
        "output": "unused",
        "epochs": float(schedule.epochs),
        "batch_size": min(schedule.batch_size, n),  # a set smaller than a batch is one batch
        "lr": lr,
        "warmup": schedule.warmup,
        "warmup_beyond": schedule.warmup is not None,
        "weight_decay": schedule.weight_decay,
        "decay_rule": "all",
        "augment": _augment(trunk, schedule),
        "tune": schedule.tune,
        "head": schedule.head,
        "seed": seed,
        "device": schedule.device,
        "workers": schedule.workers,
        "tensorboard": False,
    }
    if trunk.checkpoint:
        flags["from"] = trunk.checkpoint
    if trunk.model:
        flags["model"] = trunk.model
    if trunk.image_size:
        flags["image_size"] = trunk.image_size
    return Config.from_flags(flags)


def _augment(trunk: Trunk, schedule: Schedule) -> Any:
    if not trunk.mean:
        return schedule.augment
    return {"preset": schedule.augment, "mean": list(trunk.mean), "std": list(trunk.std)}


def tune(config: Config, begin: Begin | None = None, judge: Callable[[Classifier], float] | None = None) -> Tuned | None:
    """Train, and return the model; None where the training diverged.

    Args:
        begin: changes the first weights, such as those of the head.
        judge: says how good a model is; the weights after the best epoch are then returned, of equal ones the first. None takes the last.
    """
    from torch import nn

    from train import loop

    start: dict[str, torch.Tensor] = {}
    best = BestEpoch(judge) if judge is not None else None

    def begun(made: Run) -> None:
        if begin is not None:
            begin(made)
        modules = nn.ModuleDict({"tower": made.task.model, "head": made.task.heads["classifier"]})
        start.update(copy_of(modules))
        if best is not None:
            best.watch(made, modules)

    try:
        with muted():
            made = loop.fit(config, begun)
    except RunError as error:
        if _DIVERGED in str(error):
            return None
        raise
    modules = nn.ModuleDict({"tower": made.task.model, "head": made.task.heads["classifier"]}).eval()
    classifier = Classifier(modules, made.task.unit_features, made.task.image_size, config.augment.mean, config.augment.std)
    if best is None:
        return Tuned(classifier, start)
    modules.load_state_dict(best.weights)
    return Tuned(classifier, start, best.epoch)


def copy_of(modules: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all weights."""
    return {name: value.detach().clone() for name, value in modules.state_dict().items()}


class BestEpoch:
    """The weights after the epoch that a judge likes best: the published procedure judges every epoch on the test set."""

    def __init__(self, judge: Callable[[Classifier], float]) -> None:
        """Take the judge; `watch` says what it judges."""
        self.judge = judge
        self.epoch = 0
        self.weights: dict[str, torch.Tensor] = {}
        self._value = float("-inf")

    def watch(self, made: Run, modules: nn.ModuleDict) -> None:
        """Judge the modules at the end of each epoch of a training, which is the step in which its last sample is seen."""
        plan, config = made.plan, made.config
        classifier = Classifier(modules, made.task.unit_features, made.task.image_size, config.augment.mean, config.augment.std)
        steps = itertools.count(1)

        def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            step = next(steps)
            epochs_before, epochs_now = ((at * plan.batch_size) // plan.epoch_samples for at in (step - 1, step))
            if epochs_now > epochs_before or step == plan.steps:
                self._compare(classifier, max(epochs_now, 1))

        made.optimizer.register_step_post_hook(after)

    def _compare(self, classifier: Classifier, epoch: int) -> None:
        training = {module: module.training for module in classifier.model.modules()}
        value = self.judge(classifier)
        for module, mode in training.items():  # judging has put all of them into evaluation mode
            module.training = mode
        if value > self._value:
            self._value, self.epoch, self.weights = value, epoch, copy_of(classifier.model)


def tune_on(
    trunk: Trunk,
    schedule: Schedule,
    build: Manifest,
    positions: np.ndarray,
    lr: float,
    seed: int,
    begin: Begin | None = None,
    judge: Callable[[Classifier], float] | None = None,
) -> Tuned | None:
    """Train on some images of a build; None where the training diverged.

    Args:
        positions: of the images in the build's order.
        begin, judge: as `tune` has them.
    """
    with tempfile.TemporaryDirectory(prefix="provender-shots-") as folder:
        subset = write_subset(build, positions, folder)
        return tune(config_of(trunk, schedule, subset, len(positions), lr, seed), begin, judge)
